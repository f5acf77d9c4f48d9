"""FedAsync: each client's step is taken as it comes, the shorter the staler.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", 2019, arXiv:1903.03934, algorithm 1. Made
for `fm.run(..., buffer=1)`, whose `staleness=` is the paper's s. Without `buffer=` nothing is
stale, and this is FedAvg with a server's rate of `mixing`.

Departures: the paper mixes models, x <- (1 - a) x + a x_new with a = mixing * s(staleness), so a
late client pulls the server back to where it began. Here its delta is relative to the model that it
was given: x <- x + a delta. For a fresh answer the two are the same. The paper also pulls local
models to the one that was sent, by rho: pass `fm.local.proximal(work, rho)` for that.

State, exchange and cost are FedAvg's.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.errors import SettingsError, positive
from folkmoot.local.composed import refuse_no_work
from folkmoot.optimizers import sgd


def fedasync(
    work: LocalWork, *, mixing: float = 0.6, aggregator: Aggregator | None = None
) -> Algorithm:
    """Build FedAsync.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        mixing: Share of a fresh client's step that the server takes, in (0, 1].
        aggregator: How steps are combined where more than one comes at once; None is
            `weighted_mean()`, by examples.

    Returns:
        An algorithm of one exchange a round.

    Raises:
        SettingsError: If `work` is none, or `mixing` is out of range.
    """
    refuse_no_work("fedasync", work)
    positive(mixing=mixing)
    if mixing > 1:
        raise SettingsError(f"mixing must be a share in (0, 1], but is {mixing!r}.")
    built = fedavg(work, server=sgd(mixing), aggregator=aggregator)
    return built._replace(name="fedasync")
