"""One contender, alone in a fresh process: `python -m folkmoot.cli.bench.contender FOLDER`.

The folder holds the request and the examples; the answer and the trained parameters are written
beside them. A contender imports what it needs and nothing of the other. After the timed rounds it
trains a cut of the workload in float64, by which the race knows that all do the same work.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.cli.bench.workloads import Pool, Workload, generate, read


@dataclass
class Lap:
    """A stop watch that is pressed after each round."""

    begun: float
    """When the process was asked for, on a clock that all processes of a machine share."""
    ready: float = field(default_factory=time.perf_counter)
    """When training begins."""
    ends: list[float] = field(default_factory=list)

    def press(self) -> None:
        """Note the end of a round."""
        self.ends.append(time.perf_counter())

    def times(self) -> dict[str, Any]:
        """Return seconds from the start to the end of the first round, and of each round."""
        begins = [self.ready, *self.ends]
        rounds = [end - begin for begin, end in zip(begins, self.ends, strict=False)]
        return {"first_round_s": self.ends[0] - self.begun, "rounds_s": rounds}


Trained = tuple[dict[str, Any], Any]
"""What a contender says of itself, and its final module."""


def by_hand(workload: Workload, pool: Pool, model: Any, press: Callable[[], None]) -> Trained:
    """Run the plain loop."""
    import torch

    from folkmoot.cli.bench import plain

    said = {"engine": "plain PyTorch", "threads": torch.get_num_threads()}
    return said, plain.train(workload, pool, model, press)


def by_folkmoot(
    workload: Workload, pool: Pool, model: Any, press: Callable[[], None], **options: Any
) -> Trained:
    """Run folkmoot, and split its time from its own history."""
    from folkmoot import engines
    from folkmoot.cli.bench import federated

    if "engine" in options:
        options = {**options, "engine": getattr(engines, options["engine"])()}
    result = federated.train(workload, pool, model, press, **options)
    shares = [1 - row["client_s"] / row["train_s"] for row in result.history[workload.warm_up :]]
    said = {"engine": result.settings["engine"], "overhead_share": float(np.median(shares))}
    return said, result.model


def compete(folder: Path) -> None:
    """Read the request, train, and write the answer."""
    request = json.loads((folder / "request.json").read_text())
    workload, options = Workload(**request["workload"]), request["options"]
    lap = Lap(request["begun"])
    from folkmoot.cli.bench.models import build, flat

    def train(workload: Workload, pool: Pool, model: Any, press: Callable[[], None]) -> Trained:
        if options is None:
            return by_hand(workload, pool, model, press)
        return by_folkmoot(workload, pool, model, press, **options)

    said, model = train(workload, read(folder), build(workload.model), lap.press)
    np.save(folder / "parameters.npy", flat(model).numpy())
    (folder / "answer.json").write_text(json.dumps(said | lap.times()))
    if request["check"]:
        import torch

        # Data in float64 are taken to be float32's where that is torch's default.
        torch.set_default_dtype(torch.float64)
        cut = workload.cut()
        pool = generate(cut).in_float64()
        _, model = train(cut, pool, build(workload.model).double(), lambda: None)
        np.save(folder / "check.npy", flat(model).numpy())


if __name__ == "__main__":
    compete(Path(sys.argv[1]))
