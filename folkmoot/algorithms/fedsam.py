"""FedSAM: clients step along the gradient at the worst model nearby, towards flat minima.

Qu et al., "Generalized Federated Learning via Sharpness Aware Minimization", ICML 2022,
arXiv:2206.02618, algorithm 1 (FedSAM; not MoFedSAM).

Departures: deltas are weighted by examples, as in FedAvg; `aggregator=uniform_mean()` is the
paper's rule. Batch statistics are those of the pass before the move; a gradient of 0 moves nothing.

State: FedAvg's. Cost: FedAvg's bytes; a local step takes two gradients and makes two more passes
over the parameters.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.local.composed import refuse_no_work
from folkmoot.local.sharpness import sharpness_aware
from folkmoot.optimizers import Optimizer


def fedsam(
    work: LocalWork,
    *,
    rho: float = 0.05,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedSAM: FedAvg whose local gradients are sharpness-aware.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        rho: L2 length of the move to the worst model nearby, in units of the parameters, at least
            0; 0 is FedAvg bit for bit.
        server: As in `fedavg`.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` is none, `rho` is negative, or the work writes its own step.
    """
    refuse_no_work("fedsam", work)
    built = fedavg(sharpness_aware(work, rho), server=server, aggregator=aggregator)
    return built._replace(name="fedsam")
