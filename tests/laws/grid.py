"""Cells of the table as programs: what comes before round 1, and rounds in each engine."""

import functools
import warnings
from typing import Any, NamedTuple

import torch
from laws.cards import build, takes
from laws.table import COLUMNS
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.engines.compiled import refusal as uncompiled
from folkmoot.engines.secure import secure_sums
from folkmoot.engines.vectorized import refusal as unmapped
from folkmoot.local.personal import personalize
from folkmoot.train.asking import refuse_several
from folkmoot.train.compression import compressing
from folkmoot.train.gathering import Part
from folkmoot.train.link import PLAIN, Link
from folkmoot.train.loop import begun, check_task, first_snapshot, run_round
from folkmoot.train.plan import asked_in_a_round
from folkmoot.train.policy import Policy
from folkmoot.train.private import private
from folkmoot.train.secure import secured
from folkmoot.train.timed import refuse_promises

ROUNDS = 2


@functools.cache
def objective(kind):
    """A model of 20 numbers, with batch statistics where it is not compiled."""
    torch.manual_seed(0)
    between = nn.Tanh() if kind == "compiled" else nn.BatchNorm1d(2)
    found = fm.classifier(nn.Sequential(nn.Linear(3, 2), between, nn.Linear(2, 2)).double())
    # As before round 1: one step shows what the model draws.
    found.grad(*found.init().values(), fm.Batch(clients()[0].train, None, torch.tensor(0), 0))
    return found


class Held(NamedTuple):
    """What a client holds."""

    train: Any
    test: Any = None


@functools.cache
def clients():
    found = {}
    for client, rows in enumerate((5, 7, 4, 6)):
        draw = torch.Generator().manual_seed(client)
        x = torch.randn(rows, 3, generator=draw, dtype=torch.float64)
        found[client] = Held({"x": x, "y": (x[:, 0] + 0.3 * x[:, 1] > 0).long()})
    return found


def composed(cell):
    """Build a cell's algorithm, as `fm.run` does; refusals come out."""
    # Of engines only the compiled one has a model of its own.
    return _composed(cell if cell.engine == "compiled" else cell._replace(engine="sequential"))


@functools.cache
def _composed(cell):
    kind = "compiled" if cell.engine == "compiled" else "all others"
    work = fm.local.sgd(objective(kind), lr=0.1, epochs=1, batch_size=3)
    more = {}
    if cell.rule != "its own":
        more["aggregator"] = COLUMNS["rule"][cell.rule](*COLUMNS["codec"][cell.codec])
    if takes(cell.algorithm, "server"):
        more["server"] = COLUMNS["server"][cell.server]
    algorithm = build(cell.algorithm, work, **more)
    keep = COLUMNS["personal"][cell.personal]
    algorithm = algorithm if keep is None else personalize(algorithm, keep)
    budget, sums = COLUMNS["privacy"][cell.privacy], COLUMNS["secure"][cell.secure]
    if cell.clock == "buffer":
        refuse_promises(Policy(buffer=4), budget, sums is not None)
    if budget is not None:
        with warnings.catch_warnings():
            # Four clients cannot hide one.
            warnings.filterwarnings("ignore", message="The noise of a round")
            largest = [1, 2] if cell.clock == "buffer" else None
            plan = private(budget, algorithm, clients(), ROUNDS, secure=sums, largest=largest)
        algorithm = plan.algorithm
    if sums is not None:
        number = len(clients())
        inside = budget is not None
        algorithm = secured(sums, algorithm, number, number, private=inside).algorithm
    codec = COLUMNS["compress"][cell.compress]
    if codec is not None:
        algorithm = compressing(algorithm, codec, privacy=budget, secure=sums is not None)
    if cell.clock == "buffer":
        refuse_several(algorithm, len(clients()))
    return algorithm


def asked(cell):
    """Do what comes before round 1, and return why a cell is refused, or None."""
    exact = cell.engine in ("processes", "threads")
    return _asked(cell._replace(engine="sequential") if exact else cell)


@functools.cache
def _asked(cell):
    try:
        algorithm = composed(cell)
        _first_task(algorithm)
    except fm.SettingsError as error:
        return str(error)
    work = algorithm.works[0]
    if cell.engine == "vectorized":
        return unmapped(work)
    return uncompiled(work) if cell.engine == "compiled" else None


@functools.cache
def _first_task(algorithm):
    return check_task(algorithm, next(begun(algorithm, algorithm.init())))


def trained(cell, rounds=ROUNDS, engine=None, sums=None):
    """Train a cell for two rounds, in its own engine and sums or others; return the snapshot."""
    algorithm = composed(cell)
    opener, sums = COLUMNS["engine"][engine or cell.engine], sums or COLUMNS["secure"][cell.secure]
    engine = (secure_sums(opener, sums) if sums else opener)(Setting(clients(), 0))
    snapshot = first_snapshot(algorithm)
    try:
        for number in range(1, rounds + 1):
            cohort, link = asked_in(number, cell.clock)
            snapshot, report = run_round(algorithm, snapshot, engine, cohort, 0, link=link)
            assert len(report.left_out) == len(cohort.absent) * exchanges(algorithm), report
            assert report.skipped is None, report
    finally:
        engine.close()
    return snapshot


def asked_in(number, clock):
    """Who is asked in a round, about which model."""
    ids = tuple(clients())
    cohort = Cohort(number, ids, len(ids), len(ids))
    if clock == "deadline":
        return cohort._replace(absent={ids[1]: "it is late"}, steps={ids[2]: 1}), PLAIN
    if clock == "none":
        return cohort, PLAIN
    # The last client answers in round 2 to the first model, beside others to the second one.
    late = (Part(Cohort(1, ids[3:], len(ids), len(ids)), 0, 0.5),) if number > 1 else ()
    return cohort._replace(clients=ids[:3]), Link(None, late, frozenset({0}))


@functools.cache
def exchanges(algorithm):
    return len(asked_in_a_round(algorithm, len(clients())))
