"""FedProx: a proximal term keeps local models near the broadcast one.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv:1812.06127,
algorithm 2.

Departures: a fixed number of local steps replaces the paper's inexactness (stopping by gamma). The
paper draws clients by their examples and counts them alike; here cohorts are drawn alike and deltas
weighted by examples, as in FedAvg, unless `sampling=` and `aggregator=uniform_mean()` say so.

State, exchange and bytes are FedAvg's; a local step costs one more pass over the parameters.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.local.composed import refuse_no_work
from folkmoot.local.proximal import proximal
from folkmoot.optimizers import Optimizer


def fedprox(
    work: LocalWork,
    *,
    mu: float,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedProx: FedAvg whose clients are pulled towards the broadcast model.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        mu: Strength of the pull, at least 0; 0 is FedAvg bit for bit.
        server: As in `fedavg`.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` is none, `mu` is negative, or the work writes its own step.
    """
    refuse_no_work("fedprox", work)
    built = fedavg(proximal(work, mu), server=server, aggregator=aggregator)
    return built._replace(name="fedprox")
