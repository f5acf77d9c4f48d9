"""The gradient over a client's whole data, at the model that was broadcast.

It is summed batch by batch over the first epoch, each batch by its rows, so that no client needs
memory for all of its data at once; plans of fewer steps than an epoch give the gradient over the
batches that they reach. Batch statistics of these passes are thrown away.
"""

from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Objective, Seen
from folkmoot.core.tree import Tree


def beside(work: LocalWork) -> LocalWork:
    """Take the full gradient beside a work's own steps; `mean` reads it in an outer `finish`.

    Cost: one more gradient for each step of the first epoch.
    """

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {**work.start(sent, own, key), "full": begun(sent)}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        _add(carry["full"], outer.objective, batch)
        after = work.step(outer, sent, _without_sum(carry), batch)
        return {**after, "full": carry["full"]}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return work.finish(sent, _without_sum(carry), seen)

    return work.changed(start=start, step=step, finish=finish)


def full_gradient(work: LocalWork) -> LocalWork:
    """Build work that takes no step: its update is the full gradient, weighted by examples.

    Args:
        work: Whose objective, batches and private state are used.

    Returns:
        Work whose update's value is {"gradient": a tree like the parameters}.
    """

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {"full": begun(sent), "own": own}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        _add(carry["full"], outer.objective, batch)
        return carry

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return Update({"gradient": mean(sent, carry, seen)}, seen.examples), carry["own"]

    return LocalWork(
        "gradient",
        work.objective,
        work.plan._replace(epochs=1, steps=None),
        start,
        step,
        finish,
        own=work.own,
        correct=None,
        personal=work.personal,
        plain=work.plain or work,
    )


def begun(sent: Tree) -> Tree:
    """Return a sum of nothing, and the model at which gradients are taken, for a carry."""
    model = {part: sent[part] for part in ("params", "buffers", "counts")}
    return {"sum": trees.zeros_like(sent["params"]), **model}


def mean(sent: Tree, carry: Tree, seen: Seen) -> Tree:
    """Return the full gradient of what was sent, as a mean over examples."""
    shared = {name: carry["full"]["sum"][name] for name in sent["params"]}
    return trees.map(lambda leaf: leaf / seen.examples, shared)


def rows_of(batch: Batch) -> int | Tensor:
    """Return the rows of a batch that are no padding."""
    return len(trees.leaves(batch.data)[0]) if batch.weight is None else (batch.weight > 0).sum()


def _add(full: Tree, objective: Objective, batch: Batch) -> None:
    """Add a batch's gradient at what was sent, times its rows, in the first epoch."""
    share = rows_of(batch)
    if isinstance(batch.epoch, Tensor):
        share = share * (batch.epoch == 0)
    elif batch.epoch:
        return
    gradient, _ = objective.grad(full["params"], full["buffers"], full["counts"], batch)
    for kept, leaf in zip(
        trees.leaves(full["sum"]), trees.aligned(full["sum"], gradient), strict=True
    ):
        kept.add_((leaf * share).to(kept.dtype))


def _without_sum(carry: Tree) -> Tree:
    return {key: part for key, part in carry.items() if key != "full"}
