"""What a round of each algorithm costs beside one of FedAvg, on the same clients.

Rounds of FedAvg and of the algorithm take turns in one process, so that a machine that slows down
slows both, and a figure is the median of the pairs' ratios. Every round asks the same clients, so
that their private states are in use from the second on. One stream with one thread of arithmetic,
whose processor time is what a bar is held against: it does not count waiting for other programs.
"""

import inspect
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from folkmoot import algorithms as built
from folkmoot.cli.bench.bars import BARS, EPOCHS, Bar
from folkmoot.cli.bench.machine import moment, others
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.engine import ClientId, Cohort, Engine, Setting
from folkmoot.data.load import load
from folkmoot.engines import sequential
from folkmoot.local import classifier, sgd
from folkmoot.train.guard import Guard
from folkmoot.train.loop import RoundReport, Snapshot, first_snapshot, run_round

YARDSTICK = "fedavg"
NO_BAR = "no bar is stated"
_DATA, _SEED = "mnist_writers", 2026
_CLIENTS, _ROUNDS, _WARM_UP = 5, 10, 2
_LR, _BATCH_SIZE = 0.05, 10
_SLACK = 1e-3
"""Share of FedAvg's bytes that a few numbers beside the model may take."""


class Runner(NamedTuple):
    """One algorithm with an engine of its own."""

    algorithm: Algorithm
    engine: Engine
    cohort: Cohort
    guard: Guard | None = None

    def round(self, snapshot: Snapshot) -> tuple[Snapshot, RoundReport, float]:
        """Do the next round; the last is its seconds of processor time, the server's too."""
        begun = time.process_time()
        asked = self.cohort._replace(round=snapshot.round + 1)
        after, report = run_round(self.algorithm, snapshot, self.engine, asked, _SEED, self.guard)
        return after, report, time.process_time() - begun


def algorithms(
    quick: bool = False,
    names: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure algorithms beside FedAvg and return their figures, as plain JSON.

    Args:
        quick: Two pairs of rounds of four clients, to see that it works.
        names: Which; None is all that there are.
        tell: Is given a line when an algorithm is done.
    """
    clients, _ = load(_DATA)
    chosen = list(clients)[: 4 if quick else _CLIENTS]
    found = {}
    for name in names or [name for name in built.__all__ if name != YARDSTICK]:
        build, bar = getattr(built, name), BARS.get(name)
        if bar is None and _needs_more(build):
            found[name] = {"skipped": f"{NO_BAR}, and it needs arguments"}
            tell(f"{name}: {found[name]['skipped']}")
            continue
        norm, options = (bar.norm, bar.options) if bar else (False, {})
        found[name] = figures(
            build(_work(norm), **options),
            built.fedavg(_work(norm)),
            bar,
            {client: clients[client] for client in chosen},
            rounds=2 if quick else _ROUNDS,
        )
        told = f"bar {bar.time:.2f}" if bar else NO_BAR
        tell(f"{name}: {found[name]['time']:.2f} of FedAvg's time, {told}")
    return found


def _needs_more(build: Callable[..., Algorithm]) -> bool:
    """Tell whether an algorithm cannot be built of local work alone."""
    _, *more = inspect.signature(build).parameters.values()
    return any(one.default is one.empty for one in more)


def figures(
    algorithm: Algorithm,
    fedavg: Algorithm,
    bar: Bar | None,
    clients: dict[ClientId, Any],
    rounds: int,
) -> dict[str, Any]:
    """Let both do rounds by turns; return ratios, their bars, and whether they hold.

    Without a bar there is no verdict.
    """
    before = moment()
    pairs = _pairs([_runner(one, clients) for one in (algorithm, fedavg)], rounds)
    shares = {
        "time": [ours / theirs for (_, ours), (_, theirs) in pairs],
        "client_time": [ours.client_s / theirs.client_s for (ours, _), (theirs, _) in pairs],
        "up": [ours.upload_bytes / theirs.upload_bytes for (ours, _), (theirs, _) in pairs],
        "down": [ours.download_bytes / theirs.download_bytes for (ours, _), (theirs, _) in pairs],
    }
    medians = {name: statistics.median(values) for name, values in shares.items()}
    bars = {"time": bar.time, "up": bar.up, "down": bar.down} if bar else {}
    slack = {"time": 0.0, "up": _SLACK, "down": _SLACK}
    return {
        **medians,
        "fedavg_client_ms": statistics.median(theirs.client_s for _, (theirs, _) in pairs)
        / len(clients)
        * 1e3,
        "bars": bars,
        "why": bar.why if bar else NO_BAR,
        "holds": {key: medians[key] <= most + slack[key] for key, most in bars.items()},
        "others_cores": others(before, moment()),
    }


Timed = tuple[RoundReport, float]


def _pairs(runners: list[Runner], rounds: int) -> list[list[Timed]]:
    """Return each pair of timed rounds, in the runners' order; who begins changes each time."""
    snapshots = [first_snapshot(runner.algorithm) for runner in runners]
    pairs = []
    for turn in range(_WARM_UP + rounds):
        timed: dict[int, Timed] = {}
        for place in sorted(range(len(runners)), reverse=turn % 2 == 0):
            snapshots[place], report, seconds = runners[place].round(snapshots[place])
            timed[place] = report, seconds
        pairs.append([timed[place] for place in range(len(runners))])
    return pairs[_WARM_UP:]


def _runner(algorithm: Algorithm, clients: dict[ClientId, Any]) -> Runner:
    cohort = Cohort(1, tuple(clients), len(clients), len(clients))
    return Runner(algorithm, sequential()(Setting(clients, _SEED)), cohort)


def _work(norm: bool) -> LocalWork:
    objective = classifier(_mlp(norm))
    return sgd(objective, lr=_LR, epochs=EPOCHS, batch_size=_BATCH_SIZE)


def _mlp(norm: bool) -> nn.Module:
    """784-128-10, with or without BatchNorm, always with the same parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        layers: dict[str, nn.Module] = {"flat": nn.Flatten(), "hidden": nn.Linear(784, 128)}
        layers |= {"norm": nn.BatchNorm1d(128)} if norm else {}
        layers |= {"relu": nn.ReLU(), "out": nn.Linear(128, 10)}
    return nn.Sequential(OrderedDict(layers))
