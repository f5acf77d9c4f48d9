"""FedRep: clients learn a head of their own first, and then a shared representation for it.

Collins, Hassani, Mokhtari and Shakkottai, "Exploiting Shared Representations for Personalized
Federated Learning", ICML 2021, arXiv:2102.07078, algorithm 1.

Departures: a representation begins as the module has it, not by the method of moments that the
paper's linear case begins with. Momentum begins anew in each turn. BatchNorm statistics of the
representation follow the passes of both turns.

State: FedAvg's of the shared leaves; each client keeps its head. Cost: bytes of the shared leaves
only, both ways; `head` more epochs than FedAvg, whose gradients are those of the whole model.
"""

from folkmoot.aggregators import uniform_mean
from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.errors import SettingsError
from folkmoot.local.alternating import alternating
from folkmoot.local.chosen import Keep, chosen
from folkmoot.local.composed import refuse_own_models
from folkmoot.local.personal import keeping
from folkmoot.optimizers import Optimizer


def fedrep(
    work: LocalWork,
    *,
    personal: Keep,
    head: int = 10,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedRep.

    Args:
        work: What a client does for the representation, such as `local.sgd(...)`: its plan is one
            or five epochs in the paper.
        personal: The head's leaves, which stay with each client: a pattern such as "head.*", layer
            types, a function of a leaf's name, or a list of these.
        head: Epochs that train the head alone, before those of the work; steps, where the work's
            plan is of steps. At least 1; the paper's 10.
        server: As in `fedavg`, for the shared leaves.
        aggregator: How representations are combined; None is `uniform_mean()`, the paper's.

    Raises:
        SettingsError: If `head` is no whole number of at least 1, the work writes its own step or
            its clients have models of their own already, or `personal` means no leaf.
    """
    refuse_own_models("fedrep", work)
    if not isinstance(head, int) or isinstance(head, bool) or head < 1:
        raise SettingsError(
            f"head must be a whole number of epochs or steps, at least 1, but is {head!r}. "
            "fm.fedper(...) trains head and representation together."
        )
    kept = chosen(work.objective, personal)
    turns = keeping(alternating("fedrep", work, kept, head), kept)
    aggregator = uniform_mean() if aggregator is None else aggregator
    return fedavg(turns, server=server, aggregator=aggregator)._replace(name="fedrep")
