"""Whether short batches may be padded with rows of weight 0: asked of the model, not of its names.

A layer that mixes the rows of a batch, counts them or keeps statistics of them would see the
padding, and the loss must be by row for a row to have a weight.
"""

from typing import Any

import torch

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch, Task
from folkmoot.core.rng import as_tensor
from folkmoot.core.tree import Tree

_ROUNDING = 1e-3
"""Largest distance of two gradients, over their norm, that differ by rounding only."""


def may_pad(task: Task, data: Tree) -> bool:
    """Tell whether short batches may be padded: one of two rows is tried with a third, of weight 0.

    Args:
        task: Its objective is a module with a loss.
        data: Examples, leaves (rows, ...), of which two are used.
    """
    objective: Any = task.work.objective
    if getattr(objective, "needs_pairs", False):
        return False
    rows = trees.map(lambda leaf: leaf[:2], data)
    # Copies, for a model may write into its inputs.
    model = objective.init()
    if not objective.loss_by_row(model, trees.clone(rows)):
        return False
    # Padding is a question of arithmetic, which half precision would blur.
    objective = objective.with_precision("float32")
    plain, plain_writes = _step(objective, model, rows, 0)
    padded, padded_writes = _step(objective, model, rows, 1)
    if plain_writes or padded_writes:
        return False
    return bool(trees.norm(trees.sub(plain, padded)) <= _ROUNDING * trees.norm(plain))


def _step(objective: Any, model: Tree, rows: Tree, padding: int) -> tuple[Tree, bool]:
    """Return the gradient of a batch, and whether buffers were written into."""
    before, given = trees.clone(model), trees.clone(model)
    weight, rows = None, trees.clone(rows)
    if padding:
        real = len(trees.leaves(rows)[0])
        dtype = trees.leaves(model["params"])[0].dtype
        weight = torch.cat([torch.full((real,), 1 / real), torch.zeros(padding)]).to(dtype)
        rows = trees.map(lambda leaf: torch.cat([leaf, leaf[:padding]]), rows)
    gradient, _ = objective.grad(*given.values(), Batch(rows, weight, as_tensor(0), 0))
    pairs = zip(trees.leaves(before), trees.leaves(given), strict=True)
    return gradient, not all(torch.equal(one, other) for one, other in pairs)
