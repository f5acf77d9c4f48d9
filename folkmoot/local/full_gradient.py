"""The gradient over a client's whole data, at the model with which its local work begins.

That is the model that was broadcast, with the client's own leaves where it has some. The gradient
is summed batch by batch over the first epoch, each batch by its rows, so that no client needs
memory for all of its data at once; plans of fewer steps than an epoch give the gradient over the
batches that they reach. Batch statistics of these passes are thrown away.
"""

from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Objective, Seen
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_work, refuse_private
from folkmoot.local.parts import but

_ALSO = "takes a second gradient of each batch, and weighs it by its rows"


def beside(work: LocalWork) -> LocalWork:
    """Take the full gradient beside a work's own steps; `mean` reads it in an outer `finish`.

    Cost: one more gradient for each step of the first epoch; of every epoch, where clients are
    mapped or steps are compiled.

    Raises:
        SettingsError: If the work's gradients are private.
    """
    refuse_private("full_gradient", work, _ALSO)

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        carry = work.start(sent, own, key)
        return {**carry, "full": begun(carry)}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        _add(carry["full"], outer.objective, batch)
        after = work.step(outer, sent, but(carry, "full"), batch)
        return {**after, "full": carry["full"]}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return work.finish(sent, but(carry, "full"), seen)

    return work.changed(start=start, step=step, finish=finish)


def full_gradient(work: LocalWork) -> LocalWork:
    """Build work that takes no step: its update is the full gradient, weighted by examples.

    Args:
        work: Whose objective, batches, first model and private state are used; its plan's steps
            or epochs are not: all batches of one epoch are.

    Returns:
        Work whose update's value is {"gradient": a tree like the broadcast parameters}.

    Raises:
        SettingsError: If `work` is none, or its gradients are private.
    """
    refuse_no_work("full_gradient", work)
    refuse_private("full_gradient", work, _ALSO)

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {"full": begun(work.start(sent, own, key)), "own": own}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        _add(carry["full"], outer.objective, batch)
        return carry

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return Update({"gradient": mean(sent, carry, seen)}, seen.examples), carry["own"]

    return work.changed(
        name="gradient",
        plan=work.plan._replace(epochs=1, steps=None),
        start=start,
        step=step,
        finish=finish,
        correct=None,
        optimizer=None,
    )


def begun(carry: Tree) -> Tree:
    """Return a sum of nothing, and a copy of the model at which gradients are taken.

    Args:
        carry: As a work's `start` has made it: its model is whole, also where clients keep leaves.
    """
    # A copy, for steps write into the carry's own model.
    model = {part: trees.clone(carry[part]) for part in ("params", "buffers", "counts")}
    return {"sum": trees.zeros_like(carry["params"]), **model}


def mean(sent: Tree, carry: Tree, seen: Seen) -> Tree:
    """Return the full gradient by what was sent, as a mean over examples."""
    shared = {name: carry["full"]["sum"][name] for name in sent["params"]}
    return trees.map(lambda leaf: leaf / seen.examples, shared)


def rows_of(batch: Batch) -> int | Tensor:
    """Return the rows of a batch that are no padding."""
    return len(trees.leaves(batch.data)[0]) if batch.weight is None else (batch.weight > 0).sum()


def _add(full: Tree, objective: Objective, batch: Batch) -> None:
    """Add a batch's gradient at the first model, times its rows, in the first epoch."""
    share = rows_of(batch)
    if isinstance(batch.epoch, Tensor):
        share = share * (batch.epoch == 0)
    elif batch.epoch:
        return
    gradient, _ = objective.grad(full["params"], full["buffers"], full["counts"], batch)
    if isinstance(share, Tensor):
        by_rows = share
        gradient = trees.map(lambda leaf: leaf * by_rows.to(leaf.dtype), gradient)
        share = 1
    trees.axpy_(full["sum"], share, gradient)
