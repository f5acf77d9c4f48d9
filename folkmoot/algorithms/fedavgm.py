"""FedAvgM: FedAvg whose server keeps a share of its last step.

Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, arXiv:1909.06335.

State: FedAvg's, and the server's velocity. Cost: FedAvg's bytes and time.
"""

from folkmoot import optimizers
from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.local.composed import refuse_no_work
from folkmoot.optimizers import Rate


def fedavgm(
    work: LocalWork,
    *,
    momentum: float = 0.9,
    lr: Rate = 1.0,
    nesterov: bool = False,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedAvgM: `fedavg` with `server=optimizers.sgd(lr, momentum=momentum)`.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        momentum, lr, nesterov: As in `optimizers.sgd`, for the server.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` or `aggregator` is none, or a number is out of range.
    """
    refuse_no_work("fedavgm", work)
    server = optimizers.sgd(lr, momentum=momentum, nesterov=nesterov)
    return fedavg(work, server=server, aggregator=aggregator)._replace(name="fedavgm")
