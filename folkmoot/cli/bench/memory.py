"""Memory: that of the server must not follow the cohort, nor the rounds, nor the population.

Each probe is a run in a fresh process, `python -m folkmoot.cli.bench.memory PROBE BEGUN`, whose
answer is one line of JSON.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.cli.bench.workloads import WORKLOADS

_ROWS = 20
_FROM, _TO = 20, 500
"""Rounds between which memory may not grow."""


def memory() -> dict[str, Any]:
    """Run every probe and return its figures, as plain JSON."""
    few, many = _probe("cohort_100"), _probe("cohort_1000")
    return {
        "server": {
            "peak_mib_100_clients": few["peak_mib"],
            "peak_mib_1000_clients": many["peak_mib"],
            "ratio": many["peak_mib"] / few["peak_mib"],
        },
        "rounds": _probe("rounds"),
        "million_clients": _probe("million"),
    }


def _probe(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "folkmoot.cli.bench.memory", name, str(time.perf_counter())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(
    model: str, population: int, cohort: int, rounds: int, told: Callable[[Any], None] = print
) -> None:
    """Train over clients whose examples come from a function."""
    import torch

    from folkmoot.algorithms.fedavg import fedavg
    from folkmoot.cli.bench.models import build
    from folkmoot.data import from_function
    from folkmoot.local import classifier, sgd
    from folkmoot.train.run import run

    inputs = 10 if model == "linear" else 784

    def load(client: int) -> dict[str, torch.Tensor]:
        x = np.random.default_rng(client).standard_normal((_ROWS, inputs), dtype=np.float32)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy((x[:, 0] > 0).astype(np.int64))}

    clients = from_function(range(population), load)
    work = sgd(classifier(build(model)), lr=0.05, batch_size=_ROWS)
    run(fedavg(work), clients, rounds=rounds, cohort=cohort, progress=False, callbacks=[told])


def _silent(event: Any) -> None:
    """Listen to nothing."""


def _peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _resident_bytes() -> int:
    """Return what this process holds now; its peak so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return int(_peak_mib() * 2**20)
    return pages * resource.getpagesize()


def _cohort(clients: int) -> dict[str, Any]:
    _run("mlp", 1_000, clients, 3, _silent)
    return {"peak_mib": _peak_mib()}


def _rounds() -> dict[str, Any]:
    held: list[int] = []

    def told(event: Any) -> None:
        if event.kind == "round":
            held.append(_resident_bytes())

    _run("linear", WORKLOADS["tiny"].clients, 100, _TO, told)
    rounds = np.arange(_FROM, _TO + 1)
    kept = np.array(held[_FROM - 1 : _TO])
    slope = np.polyfit(rounds, kept, 1)[0]
    return {"bytes_per_round": float(slope), "grown_kib": float(kept[-1] - kept[0]) / 1024}


def _million(begun: float) -> dict[str, Any]:
    ends: list[float] = []

    def told(event: Any) -> None:
        if event.kind == "round":
            ends.append(time.perf_counter() - begun)

    _run("mlp", 1_000_000, 100, 2, told)
    return {"first_round_s": ends[0], "peak_mib": _peak_mib()}


def _answer(name: str, begun: float) -> dict[str, Any]:
    if name == "rounds":
        return _rounds()
    if name == "million":
        return _million(begun)
    return _cohort(int(name.removeprefix("cohort_")))


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1], float(sys.argv[2]))))
