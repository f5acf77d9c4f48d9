"""`folkmoot bench --fleet`: two virtual weeks, of 10,000 devices on the clock alone, and of a
million in a whole run.

Each part is a fresh process, `python -m folkmoot.cli.bench.fleet PART SHARE`, whose answer is one
line of JSON. The devices are those of `fm.fleets.phones()`.
"""

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from folkmoot.cli.bench.machine import moment, others

WEEKS_S = 14 * 86_400.0
CLOCKED, TRAINED = 10_000, 1_000_000
"""Devices, on the clock alone and in a whole run."""
BARS = {"seconds": 600.0, "peak_gib": 4.0}
"""Of the whole run; its memory is that of all its processes."""
_QUICK = 0.01
_PACE_S, _DEADLINE_S, _GIVEN_UP_S = 600.0, 600.0, 3_600.0
_AT_WORK, _BUFFER, _COHORT = 50, 10, 500
_ROWS = 20
_EVALUATIONS = 14


def fleet(quick: bool = False, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Play and run two virtual weeks, and return what that took, as plain JSON.

    Args:
        quick: A hundredth of the time, and of the devices that train, to see that it works.
        tell: Is given a line when a part is done.
    """
    found = {}
    for part in ("rounds", "buffers", "run"):
        found[part] = _measured(part, _QUICK if quick else 1.0)
        tell(
            f"{part}: {found[part]['devices']:,} devices, {found[part]['virtual_days']:.2f} days "
            f"in {found[part]['seconds']:.1f} s"
        )
    figures = found["run"]
    found["run"] |= {"bars": BARS, "holds": {key: figures[key] <= BARS[key] for key in BARS}}
    return found


def _measured(part: str, share: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "folkmoot.cli.bench.fleet", part, str(share)]
    before = moment()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer | {"others_cores": others(before, moment())}


def clocked(part: str, share: float) -> dict[str, Any]:
    """Play the clock of rounds, or of buffers, that train the CNN of `femnist-cnn`."""
    from folkmoot.engines import fleets
    from folkmoot.train.policy import policy_of
    from folkmoot.train.timed import timed

    phones = fleets.phones()
    if part == "rounds":
        policy = policy_of(phones, _DEADLINE_S, 1.3, None, _PACE_S, False, None, None)
    else:
        policy = policy_of(phones, _GIVEN_UP_S, None, None, None, False, _BUFFER, None)
    algorithm, clients = _cnn(CLOCKED)
    cohort = 100 if part == "rounds" else _AT_WORK
    begun = time.perf_counter()
    plan = timed(
        phones,
        policy,
        algorithm,
        clients,
        1,
        cohort,
        None,
        privacy=None,
        secure=False,
        compress=None,
        down=None,
        seed=0,
    )
    assert plan.clock is not None
    clock = plan.clock(0)
    asked = answered = rounds = 0
    while clock.now_s < share * WEEKS_S:
        turn = clock.turn()
        rounds += 1
        asked += len(turn.asked)
        answered += len(turn.answers)
    return _figures(len(clients), rounds, asked, answered, clock.now_s, begun)


def trained(share: float) -> dict[str, Any]:
    """Run rounds of a linear model over two weeks, and return what that took."""
    import torch

    from folkmoot.algorithms.fedavg import fedavg
    from folkmoot.cli.bench.models import build
    from folkmoot.data import from_function
    from folkmoot.engines import fleets
    from folkmoot.local import classifier, sgd
    from folkmoot.train.run import run

    def load(client: int) -> dict[str, torch.Tensor]:
        x = np.random.default_rng(client).standard_normal((_ROWS, 10), dtype=np.float32)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy((x[:, 0] > 0).astype(np.int64))}

    begun = time.perf_counter()
    rounds = math.ceil(share * WEEKS_S / _PACE_S) + 1
    result = run(
        fedavg(sgd(classifier(build("linear")), lr=0.05, batch_size=_ROWS)),
        from_function(range(round(share * TRAINED)), load),
        rounds=rounds,
        cohort=round(_COHORT if share == 1 else 10),
        fleet=fleets.phones(),
        deadline_s=_DEADLINE_S,
        pace_s=_PACE_S,
        test=load(2 * TRAINED),
        evaluate_every=max(1, rounds // _EVALUATIONS),
        client_tests=False,
        progress=False,
    )
    asked, answered = (sum(row[key] for row in result.history) for key in ("asked", "answered"))
    figures = _figures(
        round(share * TRAINED), rounds, asked, answered, result.history[-1]["virtual_s"], begun
    )
    own, largest = (_peak_gib(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Of what workers share with each other each is counted for its own.
    streams = 0 if result.settings["engine"] == "sequential" else _cores()
    return figures | {
        "engine": result.settings["engine"],
        "peak_gib": own + streams * largest,
        "server_gib": own,
        "worker_gib": largest,
        "accuracy": result.history[-1]["test_accuracy"],
    }


def _cnn(devices: int) -> tuple[Any, Any]:
    """Return FedAvg of the CNN, and clients with the sizes of its workload."""
    import torch

    from folkmoot.algorithms.fedavg import fedavg
    from folkmoot.cli.bench.models import build
    from folkmoot.cli.bench.workloads import EXAMPLES, WORKLOADS
    from folkmoot.data import ClientData
    from folkmoot.local import classifier, sgd

    work = WORKLOADS["femnist-cnn"]
    sizes = np.resize(work.sizes(), devices)

    def load(client: Any) -> dict[str, torch.Tensor]:
        x, y = EXAMPLES["cnn"](int(sizes[client]), np.random.default_rng(client))
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}

    local = sgd(classifier(build("cnn")), lr=work.lr, batch_size=work.batch_size)
    return fedavg(local), ClientData(range(devices), load, sizes=sizes)


def _figures(
    devices: int, rounds: int, asked: int, answered: int, virtual_s: float, begun: float
) -> dict[str, Any]:
    seconds = time.perf_counter() - begun
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "devices": devices,
        "virtual_days": virtual_s / 86_400,
        "rounds": rounds,
        "attempts": asked,
        "answers": answered,
        "seconds": seconds,
        "cpu_s": sum(use.ru_utime + use.ru_stime for use in uses),
        "us_an_attempt": seconds / asked * 1e6,
    }


def _peak_gib(who: int) -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 2**30


def _cores() -> int:
    from folkmoot.cli.bench.machine import machine

    return machine()["cores"] or 1


if __name__ == "__main__":
    part, share = sys.argv[1], float(sys.argv[2])
    print(json.dumps(trained(share) if part == "run" else clocked(part, share)))
