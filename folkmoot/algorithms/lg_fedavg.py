"""LG-FedAvg: each client learns a representation of its own, under a head that all share.

Liang et al., "Think Locally, Act Globally: Federated Learning with Local and Global
Representations", 2020, arXiv:2001.01523, algorithm 1. FedPer turned around: what is named is
shared, averaged by examples, and all else stays.

Departures: a new client's representation is the first model's, as everybody's was; the paper's
ensemble of local models for it is left out, and so are its auxiliary losses of the representation.

State: FedAvg's of the shared leaves; each client keeps all others. Cost: FedAvg's time; bytes of
the shared leaves only, both ways.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.errors import SettingsError
from folkmoot.local.chosen import Keep, chosen
from folkmoot.local.composed import refuse_own_models
from folkmoot.local.personal import keeping
from folkmoot.optimizers import Optimizer


def lg_fedavg(
    work: LocalWork,
    *,
    shared: Keep,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build LG-FedAvg.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        shared: The leaves that travel: a pattern such as "head.*", layer types, a function of a
            leaf's name, or a list of these. All others stay with each client, batch statistics
            too.
        server: As in `fedavg`, for the shared leaves.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` is none, its clients have models of their own already, or `shared`
            means no leaf, or all.
    """
    refuse_own_models("lg_fedavg", work)
    leaves = {name for part in work.objective.init().values() for name in part}
    kept = leaves - chosen(work.objective, shared)
    if not kept:
        raise SettingsError(
            "lg_fedavg() leaves nothing with the clients: shared means all leaves of the model. "
            "Name the head alone, or use fm.fedavg(work)."
        )
    built = fedavg(keeping(work, frozenset(kept)), server=server, aggregator=aggregator)
    return built._replace(name="lg_fedavg")
