"""The same rounds by folkmoot, as a user writes them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.cli.bench.workloads import Pool, Workload
from folkmoot.data import from_arrays
from folkmoot.local import classifier, sgd
from folkmoot.train.events import Event
from folkmoot.train.result import Result
from folkmoot.train.run import run


def train(
    workload: Workload,
    pool: Pool,
    model: nn.Module,
    after_round: Callable[[], None],
    **options: Any,
) -> Result:
    """Run the workload; `options` are `run`'s, such as `exact=False`."""
    cohorts = workload.cohorts()
    clients = from_arrays((torch.from_numpy(pool.x), torch.from_numpy(pool.y)), pool.owner)
    work = sgd(classifier(model), lr=workload.lr, batch_size=workload.batch_size, shuffle=False)

    def told(event: Event) -> None:
        if event.kind == "round":
            after_round()

    return run(
        fedavg(work),
        clients,
        rounds=workload.all_rounds,
        sampling=lambda clients, round, rng: cohorts[round - 1],
        progress=False,
        callbacks=[told],
        **options,
    )
