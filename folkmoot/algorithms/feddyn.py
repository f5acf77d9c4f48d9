"""FedDyn: a linear and a quadratic term make every client's optimum the global one.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, arXiv:2111.04263,
algorithm 1.

Departures: a fixed number of local steps replaces the exact minimum of a client's problem; its
memory moves by -alpha * delta as in the paper, and is the gradient at the client's model only as
far as its steps reach that minimum. Where the clients that answer are weighted, so is the server's
memory. BatchNorm statistics are averaged and have no memory.

State: beside the model, the server's memory h; each client keeps its memory of its gradient. Cost:
FedAvg's bytes both ways; a local step makes two more passes over the parameters.
"""

import torch

from folkmoot.aggregators import uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task, unchanged
from folkmoot.core.errors import positive
from folkmoot.core.tree import Tree
from folkmoot.local.composed import own_of, refuse_no_mean, seam
from folkmoot.local.grad import plus
from folkmoot.local.parts import but
from folkmoot.local.proximal import proximal


def feddyn(work: LocalWork, *, alpha: float, aggregator: Aggregator | None = None) -> Algorithm:
    """Build FedDyn.

    Args:
        work: What a client does, such as `local.sgd(...)`: enough steps to come near the minimum of
            its loss with the two terms.
        alpha: Strength of the quadratic term, above 0; the paper has 0.1, 0.01 and 0.001.
        aggregator: How deltas are combined; None is `uniform_mean()`, the paper's.

    Returns:
        An algorithm of one exchange a round, whose clients keep a state.

    Raises:
        SettingsError: If `alpha` is not above 0, the work writes its own step, or a part is none.
    """
    regularized = _regularized(work, alpha)
    aggregator = uniform_mean() if aggregator is None else aggregator
    refuse_no_mean("feddyn", aggregator)

    def init() -> Tree:
        model = work.init()
        memory = trees.zeros_like(model["params"])
        return {**model, "memory": memory, "round": torch.ones((), dtype=torch.int64)}

    def round(state: Tree) -> Round:
        sent = but(state, "memory")
        mean = yield Task(sent, regularized, aggregator)
        delta = mean.value["params"]
        # h is a mean over all clients, of whom only these have moved.
        share = mean.count / mean.population
        memory = trees.axpy(-alpha * share, delta, state["memory"])
        return {
            "params": trees.axpy(-1 / alpha, memory, trees.add(state["params"], delta)),
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "memory": memory,
            "round": state["round"] + 1,
        }

    return Algorithm("feddyn", init, round, (regularized,))


def _regularized(work: LocalWork, alpha: float) -> LocalWork:
    """Add alpha * (x - sent) minus the client's memory to every gradient; renew the memory."""
    before = seam("feddyn", work)
    positive(alpha=alpha)

    def own(sent: Tree) -> Tree:
        return {**own_of(work, sent), "memory": trees.zeros_like(sent["params"])}

    def correct(gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
        if before is unchanged:
            return plus(gradient, own["memory"], -1.0)
        return trees.sub(before(gradient, params, sent, own), own["memory"])

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        memory = trees.axpy(-alpha, update.value["params"], own["memory"])
        return update, {**own, "memory": memory}

    return proximal(work.changed(own=own, correct=correct, finish=finish), alpha)
