"""The yardstick: federated averaging by hand in PyTorch, as one writes it without a framework.

One client after another, a state dict loaded for each, `torch.optim.SGD`, and torch's own number of
threads.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from folkmoot.cli.bench.workloads import Pool, Workload


def train(
    workload: Workload, pool: Pool, model: nn.Module, after_round: Callable[[], None]
) -> nn.Module:
    """Train in place and return the model; `after_round` is called at the end of each round."""
    x, y = torch.from_numpy(pool.x), torch.from_numpy(pool.y)
    server = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    for cohort in workload.cohorts():
        total = {name: torch.zeros_like(leaf) for name, leaf in server.items()}
        examples = 0
        for client in cohort:
            rows = pool.rows_of(client)
            model.load_state_dict(server)
            _local_epoch(model, x[rows], y[rows], workload.batch_size, workload.lr)
            size = rows.stop - rows.start
            for name, leaf in model.state_dict().items():
                total[name].add_(leaf, alpha=size)
            examples += size
        server = {name: leaf / examples for name, leaf in total.items()}
        after_round()
    model.load_state_dict(server)
    return model


def _local_epoch(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int, lr: float
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for inputs, targets in zip(x.split(batch_size), y.split(batch_size), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
