"""Anything that learns, as local work: three functions read its arrays, write them and train it.

A learner is copied for each client, so nothing that a fit leaves in it but its arrays goes to the
server or on to the next client, and any number of workers gives the same bits. What a fit draws
from the global generators of Python, numpy and torch follows from the step's key; they are put back
afterwards. A generator that the learner itself holds is copied with it: all fits draw the same
numbers from it. Threads that a library starts by itself are its own matter: with more than one, few
promise equal bits.

Clients' arrays are averaged as FedAvg does (McMahan et al., AISTATS 2017, arXiv:1602.05629), by
examples: that is right where a mean of models is a model, as of linear ones, and wrong for trees.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from folkmoot.adapters import losses
from folkmoot.adapters.arrays import Arrays
from folkmoot.adapters.learning import Learning, drawing
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Plan, Seen
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.metrics import Metric, mean_of

UNJUDGED = Metric("loss", lambda outputs, targets: outputs, lambda sums: float("nan"), "lower")
"""What stands for the loss of a learner that predicts nothing; never a number."""


def functions(
    learner: Any,
    get: Callable[[Any], Arrays],
    set: Callable[[Any, Arrays], None],
    fit: Callable[[Any, Tree], None],
    *,
    predict: Callable[[Any, Tree], Any] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    metrics: Sequence[Metric] = (),
    target: str = "y",
) -> LocalWork:
    """Let anything learn that can be read, written and trained.

    A round is one fit of each client, on all of its examples, from the arrays of the global model.
    Compression, clipping, secure sums and client-level privacy ride on it as on any other work;
    what asks for gradients does not.

    Args:
        learner: What learns; it can be copied by `copy.deepcopy`, and stays as it was. Its arrays
            are the first global model.
        get: `get(learner)` -> its arrays: numbers, numpy arrays or tensors in nested dicts or
            lists. At least one is floating; integers are averaged and rounded.
        set: `set(learner, arrays)` puts back what `get` has returned, of other numbers, in arrays
            that belong to the learner alone.
        fit: `fit(learner, data)` trains in place, from what `set` gave it. `data` are one client's
            examples: numpy arrays (rows, ...) by name, such as {"x": ..., "y": ...}.
        predict: `predict(learner, data)` -> outputs, (rows, ...), of data without the target.
            None where nothing is to be judged.
        loss: `loss(outputs, targets)` -> one number a row, (rows,), by which models are judged;
            with `predict`.
        metrics: What is reported beside the loss, such as `fm.metrics.accuracy()`.
        target: Name of the leaf with the targets.

    Returns:
        Local work for `fm.fedavg` and its kin. `result.model` predicts; `result.model.learner` is a
        learner with the global arrays.

    Raises:
        SettingsError: If something is no function, the learner cannot be copied, or `get` returns
            what is no array, or `set` not what was given to it.
    """
    needed = {"get": get, "set": set, "fit": fit}
    for name, function in {**needed, "predict": predict, "loss": loss}.items():
        if not callable(function) and (name in needed or function is not None):
            raise SettingsError(f"{name} must be a function, but is {function!r}.")
    if (predict is None) != (loss is None) or (metrics and loss is None):
        raise SettingsError(
            "Models are judged by loss= and metrics= of what predict= returns: give predict= and "
            "loss=, or none of them where nothing is to be judged."
        )
    judged = UNJUDGED if loss is None else mean_of("loss", losses.by_row(loss), "lower")
    objective = Learning(learner, get, set, fit, predict, (judged, *metrics), target)
    objective.refuse_unfit()
    return work_of(objective)


def work_of(objective: Learning, name: str = "fit") -> LocalWork:
    """Return the local work of one fit on all of a client's examples."""

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {**{part: sent[part] for part in ("params", "buffers", "counts")}, "own": own}

    def step(work: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        with drawing(batch.key):
            return {**carry, **objective.learnt(carry, batch.data)}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        value = {part: trees.sub(carry[part], sent[part]) for part in ("params", "buffers")}
        return Update(value, seen.examples, carry["counts"]), carry["own"]

    plan = Plan(epochs=1, batch_size=None, shuffle=False)
    return LocalWork(name, objective, plan, start, step, finish, correct=None)
