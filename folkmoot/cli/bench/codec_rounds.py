"""What compression adds to a round of `femnist-cnn`, beside the same round without it.

Rounds take turns in one process, each from the same model with the same clients, and who begins
changes. One stream with one thread of arithmetic, whose processor time counts: clients' and the
server's. A figure is the median of the turns' ratios.
"""

import statistics
from collections.abc import Callable
from time import process_time
from typing import Any, NamedTuple

import torch

from folkmoot import codecs
from folkmoot.algorithms.fedavg import fedavg
from folkmoot.cli.bench.machine import moment, others
from folkmoot.cli.bench.models import build
from folkmoot.cli.bench.workloads import WORKLOADS, Workload, generate
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.core.engine import Cohort, Engine, Setting
from folkmoot.data import from_arrays
from folkmoot.engines import sequential
from folkmoot.engines.worker import keep_freed_memory
from folkmoot.local import classifier, sgd
from folkmoot.train.compression import compressing
from folkmoot.train.loop import first_snapshot, run_round

BAR = 1.1
"""The most that a round may be of one without compression."""
PLAIN = "none"
_CODECS = (codecs.quantize(8), codecs.eden(1), codecs.eden(4), codecs.top_k(0.01))
_CLIENTS, _TURNS, _WARM_UP = 10, 9, 1


class _Round(NamedTuple):
    """One way to do the same round."""

    algorithm: Algorithm
    engine: Engine
    cohort: Cohort

    def seconds(self) -> tuple[float, int]:
        """Do it, and return its processor time and the bytes that came up."""
        begun = process_time()
        first = first_snapshot(self.algorithm)
        _, report = run_round(self.algorithm, first, self.engine, self.cohort, 0)
        return process_time() - begun, report.upload_bytes


def codec_rounds(
    quick: bool = False, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure rounds with each codec, and return their figures, as plain JSON.

    Args:
        quick: One turn of three small clients, to see that it works.
        tell: Is given a line when all is done.
    """
    workload = WORKLOADS["femnist-cnn"]
    rounds = rounds_of(workload.cut() if quick else workload)
    keep_freed_memory()
    before = moment()
    turns = alternated(rounds, 1 if quick else _TURNS)
    found = figures(turns, others(before, moment()))
    tell(", ".join(f"{name} {one['time']:.3f}" for name, one in found.items()))
    return found


def rounds_of(workload: Workload) -> dict[str, _Round]:
    """Return one round of a workload, without compression and by each codec."""
    asked = workload.cohorts()[0][:_CLIENTS]
    pool = generate(workload)
    clients = from_arrays((torch.from_numpy(pool.x), torch.from_numpy(pool.y)), pool.owner)
    local = sgd(
        classifier(build(workload.model)),
        lr=workload.lr,
        batch_size=workload.batch_size,
        shuffle=False,
    )
    cohort = Cohort(1, tuple(asked), len(clients), len(asked))

    def one(codec: Codec | None) -> _Round:
        algorithm = fedavg(local) if codec is None else compressing(fedavg(local), codec)
        return _Round(algorithm, sequential()(Setting(clients, 0)), cohort)

    return {PLAIN: one(None)} | {codec.name: one(codec) for codec in _CODECS}


Turn = dict[str, tuple[float, int]]
"""Seconds and bytes up of each round, by its name."""


def alternated(rounds: dict[str, _Round], turns: int) -> list[Turn]:
    """Do all rounds by turns."""
    found = []
    for turn in range(_WARM_UP + turns):
        names = list(rounds) if turn % 2 else list(rounds)[::-1]
        found.append({name: rounds[name].seconds() for name in names})
    return found[_WARM_UP:]


def figures(turns: list[Turn], others_cores: float | None) -> dict[str, Any]:
    """Return what each codec makes of a round's time and bytes."""
    found = {}
    for name in [name for name in turns[0] if name != PLAIN]:
        time = statistics.median(turn[name][0] / turn[PLAIN][0] for turn in turns)
        found[name] = {
            "time": time,
            "plain_s": statistics.median(turn[PLAIN][0] for turn in turns),
            "up": turns[0][name][1] / turns[0][PLAIN][1],
            "bars": {"time": BAR},
            "holds": {"time": time <= BAR},
            "others_cores": others_cores,
        }
    return found
