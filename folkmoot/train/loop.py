"""One round: the generator asks, the engine answers, the next state comes back.

A round is atomic. What it starts from is a `Snapshot`, what it ends with is another one; a round
without a usable answer leaves everything but its number as it was.
"""

from collections.abc import Generator
from typing import Any, NamedTuple

from folkmoot.aggregators.faults import not_finite
from folkmoot.aggregators.measured import DIVERSITY
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, Aggregate, Aggregator, State, Sum
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Task
from folkmoot.core.engine import ClientId, Cohort, Collected, Engine, LeftOut
from folkmoot.core.errors import DivergenceError, QuorumError, SettingsError
from folkmoot.core.tree import Tree
from folkmoot.engines.stream import one_thread
from folkmoot.local.parts import PARTS
from folkmoot.train.gathering import gathered, too_few
from folkmoot.train.guard import Guard
from folkmoot.train.laid_out import laid_out, remembered
from folkmoot.train.link import PLAIN, Link
from folkmoot.train.releases import Decoded
from folkmoot.train.states import ClientStates

_UNASKED = (Collected(Sum({}, 0.0, {}, 0), {}, [], 0.0, {}), None)


class Snapshot(NamedTuple):
    """All that a run needs to go on with the same bits."""

    round: int
    """Rounds done."""
    state: Tree
    """The algorithm's state; `params`, `buffers` and `counts` are the model."""
    codecs: Tree
    """Public states of the codecs, by exchange."""
    own: ClientStates
    """Private states of clients that took part and keep one."""
    bases: Tree = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """What was broadcast in earlier rounds that devices still work on, by the rounds it had seen.
    """


class RoundReport(NamedTuple):
    """What happened in one round."""

    round: int
    asked: int
    answered: int
    left_out: list[LeftOut]
    client_s: float
    """Seconds of client work, added over streams."""
    upload_bytes: int
    download_bytes: int
    noise_to_signal: float | None = None
    """The noise of a private round's first mean over what stands out of it."""
    skipped: str | None = None
    """Why the round had no result; the model is then as it was."""
    told: dict[str, int] | None = None
    """What secure sums tell of all updates together: how many were clipped, and the like."""
    update_norm: float | None = None
    """L2 norm of the mean of the parameters' updates, of the first exchange that has one."""
    diversity: float | None = None
    """How far clients' updates point apart, where that was measured."""
    uploads: dict[ClientId, int] = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes to it)
    """Bytes up of each client whose answer counted."""


def first_snapshot(algorithm: Algorithm) -> Snapshot:
    """Return the state before any round."""
    state = algorithm.init()
    missing = [name for name in PARTS if name not in state]
    if missing:
        raise SettingsError(
            f"The state of algorithm {algorithm.name!r} has no {missing[0]!r}. Its init() must "
            "return params, buffers and counts, which are the model, beside whatever else it keeps."
        )
    return Snapshot(0, state, {}, ClientStates())


# More threads here would take the cores of the workers, and spin there while they wait.
@one_thread()
def run_round(
    algorithm: Algorithm,
    snapshot: Snapshot,
    engine: Engine,
    cohort: Cohort,
    seed: int,
    guard: Guard | None = None,
    link: Link = PLAIN,
) -> tuple[Snapshot, RoundReport]:
    """Drive one round with one cohort, through as many exchanges as the algorithm asks.

    Args:
        algorithm: What is done.
        snapshot: Where it stands.
        engine: Where clients run.
        cohort: Who is asked.
        seed: The run's.
        guard: Lets a private exchange through once it is paid for; None where nothing is promised.
        link: How broadcasts travel, whose late answers come beside the cohort's, and what is
            measured.

    Raises:
        BudgetError: If an exchange would overspend; nobody has been asked for it then.
        DivergenceError: If every update of an exchange is not finite, or the new model is not.
        SettingsError: If the algorithm's round does not yield tasks.
    """
    steps = begun(algorithm, snapshot.state)
    codecs, own, bases = dict(snapshot.codecs), snapshot.own, snapshot.bases
    report = RoundReport(cohort.round, len(cohort.clients), 0, [], 0.0, 0, 0)
    answer: Aggregate | None = None
    exchange = 0
    while True:
        try:
            task = steps.send(answer) if answer is not None else next(steps)
        except StopIteration as done:
            refuse_divergence(done.value, cohort.round)
            if guard is not None:
                guard.end(cohort.round, exchange)
            return Snapshot(cohort.round, done.value, codecs, own, bases), report
        task = link.measured(check_task(algorithm, task))
        asked = cohort._replace(exchange=exchange)
        if guard is not None:
            guard.admit(asked)
        task, codecs = link.delivered(task, codecs, asked, seed)
        bases = link.with_base(bases, task, asked)
        state = laid_out(task, asked, codecs.get(f"{exchange}"), link.answers(asked))
        collected, decoded = _answered(
            engine, task, state, asked, snapshot._replace(own=own, bases=bases), seed, guard, link
        )
        if collected is not None:
            report = _added(report, collected, task, cohort)
        if isinstance(decoded, str):
            steps.close()
            # Clients have heard the broadcast, whatever came of it.
            heard = {at: kept for at, kept in codecs.items() if at.startswith("down ")}
            unchanged = snapshot._replace(
                round=cohort.round, codecs={**snapshot.codecs, **heard}, bases=bases
            )
            return unchanged, report._replace(answered=0, skipped=decoded)
        assert collected is not None
        report = _told(report, decoded)
        if guard is not None and not exchange:
            loud = guard.noise_to_signal(state, decoded.value)
            report = report._replace(noise_to_signal=loud)
        codecs[f"{exchange}"] = remembered(state, decoded.codec)
        own = own.updated(collected.own)
        members = task.aggregator.divisor or collected.total.count
        answer = Aggregate(decoded.value, members, cohort.population, decoded.counts)
        exchange += 1


def _answered(
    engine: Engine,
    task: Task,
    state: State,
    asked: Cohort,
    now: Snapshot,
    seed: int,
    guard: Guard | None,
    link: Link,
) -> tuple[Collected | None, Decoded | str]:
    """Ask for an exchange, once it is paid for, and decode what comes back.

    Returns:
        What came back, None where a secure sum was not opened; and what it decodes to, or why it
        has no result.
    """
    kept = guard.releases.find(asked.round, asked.exchange) if guard else None
    # What was released before is not asked for again, unless clients' states are wanted too.
    again = kept is None or task.work.own is not None
    if guard is not None and again:
        guard.charge(asked, task, state.bounds)
    collected: Collected | None = None
    try:
        parts = link.parts(asked)
        collected, answers = (
            gathered(engine, task, state, parts, now.own, now.bases, seed) if again else _UNASKED
        )
        # A private sum of nobody is noise, which is released like any other: that a run ends here,
        # or why, would tell of a client.
        needed = kept is None and task.aggregator.divisor is None
        if needed and collected.total.count < link.least:
            return collected, too_few(asked, collected, link.least)
        return collected, kept or _decoded(task.aggregator, state, answers, asked, seed, guard)
    except QuorumError as reason:
        return collected, str(reason)


def begun(algorithm: Algorithm, state: Tree) -> Round:
    """Return a round that has not asked for anything yet."""
    steps = algorithm.round(state)
    if not isinstance(steps, Generator):
        raise SettingsError(
            f"The round of algorithm {algorithm.name!r} returned a {type(steps).__name__}. It must "
            "be a generator: `delta = yield Task(broadcast, work, aggregator)`, and then return "
            "the next state."
        )
    return steps


def refuse_divergence(state: Tree, round: int) -> None:
    """Refuse a model that is not finite.

    Finite updates may overflow where they are added, and a server optimizer may divide by nothing.
    """
    reason = not_finite({name: state[name] for name in ("params", "buffers")})
    if reason:
        raise DivergenceError(
            f"Training diverged in round {round}: of the new model, {reason}, though the updates "
            "were finite. Lower the learning rate, also the server optimizer's."
        )


def check_task(algorithm: Algorithm, task: Any) -> Task:
    """Return what a round yielded, or refuse it: it is no task, or one that cannot be done."""
    if not isinstance(task, Task):
        raise SettingsError(
            f"The round of algorithm {algorithm.name!r} yielded a {type(task).__name__}. It must "
            "yield Task(broadcast, work, aggregator) and receive the aggregate."
        )
    if not isinstance(task.work, LocalWork) or not isinstance(task.aggregator, Aggregator):
        found = ", ".join(type(part).__name__ for part in (task.work, task.aggregator))
        raise SettingsError(
            f"The round of algorithm {algorithm.name!r} yielded a Task of {found}, but it needs "
            "local work and an aggregator, such as fm.aggregators.weighted_mean(), with ()."
        )
    if task.work.own is not None and task.aggregator.sees is EACH:
        raise SettingsError(
            f"The clients of work {task.work.name!r} keep a state of their own, which "
            f"{task.aggregator.name}() would lose: it looks at single updates. Use a sum-based "
            "aggregator such as uniform_mean(), or a work without client state."
        )
    return task


def _told(report: RoundReport, decoded: Decoded) -> RoundReport:
    """Return a report that also says what an exchange's aggregate tells."""
    told = _together(report.told, decoded.codec.get("told", {}))
    diversity = decoded.codec.pop(DIVERSITY, None)
    norm = report.update_norm
    if norm is None and "params" in decoded.value:
        norm = float(trees.norm(decoded.value["params"]))
    if diversity is not None:
        report = report._replace(diversity=float(diversity))
    return report._replace(told=told, update_norm=norm)


def _together(told: dict[str, int] | None, more: Tree) -> dict[str, int] | None:
    """Add what another exchange tells."""
    if not more:
        return told
    return {name: int(number) + (told or {}).get(name, 0) for name, number in more.items()}


def _summed(before: dict[ClientId, int], more: dict[ClientId, int]) -> dict[ClientId, int]:
    if not before:
        return more
    return before | {client: before.get(client, 0) + size for client, size in more.items()}


def _decoded(
    aggregator: Aggregator, state: State, gathered: Any, cohort: Cohort, seed: int, guard: Any
) -> Decoded:
    """Return what becomes of a sum; under privacy it is written down before anybody uses it."""
    key = rng.derive(seed, round=cohort.round, purpose=cohort.purpose("decode"))
    value, counts, following = aggregator.decode(state, gathered, key)
    found = Decoded(value, counts, following.codec)
    if guard:
        guard.releases.keep(cohort.round, cohort.exchange, found)
    return found


def _added(report: RoundReport, collected: Collected, task: Task, cohort: Cohort) -> RoundReport:
    down = trees.num_bytes(task.broadcast) * len(cohort.clients)
    return report._replace(
        answered=collected.total.count,
        left_out=report.left_out + collected.left_out,
        client_s=report.client_s + collected.client_s,
        upload_bytes=report.upload_bytes + sum(collected.uploads.values()),
        download_bytes=report.download_bytes + down,
        uploads=_summed(report.uploads, collected.uploads),
    )
