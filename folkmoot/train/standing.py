"""Where a run stands, and how it gets one round further: train, judge, remember, store."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.core.engine import ClientId, Engine
from folkmoot.core.errors import QuorumError
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData
from folkmoot.engines.clock import now
from folkmoot.local.parts import model_in
from folkmoot.train.checkpoint import (
    Stored,
    begin_anew,
    load_checkpoint,
    refuse_other_program,
    save_checkpoint,
)
from folkmoot.train.described import described
from folkmoot.train.evaluation import ClientResult, Judge
from folkmoot.train.guard import Guard
from folkmoot.train.loop import RoundReport, Snapshot, first_snapshot, run_round
from folkmoot.train.monitor import watch
from folkmoot.train.policy import ALWAYS, Policy
from folkmoot.train.sampling import Sampling
from folkmoot.train.states import ClientStates
from folkmoot.train.stopping import Best, Row, Stop, improves, why_stop
from folkmoot.train.store import Store
from folkmoot.train.tally import Tally
from folkmoot.train.timeline import Timeline
from folkmoot.train.turns import downloaded, next_asked, skipped, tallied, wasted
from folkmoot.train.whom import NOWHERE, Places

_MOST_SKIPPED = 3


class Program(NamedTuple):
    """What a run does, fixed before its first round."""

    algorithm: Algorithm
    clients: ClientData
    sampling: Sampling
    seed: int
    rounds: int
    evaluate_every: int
    judge: Judge
    stop: Stop | None
    folder: Path | None
    """Where checkpoints are written; None for nowhere."""
    checkpoint_every: int
    identity: dict[str, Any]
    """What a checkpoint must agree with to be gone on from."""
    store: Store
    """Where clients' private states lie."""
    policy: Policy = ALWAYS
    """When rounds begin and end."""
    down: Codec | None = None
    """How differences of broadcasts are packed."""
    difference_bytes: int | None = None
    """Of one such difference."""
    places: Places = NOWHERE
    """Where each client stands in the population."""
    clock: Timeline | None = None
    """The virtual clock; None where no fleet says what takes how long."""
    monitor: bool = True
    """Whether advice is given."""
    measures: bool = True
    """Whether single updates may be measured: nothing is promised of them."""


class Standing(NamedTuple):
    """What has come of a run so far."""

    snapshot: Snapshot
    history: list[Row]
    best: Best
    best_model: Tree
    """The model of the best round; empty before the first evaluation."""
    ended: str | None = None
    """Why the run ends before its last round."""
    judged: Mapping[ClientId, ClientResult] = MappingProxyType({})
    """This model on each judged client's own test examples; empty where that was not asked yet."""
    tally: Tally = Tally.of(0)
    """What each client has been asked for and has sent."""


def begin(program: Program, resume: bool) -> Standing:
    """Return the standing before the first round, or the newest one that was stored.

    Raises:
        CheckpointError: If what was stored cannot be read.
        SettingsError: If it belongs to another program, or a run that can go on would be lost.
    """
    stored = load_checkpoint(program.folder, program.store) if program.folder and resume else None
    if stored is None:
        if program.folder:
            begin_anew(program.folder, program.folder.parent / "summary.json")
        first = first_snapshot(program.algorithm)._replace(own=ClientStates(store=program.store))
        return Standing(first, [], program.judge.best, {}, tally=Tally.of(len(program.clients.ids)))
    refuse_other_program(stored.facts["program"], program.identity)
    best, history = Best(*stored.facts["best"]), stored.facts["history"]
    ended, tally = _why_stop(program, history), Tally.from_tree(stored.tally)
    return Standing(stored.snapshot, history, best, stored.best, ended, tally=tally)


def identity_of(
    facts: Mapping[str, Any],
    algorithm: Algorithm,
    sampling: Sampling,
    judge: Judge,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what two runs must share for one to go on where the other stopped, as plain JSON.

    Args:
        facts: What a result tells of the program.
        algorithm, sampling, judge: Of the program.
        more: Whatever else it is made of, by name.
    """
    held = {"": algorithm.round, "sampling.": sampling, **more}
    parts = {
        f"{at}{name}": part for at, one in held.items() for name, part in described(one).items()
    }
    return {**facts, "best": judge.best.metric, **parts}


def _why_stop(program: Program, history: list[Row]) -> str | None:
    """Ask the stopping rule, after a round that was evaluated."""
    judged = bool(history) and history[-1]["evaluated"]
    return why_stop(program.stop, history) if program.stop and judged else None


def is_over(program: Program, standing: Standing) -> bool:
    """Tell whether there is no round left to run."""
    return standing.ended is not None or standing.snapshot.round >= program.rounds


def advance(
    program: Program, standing: Standing, engine: Engine, guard: Guard | None = None
) -> Standing:
    """Run one round, judge its model where that is due, and store it where that is asked.

    Args:
        program: What the run does.
        standing: Where it stands.
        engine: Where clients run.
        guard: What a private run pays through, and draws its cohorts from.
    """
    started = now()
    number = standing.snapshot.round + 1
    lot = program.seed ^ guard.identity.cohorts if guard else program.seed
    due = number % program.evaluate_every == 0 or number == program.rounds
    asked = next_asked(program, number, lot)
    # A tiny model pays for it: of three evaluated rounds one is measured.
    measures = due and program.measures and number // program.evaluate_every % 3 == 1
    link = asked.link._replace(measures=measures)
    if asked.reason is not None:
        snapshot, report = skipped(program, standing.snapshot, asked)
    else:
        snapshot, report = run_round(
            program.algorithm, standing.snapshot, engine, asked.cohort, program.seed, guard, link
        )
    trained = now()
    downloads, snapshot = downloaded(program, snapshot, asked, report)
    tally = standing.tally
    if guard is None:
        tally = tallied(program, tally, asked, report, downloads)
    else:
        # Who was lost is of those whom a lot has chosen, which nobody is to know.
        told = [left for left in report.left_out if left.client not in asked.absent]
        report = report._replace(left_out=told)
    row = _row(report, trained - started, engine.streams, guard)
    row["upload_bytes"] += sum(wasted(program, asked))
    row |= {"download_bytes": sum(downloads), **asked.row}
    best, best_model = standing.best, standing.best_model
    judged: Mapping[ClientId, ClientResult] = {}
    if due:
        columns, judged = program.judge(snapshot, engine)
        row |= columns
        if improves(best, row.get(best.metric, math.nan)):
            best, best_model = best.at(number, row[best.metric]), model_in(snapshot.state)
    row["evaluation_s"] = now() - trained
    history = [*standing.history, row]
    if due and program.monitor and (advice := watch(history)):
        row["advice"] = advice.sentence
    ended = _why_stop(program, history)
    following = Standing(snapshot, history, best, best_model, ended, judged, tally)
    # They name those who took part.
    if guard is None and (number == 1 or is_over(program, following)):
        row |= asked.spans
    _refuse_silence(history)
    if program.folder and (number % program.checkpoint_every == 0 or is_over(program, following)):
        facts = {"history": history, "best": list(best), "program": program.identity}
        stored = Stored(snapshot, best_model, facts, tally.tree())
        save_checkpoint(program.folder, stored)
        if guard:
            guard.releases.forget(number)
    return following


def _row(report: RoundReport, seconds: float, streams: int, guard: Guard | None) -> Row:
    """Return a round's row of the history."""
    found = {
        "noise_to_signal": None if guard is None else report.noise_to_signal,
        "update_norm": report.update_norm,
        "diversity": report.diversity,
    }
    return {
        "round": report.round,
        "asked": report.asked,
        "answered": report.answered,
        "left_out": [[left.client, left.reason] for left in report.left_out],
        "skipped": report.skipped,
        "evaluated": False,
        "train_s": seconds,
        "client_s": report.client_s / streams,
        "upload_bytes": report.upload_bytes,
        "download_bytes": report.download_bytes,
        **{name: value for name, value in found.items() if value is not None},
        **(report.told or {}),
    }


def _refuse_silence(history: list[Row]) -> None:
    """Give up when several rounds in a row, of those that asked somebody, had no usable answer."""
    asked = (row for row in reversed(history) if row["asked"])
    last = list(itertools.islice(asked, _MOST_SKIPPED))
    if len(last) == _MOST_SKIPPED and all(row["skipped"] for row in last):
        raise QuorumError(f"{_MOST_SKIPPED} rounds in a row had no result. {last[0]['skipped']}")


def refuse_nothing_learnt(history: list[Row]) -> None:
    """Refuse a run of which no round had a result: its model is as it was."""
    if not history or not all(row["skipped"] for row in history):
        return
    none = f"None of {len(history)} round{'' if len(history) == 1 else 's'}"
    asked = [row for row in history if row["asked"]]
    if not asked:
        raise QuorumError(
            f"{none} asked anybody, so nothing was learnt. Ask for a larger cohort, or run more "
            "rounds."
        )
    raise QuorumError(f"{none} had a result, so nothing was learnt. {asked[-1]['skipped']}")
