"""Trials before a run: one step of a client of each kind, two rows of the test set, a short round.

Whatever the user's model or loss raises here becomes a sentence of the report.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Task
from folkmoot.core.engine import ClientId, Cohort, Setting
from folkmoot.core.fold import ascending
from folkmoot.core.rng import as_tensor
from folkmoot.core.tree import Tree
from folkmoot.engines.batches import cut
from folkmoot.engines.clock import now
from folkmoot.engines.stream import Skipped, Stream, needs_pairs, one_thread, refuse_too_few
from folkmoot.engines.tasks import in_precision
from folkmoot.local.diagnose import explain
from folkmoot.train.attempt import attempt
from folkmoot.train.census import Fault, Held, Signature, named, spelled
from folkmoot.train.check_report import Cost
from folkmoot.train.evaluation import MOST_CLIENTS
from folkmoot.train.gradient import nothing_learnt, watched
from folkmoot.train.labels import TEST_SET
from folkmoot.train.loop import first_snapshot, run_round
from folkmoot.train.probe import Probe, of_steps

_MOST_KINDS = 8
_MOST_PROBED = 3
_ROWS = 2


class Tried(NamedTuple):
    """What came of one step of a client of each kind."""

    usable: list[Held]
    """Clients that can be trained, of the leaves that most have."""
    problems: list[Fault]
    cautions: list[Fault]


def try_clients(algorithm: Algorithm, setting: Setting, held: Sequence[Held]) -> Tried:
    """Do one step of a client of each kind of leaves, and throw it away."""
    first = next(algorithm.round(first_snapshot(algorithm).state))
    task, seen = watched(in_precision(first, setting))
    fit = [client for client in held if _takes_part(client, task.work)]
    tried = Tried([], *_left_out(setting, task, held, fit))
    kinds: dict[Signature, list[Held]] = {}
    for client in fit:
        kinds.setdefault(client.signature, []).append(client)
    ordered = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    for leaves, clients in ordered[:_MOST_KINDS]:
        others = f" and {len(clients) - 1:,} others" if len(clients) > 1 else ""
        owner = f"Client {clients[0].id!r}{others}"
        unlike = (
            f"{owner}: the leaves are {spelled(leaves)}, but those of most clients are "
            f"{spelled(ordered[0][0])}."
        )
        why = _step(setting, task, clients[0].id)
        if why and leaves != ordered[0][0]:
            tried.problems.append(Fault("leaves", f"{unlike} {why}"))
        elif why:
            tried.problems.append(Fault("training", f"{owner} cannot be trained. {why}"))
        elif leaves != ordered[0][0]:
            tried.cautions.append(Fault("leaves", f"{unlike} The model takes both."))
        else:
            tried.usable.extend(clients)
    for client in tried.usable[:_MOST_KINDS]:
        if nothing_learnt(seen):
            _step(setting, task, client.id)
    why = nothing_learnt(seen)
    if why:
        tried.problems.append(Fault("training", why))
    return tried


def _takes_part(client: Held, work: LocalWork) -> bool:
    try:
        refuse_too_few(work, cut(client.rows, work.plan, needs_pairs(work)))
    except Skipped:
        return False
    return True


def _left_out(
    setting: Setting, task: Task, held: Sequence[Held], fit: Sequence[Held]
) -> tuple[list[Fault], list[Fault]]:
    """Name clients whose examples make no batch: a problem if that is everyone, else a warning."""
    fitting = {client.id for client in fit}
    left = [client for client in held if client.id not in fitting]
    if not left:
        return [], []
    named = ", ".join(repr(client.id) for client in left[:3]) + (", ..." if len(left) > 3 else "")
    why = _step(setting, task, left[0].id)
    verb = "is" if len(left) == 1 else "are"
    of_all = "Every client is" if not fit else f"{len(left)} of {len(held)} clients {verb}"
    fault = Fault("left out", f"{of_all} left out of each round ({named}): {why}.")
    return ([], [fault]) if fit else ([fault], [])


def _step(setting: Setting, task: Task, client: ClientId) -> str | None:
    """Do one step of one client's work and return what it raises, in words."""
    cohort = Cohort(0, (), len(setting.clients), 1)
    with one_thread():
        done = attempt(Stream(setting).train, of_steps(task, 1), cohort, client, None)
    if isinstance(done, Skipped):
        return str(done)
    return _told(done) if isinstance(done, Exception) else None


def _told(error: Exception) -> str:
    """Write an error with the notes that say what to do, but not those that say where it was."""
    notes = [note for note in getattr(error, "__notes__", []) if not note.startswith("In client")]
    return " ".join([f"{named(error)}." if not str(error).endswith(".") else named(error), *notes])


def try_held_out(algorithm: Algorithm, held_out: Tree | None) -> list[Fault]:
    """Measure two rows of the test set."""
    if held_out is None:
        return []
    state = first_snapshot(algorithm).state
    rows = Batch(trees.map(lambda leaf: leaf[:_ROWS].clone(), held_out), None, as_tensor(0), 0)
    measure = algorithm.objective.measure
    done = attempt(measure, state["params"], state["buffers"], state["counts"], rows)
    if not isinstance(done, Exception):
        return []
    why = explain(algorithm.objective, held_out, done)
    return [Fault("test", f"{TEST_SET} cannot be judged. {named(done)}. {why}")]


def cost_of(
    algorithm: Algorithm,
    setting: Setting,
    held: Sequence[Held],
    usable: Sequence[Held],
    *,
    expected: float,
    rounds: int,
    evaluations: int,
    streams: int,
    client_tests: bool,
) -> tuple[Cost | None, list[Fault]]:
    """Put one round of a few clients and steps through the algorithm, and scale what it took.

    Args:
        algorithm: What would be run.
        setting: Clients, test set and precision.
        held: What clients hold, whose sizes stand for the population's.
        usable: Clients that can be trained.
        expected: Clients asked in a round.
        rounds, evaluations: How many of them there would be.
        streams: Clients that are trained at the same time.
        client_tests: Whether the model is judged on clients' own tests.
    """
    middle = sorted(usable, key=lambda client: client.rows)
    begin = max(0, (len(middle) - _MOST_PROBED) // 2)
    probed = ascending(client.id for client in middle[begin : begin + _MOST_PROBED])
    probe = Probe(setting)
    cohort = Cohort(1, probed, len(setting.clients), len(probed))
    snapshot = first_snapshot(algorithm)

    def once() -> float:
        run_round(algorithm, snapshot, probe, cohort, setting.seed)
        return _judge_s(algorithm, setting, held, client_tests)

    judge_s = attempt(once)
    if isinstance(judge_s, Exception):
        asked = ", ".join(map(repr, probed))
        return None, [Fault("training", f"A round of clients {asked} fails. {_told(judge_s)}")]
    exchanges = probe.exchanges
    client_s = statistics.fmean(
        sum(exchange.client_s(client.rows) for exchange in exchanges) for client in held
    )
    round_s = expected * client_s / max(1.0, min(streams, expected))
    largest = max(exchanges, key=lambda exchange: exchange.carry_bytes + exchange.activation_bytes)
    moved = max(
        exchange.download_bytes + (streams + 2) * exchange.upload_bytes for exchange in exchanges
    )
    cost = Cost(
        probed=probed,
        streams=streams,
        round_s=round_s,
        evaluation_s=judge_s / streams,
        total_s=rounds * round_s + evaluations * judge_s / streams,
        download_bytes=round(expected * sum(exchange.download_bytes for exchange in exchanges)),
        upload_bytes=round(expected * sum(exchange.upload_bytes for exchange in exchanges)),
        model_bytes=trees.num_bytes(algorithm.objective.init()),
        server_bytes=trees.num_bytes(snapshot.state) + moved,
        stream_bytes=largest.carry_bytes
        + largest.activation_bytes
        + max(client.payload_bytes for client in held),
    )
    return cost, []


def _judge_s(
    algorithm: Algorithm, setting: Setting, held: Sequence[Held], client_tests: bool
) -> float:
    """Return about how long one stream takes to judge the model once."""
    state = algorithm.objective.init()

    def measured_s(rows: Tree) -> float:
        batch, best = Batch(trees.clone(rows), None, as_tensor(0), 0), float("inf")
        for _ in range(2):
            begun = now()
            algorithm.objective.measure(state["params"], state["buffers"], state["counts"], batch)
            best = min(best, now() - begun)
        return best

    with one_thread():
        seconds = (
            len(setting.held_out) * measured_s(setting.held_out[0]) if setting.held_out else 0.0
        )
        tested = [client for client in held if client.test_rows] if client_tests else []
        if tested:
            middle = sorted(tested, key=lambda client: client.test_rows)[len(tested) // 2]
            share = len(tested) / len(held)
            number = min(share * len(setting.clients), MOST_CLIENTS)
            seconds += number * measured_s(setting.clients[middle.id].test)
    return seconds
