"""FedAvg: average what clients learn; with a server optimizer, the FedOpt family.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, arXiv:1602.05629, algorithm 1. Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
arXiv:2003.00295, algorithm 1: FedAvgM, FedAdagrad, FedAdam and FedYogi are this with another
`server`.

State: parameters, buffers, counts, the optimizer's state and the number of the next round. Cost:
one exchange a round; the model travels down, its delta travels up. It is the unit in which other
files state theirs. BatchNorm statistics are averaged, never stepped by the optimizer.
"""

import torch

from folkmoot.aggregators.mean import unnamed_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Task
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_aggregator, refuse_no_optimizer, refuse_no_work
from folkmoot.optimizers import Optimizer, sgd, stepped


def fedavg(
    work: LocalWork, *, server: Optimizer | None = None, aggregator: Aggregator | None = None
) -> Algorithm:
    """Build FedAvg.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        server: Optimizer that steps along the mean delta; None is `optimizers.sgd(1.0)`, plain
            averaging. `adam(0.01)` makes it FedAdam.
        aggregator: How deltas are combined; None is `weighted_mean()`, by examples.

    Returns:
        An algorithm of one exchange a round.

    Raises:
        SettingsError: If `work`, `server` or `aggregator` is something else, such as a module or a
            name.
    """
    refuse_no_work("fedavg", work)
    server = sgd(1.0) if server is None else server
    aggregator = unnamed_mean() if aggregator is None else aggregator
    refuse_no_optimizer(server)
    refuse_no_aggregator(aggregator)

    def init() -> Tree:
        model = work.init()
        optimizer = server.init(model["params"])
        return {**model, "optimizer": optimizer, "round": torch.ones((), dtype=torch.int64)}

    def round(state: Tree) -> Round:
        sent = {key: state[key] for key in ("params", "buffers", "counts", "round")}
        delta = yield Task(sent, work, aggregator)
        params, optimizer = stepped(server, state, delta.value["params"])
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], delta.value["buffers"]),
            "counts": delta.counts,
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm("fedavg", init, round, (work,))
