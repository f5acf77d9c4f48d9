"""One contender, alone in a fresh process: `python -m folkmoot.cli.bench.contender FOLDER`.

The folder holds the request and the examples; the answer and the trained parameters are written
beside them. A contender imports what it needs and nothing of the other.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.cli.bench.workloads import Pool, Workload, read


@dataclass
class Lap:
    """A stop watch that is pressed after each round."""

    begun: float
    """When the process was asked for; a clock that all processes of a machine share."""
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


def by_hand(workload: Workload, pool: Pool, lap: Lap) -> tuple[dict[str, Any], Any]:
    """Run the plain loop."""
    import torch

    from folkmoot.cli.bench import plain
    from folkmoot.cli.bench.models import build, flat

    model = plain.train(workload, pool, build(workload.model), lap.press)
    return {"engine": f"plain PyTorch ({torch.get_num_threads()} threads)"}, flat(model)


def by_folkmoot(
    workload: Workload, pool: Pool, lap: Lap, options: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
    """Run folkmoot, and split its time from its own history."""
    from folkmoot.cli.bench import federated
    from folkmoot.cli.bench.models import build, flat

    result = federated.train(workload, pool, build(workload.model), lap.press, **options)
    shares = [1 - row["client_s"] / row["train_s"] for row in result.history[workload.warm_up :]]
    said = {"engine": result.settings["engine"], "overhead_share": float(np.median(shares))}
    return said, flat(result.model)


def compete(folder: Path) -> None:
    """Read the request, train, and write the answer."""
    request = json.loads((folder / "request.json").read_text())
    workload, pool = Workload(**request["workload"]), read(folder)
    lap = Lap(request["begun"])
    if request["options"] is None:
        said, parameters = by_hand(workload, pool, lap)
    else:
        said, parameters = by_folkmoot(workload, pool, lap, request["options"])
    np.save(folder / "parameters.npy", parameters.numpy())
    (folder / "answer.json").write_text(json.dumps(said | lap.times()))


if __name__ == "__main__":
    compete(Path(sys.argv[1]))
