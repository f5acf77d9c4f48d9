"""FedNova: normalise what clients have moved by how far they could have moved.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
NeurIPS 2020, arXiv:2007.07481, normalised averaging (section 5). A client that does more local
steps no longer pulls the model towards its own optimum.

Departures: the effective number of steps, which the paper leaves free, is the mean of ||a_i||_1
under the same weights, so that FedNova is FedAvg where clients do equal work, with momentum too.
Deltas are not divided by ||a_i||_1 but by its ratio to the mean of the round before, and the ratio
less 1 travels beside them: that cancels out, and codecs see moves as long as FedAvg's and a number
near 0. Terms in the local gradient, such as a proximal one or weight decay, do not enter
||a_i||_1. BatchNorm statistics are averaged.

State: FedAvg's, and the mean of ||a_i||_1. Cost: FedAvg's, and one number both ways.
"""

import torch

from folkmoot.aggregators.mean import unnamed_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.composed import optimizer_of, refuse_no_mean, refuse_no_optimizer
from folkmoot.local.parts import but
from folkmoot.optimizers import Optimizer, sgd, stepped


def fednova(
    work: LocalWork, *, server: Optimizer | None = None, aggregator: Aggregator | None = None
) -> Algorithm:
    """Build FedNova.

    Args:
        work: What a client does: local steps of SGD, plain or with momentum.
        server: Optimizer that steps along the normalised delta; None is `optimizers.sgd(1.0)`.
        aggregator: How normalised deltas are combined; None is `weighted_mean()`, by examples.

    Returns:
        An algorithm of one exchange a round.

    Raises:
        SettingsError: If the work writes its own step or has steps that are not proportional to
            gradients, such as Adam's, or if a part is none.
    """
    normalised = _normalised(work)
    server = sgd(1.0) if server is None else server
    aggregator = unnamed_mean() if aggregator is None else aggregator
    refuse_no_optimizer(server)
    refuse_no_mean("fednova", aggregator)

    def init() -> Tree:
        model = work.init()
        return {
            **model,
            "steps": torch.tensor(float(work.plan.steps or 1), dtype=torch.float64),
            "optimizer": server.init(model["params"]),
            "round": torch.ones((), dtype=torch.int64),
        }

    def round(state: Tree) -> Round:
        sent = but(state, "optimizer")
        mean = yield Task(sent, normalised, aggregator)
        # A codec's noise could bring it below 0.
        ratio = (1 + mean.value["steps"]).clamp(min=0)
        delta = trees.scale(ratio, mean.value["params"])
        params, optimizer = stepped(server, state, delta)
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "steps": state["steps"] * torch.where(ratio > 0, ratio, 1.0),
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm("fednova", init, round, (normalised,))


def _normalised(work: LocalWork) -> LocalWork:
    """Divide a client's delta by its work, as a ratio to the work expected."""
    reach = optimizer_of("fednova", work).reach
    if reach is None:
        raise SettingsError(
            f"fednova() divides by how far unit gradients would have moved, but steps of "
            f"{work.optimizer.name} are not proportional to gradients. Use fm.local.sgd(...)."
        )

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        distance, unit = (
            torch.as_tensor(reach(steps, int(sent["round"])), dtype=torch.float64)
            for steps in (seen.steps, 1)
        )
        # ||a_i||_1 is distance / unit; at a rate of 0 nobody moves, whatever is expected.
        ratio = torch.where(unit > 0, distance / (unit * sent["steps"]), 1.0)
        # Without a step there is no delta to divide.
        share = torch.where(distance > 0, 1 / ratio, 0.0)
        params = trees.scale(share, update.value["params"])
        return update._replace(value={**update.value, "params": params, "steps": ratio - 1}), own

    return work.changed(finish=finish)
