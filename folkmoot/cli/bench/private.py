"""What a client's round of example-level privacy costs beside the same round without it.

One client, DP-SGD with noise from the operating system beside plain SGD on the same examples, model
and batch size. Rounds of both take turns in one process, so that a machine that slows down slows
both, and a figure is the median of the pairs' ratios, of processor time. The sampler of the noise
is timed by itself as well: it costs the same whatever the batch, so small batches pay most.
"""

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from folkmoot.algorithms import fedavg
from folkmoot.cli.bench.algorithms import Runner
from folkmoot.cli.bench.machine import moment, others
from folkmoot.cli.bench.models import build
from folkmoot.cli.bench.workloads import EXAMPLES, WORKLOADS
from folkmoot.codecs import entropy
from folkmoot.codecs.discrete_gaussian import discrete_gaussian
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.engine import ClientId, Cohort, Setting
from folkmoot.core.tree import Tree
from folkmoot.data import as_clients
from folkmoot.engines import sequential
from folkmoot.engines.worker import keep_freed_memory
from folkmoot.local import classifier, dpsgd, sgd
from folkmoot.local.dpsgd import grid
from folkmoot.privacy.dp import DP
from folkmoot.train.guard import Guard, guarded
from folkmoot.train.loop import first_snapshot
from folkmoot.train.private import private as hidden

_SEED = 2026
_CLIP, _NOISE, _LR = 1.0, 1.0, 0.05
_ROUNDS, _WARM_UP = 9, 2
_CLIENTS, _CLIENTS_BAR = 100, 1.1


@dataclass(frozen=True, kw_only=True)
class Private:
    """One line of the table."""

    model: str
    """A name in `models.MODELS`."""
    batch_size: int
    """Expected, for the private one."""
    steps: int
    """Of a round: the client has as many batches."""
    bar: float | None
    """Most times that a private round may take the plain one's time; None where none is stated."""
    why: str

    def cut(self) -> "Private":
        """Return a step of few rows, to see that it works."""
        return replace(self, batch_size=min(self.batch_size, 8), steps=1)


PRIVATE = {
    "mlp-600": Private(
        model="mlp",
        batch_size=600,
        steps=5,
        bar=2.5,
        why="the lot of Abadi et al. on MNIST: a pass in float64 and the noise beside two passes",
    ),
    "mlp-60": Private(
        model="mlp",
        batch_size=60,
        steps=10,
        bar=None,
        why="a batch so small that drawing the noise takes longer than its gradient",
    ),
    "cnn-64": Private(
        model="cnn",
        batch_size=64,
        steps=2,
        bar=6.0,
        why="convolutions unfold their inputs, and hold each example's gradient",
    ),
    "lstm-20": Private(
        model="lstm",
        batch_size=20,
        steps=1,
        bar=6.0,
        why="a kernel that can be neither mapped nor looked into takes one example at a time",
    ),
}


def private(quick: bool = False, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure private rounds beside plain ones and return their figures, as plain JSON.

    Args:
        quick: One pair of rounds of a few rows, to see that it works.
        tell: Is given a line when a workload is done.
    """
    # As workers do: what is freed after one step is there for the next.
    keep_freed_memory()
    found = {}
    for name, work in PRIVATE.items():
        found[name] = figures(work.cut(), 1) if quick else figures(work, _ROUNDS)
        bar = "no bar is stated" if work.bar is None else f"bar {work.bar:.1f}"
        tell(f"{name}: {found[name]['time']:.2f} of the plain round's time, {bar}")
    found["clients"] = of_clients(1 if quick else _ROUNDS, 4 if quick else _CLIENTS)
    tell(f"clients: {found['clients']['time']:.2f} of the plain round's time, bar {_CLIENTS_BAR}")
    return found


def of_clients(rounds: int, clients: int) -> dict[str, Any]:
    """Let a round that hides clients and a plain one take turns, of the workload `mlp`.

    What privacy adds to a client is a copy, a norm, a scale and a rounding of its update; to a
    round, the noise and the ledger.
    """
    before, work = moment(), WORKLOADS["mlp"]
    objective = classifier(build(work.model))
    plain = fedavg(sgd(objective, lr=_LR, batch_size=work.batch_size))
    x, y = EXAMPLES[work.model](60 * clients, np.random.default_rng(_SEED))
    rows = {"x": torch.from_numpy(x), "y": torch.from_numpy(y.astype(np.int64))}
    held: dict[ClientId, Any] = {
        client: {name: leaf[60 * client : 60 * (client + 1)] for name, leaf in rows.items()}
        for client in range(clients)
    }
    with warnings.catch_warnings():
        # That it would learn little is of no matter here.
        warnings.filterwarnings("ignore", message="The noise of a round")
        plan = hidden(DP(noise_multiplier=_NOISE, clip=_CLIP), plain, held, rounds + _WARM_UP)
    with contextlib.closing(guarded(plan, None, resume=False)) as guard:
        runners = [_of_many(plan.algorithm, held, guard), _of_many(plain, held, None)]
        pairs = _taking_turns(runners, rounds)
    private_s, plain_s = (statistics.median(times) / clients for times in zip(*pairs, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return {
        "time": ratio,
        "private_ms_a_step": private_s * 1e3,
        "plain_ms_a_step": plain_s * 1e3,
        "noise_share": _noise_s(plan.size) / (private_s * clients),
        "parameters": plan.size,
        "bar": _CLIENTS_BAR,
        "why": "a few passes over an update beside training it",
        "holds": ratio <= _CLIENTS_BAR,
        "others_cores": others(before, moment()),
    }


def figures(work: Private, rounds: int) -> dict[str, Any]:
    """Let a private and a plain round take turns; return ratios, the bar, and whether it holds."""
    before, data = moment(), _examples(work)
    objective = classifier(build(work.model))
    plain = sgd(objective, lr=_LR, batch_size=work.batch_size)
    works = (dpsgd(plain, clip=_CLIP, noise_multiplier=_NOISE), plain)
    pairs = _taking_turns([_runner(one, data) for one in works], rounds)
    time_ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    private_s = statistics.median(ours for ours, _ in pairs) / work.steps
    size = sum(leaf.numel() for leaf in objective.init()["params"].values())
    return {
        "time": time_ratio,
        "private_ms_a_step": private_s * 1e3,
        "plain_ms_a_step": statistics.median(theirs for _, theirs in pairs) / work.steps * 1e3,
        "noise_share": _noise_s(size) / private_s,
        "parameters": size,
        "bar": work.bar,
        "why": work.why,
        "holds": None if work.bar is None else time_ratio <= work.bar,
        "others_cores": others(before, moment()),
    }


def _taking_turns(runners: Sequence[Runner], rounds: int) -> list[list[float]]:
    """Return the seconds of each pair of rounds, after some to warm up; who begins changes."""
    snapshots = [first_snapshot(runner.algorithm) for runner in runners]
    seconds: list[list[float]] = []
    for turn in range(_WARM_UP + rounds):
        timed = [0.0, 0.0]
        for place in sorted(range(2), reverse=turn % 2 == 0):
            snapshots[place], _, timed[place] = runners[place].round(snapshots[place])
        seconds.append(timed)
    return seconds[_WARM_UP:]


def _of_many(algorithm: Algorithm, clients: dict[ClientId, Any], guard: Guard | None) -> Runner:
    engine = sequential()(Setting(as_clients(clients), _SEED))
    number = len(clients)
    return Runner(algorithm, engine, Cohort(1, tuple(clients), number, number), guard)


def _examples(work: Private) -> Tree:
    rows = work.batch_size * work.steps
    x, y = EXAMPLES[work.model](rows, np.random.default_rng(_SEED))
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(y.astype(np.int64))}


def _runner(work: Any, data: Tree) -> Runner:
    class Client:
        train, test = data, None

    return Runner(fedavg(work), sequential()(Setting({0: Client}, _SEED)), Cohort(1, (0,), 1, 1))


def _noise_s(size: int) -> float:
    """Return the seconds of processor time that one step's noise takes."""
    sigma, taken = _NOISE * _CLIP / grid(_CLIP, _NOISE, size), []
    for _ in range(5):
        begun = time.process_time()
        discrete_gaussian(size, sigma, entropy.system())
        taken.append(time.process_time() - begun)
    return statistics.median(taken)
