"""FedBN: batch normalisation stays with each client, and all else is averaged.

Li, Jiang, Zhang, Kamp and Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch
Normalization", ICLR 2021, arXiv:2102.07623, algorithm 1. Layers are found by their type, never by
their name; scale and shift, statistics and the counter of batches stay, all of them.

Departures: a client that has never been asked normalises as the first model does; the paper gives
such a client no statistics.

State: FedAvg's of the shared leaves; each client keeps those of its normalisation. Cost: FedAvg's
time; bytes of the shared leaves only, both ways.
"""

from torch import nn

from folkmoot.aggregators import uniform_mean
from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.errors import SettingsError
from folkmoot.local.chosen import Keep, chosen
from folkmoot.local.composed import refuse_own_models
from folkmoot.local.personal import keeping
from folkmoot.optimizers import Optimizer

BATCH_NORM = nn.modules.batchnorm._BatchNorm
"""What all of PyTorch's batch normalisations are: of 1, 2 and 3 dimensions, synchronised, lazy."""


def fedbn(
    work: LocalWork,
    *,
    layers: Keep = BATCH_NORM,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedBN.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        layers: The layers that stay with each client, if not batch normalisation alone: a class
            such as `nn.GroupNorm`, a pattern, a function of a leaf's name, or a list of these.
        server: As in `fedavg`, for the shared leaves.
        aggregator: How shared leaves are combined; None is `uniform_mean()`, the paper's.

    Raises:
        SettingsError: If `work` is none, its clients have models of their own already, or the
            model has no such layer.
    """
    refuse_own_models("fedbn", work)
    try:
        kept = chosen(work.objective, layers)
    except SettingsError as error:
        if layers is not BATCH_NORM:
            raise
        raise SettingsError(
            "fedbn() keeps batch normalisation with each client, but the model has none that "
            "learns or counts. Use fm.fedavg(work), or name what else stays, such as "
            "layers=nn.LayerNorm."
        ) from error
    aggregator = uniform_mean() if aggregator is None else aggregator
    built = fedavg(keeping(work, kept), server=server, aggregator=aggregator)
    return built._replace(name="fedbn")
