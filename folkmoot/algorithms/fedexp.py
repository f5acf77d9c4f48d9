"""FedExp: the more clients disagree, the further the server steps along their mean.

Jhunjhunwala, Wang and Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR
2023, arXiv:2301.09604, algorithm 1.

Departures: the model of a round is its last iterate; the paper reports the average of the last two.
With a weighted mean the squares are weighted like the deltas. BatchNorm statistics are averaged,
never extrapolated.

State: FedAvg's. Cost: FedAvg's, and one number up. A codec that clips or compresses acts on that
number beside the delta, so the step is then another one.
"""

import torch

from folkmoot.aggregators import uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task
from folkmoot.core.errors import positive
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_mean, refuse_no_work


def fedexp(
    work: LocalWork, *, eps: float = 1e-3, aggregator: Aggregator | None = None
) -> Algorithm:
    """Build FedExp: FedAvg whose server chooses its own learning rate, of at least 1.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        eps: Added to the mean delta's squared norm, in its units, above 0: the larger, the shorter
            are steps along small deltas, and the steadier the last iterate (try 0.1). Without any
            delta the learning rate is 1.
        aggregator: How deltas and their squared norms are combined; None is `uniform_mean()`, the
            paper's.

    Returns:
        An algorithm of one exchange a round.

    Raises:
        SettingsError: If `work` or `aggregator` is none, or `eps` is not above 0.
    """
    measured = _measured(work)
    aggregator = uniform_mean() if aggregator is None else aggregator
    refuse_no_mean("fedexp", aggregator)
    positive(eps=eps)

    def init() -> Tree:
        return {**work.init(), "round": torch.ones((), dtype=torch.int64)}

    def round(state: Tree) -> Round:
        mean = yield Task(state, measured, aggregator)
        delta = mean.value["params"]
        # The paper's max(1, sum of squares / (2 M (||mean||^2 + eps))), by the mean of the squares.
        ratio = mean.value["square"] / (2 * (trees.norm(delta).square() + eps))
        return {
            "params": trees.axpy(max(1.0, ratio.item()), delta, state["params"]),
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "round": state["round"] + 1,
        }

    return Algorithm("fedexp", init, round, (measured,))


def _measured(work: LocalWork) -> LocalWork:
    """Put the squared norm of a client's delta beside it."""
    refuse_no_work("fedexp", work)

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        square = trees.norm(update.value["params"]).square()
        return update._replace(value={**update.value, "square": square}), own

    return work.changed(finish=finish)
