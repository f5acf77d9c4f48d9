"""FedAdagrad, FedAdam and FedYogi: FedAvg with an adaptive optimizer on the server.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, arXiv:2003.00295, algorithm 2: v starts
at tau^2 and there is no bias correction, which FedAdam and FedYogi have as an option.

Departures: deltas are weighted by examples, as in FedAvg; the paper's algorithm counts clients
alike, which is `aggregator=uniform_mean()`.

State: FedAvg's, and two moments of the mean delta. Cost: FedAvg's bytes and time.
"""

from folkmoot import optimizers
from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.local.composed import refuse_no_work
from folkmoot.optimizers import Rate


def fedadagrad(
    work: LocalWork,
    *,
    lr: Rate,
    tau: float = 1e-3,
    beta_1: float = 0.0,
    v_0: float | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedAdagrad: `fedavg` with `server=optimizers.adagrad(...)`.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        lr, tau, beta_1, v_0: As in `optimizers.adagrad`, for the server.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` or `aggregator` is none, or a number is out of range.
    """
    refuse_no_work("fedadagrad", work)
    server = optimizers.adagrad(lr, tau=tau, beta_1=beta_1, v_0=v_0)
    return fedavg(work, server=server, aggregator=aggregator)._replace(name="fedadagrad")


def fedadam(
    work: LocalWork,
    *,
    lr: Rate,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    v_0: float | None = None,
    bias_correction: bool = False,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedAdam: `fedavg` with `server=optimizers.adam(...)`.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        lr, beta_1, beta_2, tau, v_0, bias_correction: As in `optimizers.adam`, for the server.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` or `aggregator` is none, or a number is out of range.
    """
    refuse_no_work("fedadam", work)
    server = optimizers.adam(
        lr, beta_1=beta_1, beta_2=beta_2, tau=tau, v_0=v_0, bias_correction=bias_correction
    )
    return fedavg(work, server=server, aggregator=aggregator)._replace(name="fedadam")


def fedyogi(
    work: LocalWork,
    *,
    lr: Rate,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    v_0: float | None = None,
    bias_correction: bool = False,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build FedYogi: `fedavg` with `server=optimizers.yogi(...)`.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        lr, beta_1, beta_2, tau, v_0, bias_correction: As in `optimizers.yogi`, for the server.
        aggregator: As in `fedavg`.

    Raises:
        SettingsError: If `work` or `aggregator` is none, or a number is out of range.
    """
    refuse_no_work("fedyogi", work)
    server = optimizers.yogi(
        lr, beta_1=beta_1, beta_2=beta_2, tau=tau, v_0=v_0, bias_correction=bias_correction
    )
    return fedavg(work, server=server, aggregator=aggregator)._replace(name="fedyogi")
