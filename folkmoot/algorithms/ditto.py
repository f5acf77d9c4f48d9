"""Ditto: each client trains a model of its own, pulled towards the global one.

Li, Hu, Beirami and Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML
2021, arXiv:2012.04221, algorithm 1. Beside FedAvg's local steps for w, with the same batches,

    v_i -= lr * (grad F_i(v_i) + lambda * (v_i - w_sent))

so that lambda = 0 is local training and a large one gives the global model.

Departures: v_i takes as many steps as w does, with the same optimizer and batches. It begins as the
model that is broadcast when the client is first asked, not as that of round 1. BatchNorm statistics
of v_i are its own.

State: FedAvg's; each client keeps v_i. Cost: FedAvg's bytes; two local steps for each one, of which
one makes two more passes over the parameters: 2.1 to 2.3 times FedAvg's time on a small model.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork
from folkmoot.core.errors import not_negative
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_work
from folkmoot.local.proximal import drawn
from folkmoot.local.twin import twin
from folkmoot.optimizers import Optimizer


def ditto(
    work: LocalWork,
    *,
    lam: float,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build Ditto: FedAvg, and a model of its own for each client.

    Clients' tests judge their own models, and `result.clients[id].model` is one.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        lam: Strength of the pull of a client's model towards the broadcast one, at least 0; 0
            trains it alone. Local steps need lr * lam below 2.
        server: As in `fedavg`.
        aggregator: As in `fedavg`.

    Returns:
        An algorithm of one exchange a round, whose clients keep a model.

    Raises:
        SettingsError: If `work` is none, writes its own step or has clients with models of their
            own, `lam` is negative, or a part is none.
    """
    refuse_no_work("ditto", work)
    not_negative(lam=lam)

    def advance(outer: LocalWork, sent: Tree, carry: Tree, mine: Tree, batch: Batch) -> Tree:
        return work.step(drawn(outer, lam), sent, mine, batch)

    built = fedavg(twin("ditto", work, advance), server=server, aggregator=aggregator)
    return built._replace(name="ditto")
