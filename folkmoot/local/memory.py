"""Models that remember: what a pass keeps of an example, later gradients tell without a clip.

Buffers are watched where they are written. A module may also keep numbers in an attribute, a list
or a global, which nobody can watch; but then it gives one row two gradients, before and after it
has seen others, and that can be asked. It is asked of the first batch and of one in `EVERY` after
it, so a memory that begins later is found late, and one that is gone by the time of each question
is not found.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch
from folkmoot.core.tree import Tree
from folkmoot.local.probes import drawn, moved
from folkmoot.local.ways import Rows

EVERY = 64
"""Batches from one question to the next: four passes of one row among so many cost nothing."""

REMEMBERS = (
    "The model gives one row two gradients, before and after it has seen others: a forward pass "
    "keeps something for the next ones, as a running mean in an attribute, a list or a global "
    "does, and what it keeps tells of examples without noise. Compute it from the row alone, as "
    "GroupNorm does; a buffer that is written into is refused as well."
)


def remembers(objective: Any, rows: Rows) -> bool | None:
    """Tell whether a row has another gradient after a made-up row and the batch's last one.

    Args:
        objective: Whose gradients.
        rows: At least one; asked with the first, at weights moved by noise.

    Returns:
        Whether a single bit differs, or the gradient cannot be taken again. None where nothing is
        told: the gradient is 0 or not finite, or no other row is another one.
    """
    rows = rows._replace(params=moved(rows.params))
    row, last = rows.cut(0, 1).data, rows.cut(rows.number - 1, rows.number).data
    made = trees.map(lambda leaf: leaf[1:], drawn(row))
    others = [other for other in (made, last) if _differ(row, other)]
    first = _gradient(objective, rows, row)
    if not others or not bool(first.isfinite().all()) or not bool(first.any()):
        return None
    for other in others:
        # Numbers that are made up may be none that the model takes.
        with contextlib.suppress(Exception):
            _gradient(objective, rows, other)
    try:
        return not torch.equal(first, _gradient(objective, rows, row))
    except RuntimeError:
        # What could be done once cannot be done again: the graph of an earlier row hangs on it.
        return True


def _gradient(objective: Any, rows: Rows, row: Tree) -> Tensor:
    """Return the gradient of one row, (numbers of all parameters,), always by the same key."""
    batch = Batch(row, None, rows.key, rows.epoch)
    gradient, _ = objective.grad(rows.params, rows.buffers, rows.counts, batch)
    return torch.cat([gradient[name].reshape(-1).double() for name in rows.params])


def _differ(one: Tree, other: Tree) -> bool:
    pairs = zip(trees.leaves(one), trees.leaves(other), strict=True)
    return any(not torch.equal(first, second) for first, second in pairs)
