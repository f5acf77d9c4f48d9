"""FedPer: the body of the model is shared, and each client keeps a head of its own.

Arivazhagan, Aggarwal, Singh and Choudhary, "Federated Learning with Personalization Layers", 2019,
arXiv:1912.00818, algorithms 1 and 2. Both parts are trained together, in every local step; the
body is averaged by examples. This is `fm.run(fm.fedavg(work), ..., personal=...)` under its name.

Departures: none. State: FedAvg's of the shared leaves; each client keeps its personal ones. Cost:
FedAvg's time; bytes of the shared leaves only, both ways.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.local.chosen import Keep, chosen
from folkmoot.local.composed import refuse_own_models
from folkmoot.local.personal import keeping
from folkmoot.optimizers import Optimizer


def fedper(
    work: LocalWork,
    *,
    personal: Keep,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedPer.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        personal: Leaves that stay with each client: a pattern such as "head.*", layer types, a
            function of a leaf's name, or a list of these.
        server: As in `fedavg`, for the shared leaves.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` is none, its clients have models of their own already, or
            `personal` means no leaf.
    """
    refuse_own_models("fedper", work)
    kept = chosen(work.objective, personal)
    built = fedavg(keeping(work, kept), server=server, aggregator=aggregator)
    return built._replace(name="fedper")
