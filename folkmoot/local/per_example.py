"""Sums of per-example gradients, of which none counts more than a clip norm.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133, algorithm 1.
Norms are taken in float64 of the numbers that are added, and the scale is guarded by 2^-20, so the
bound holds for what is added. An example whose gradient is not finite adds nothing.
"""

from typing import Any

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch
from folkmoot.local import ghost
from folkmoot.local.dropout import mix_tensor
from folkmoot.local.pieces import Whole, add_, norms_of
from folkmoot.local.ways import Rows, Way, alone, mapped, way_of

GUARD = 1 / (1 + 2.0**-20)
"""Of a clipping scale, as in `codecs.clip`."""
_MOST_NUMBERS = 1 << 24
"""Numbers of per-example gradients that are held at once."""


def clipped_sum(
    objective: Any, rows: Rows, clip: float, ways: dict[str, str]
) -> tuple[Tensor, Tensor]:
    """Add the gradients of all rows, each scaled to a norm of at most `clip`.

    Args:
        objective: Of whose loss the gradients are.
        rows: At least one.
        clip: Largest L2 norm over all parameters together.
        ways: What has been learnt of the model, under "way"; written into.

    Returns:
        The sum, (numbers of all parameters,), float64, and the rows' norms before clipping.
    """
    way = way_of(objective, rows, ways)
    size = sum(leaf.numel() for leaf in rows.params.values())
    total, norms = torch.zeros(size, dtype=torch.float64), []
    number, most = rows.number, _rows_at_once(objective, rows, way)
    for begin in range(0, number, most):
        pieces = way(objective, rows.cut(begin, min(begin + most, number)))
        norms.append(norms_of(pieces))
        add_(total, pieces, scales(norms[-1], clip), rows.params)
    return total, torch.cat(norms)


def grouped_sum(objective: Any, rows: Rows, clip: float, groups: int) -> Tensor:
    """Add the mean gradients of groups of rows, each scaled to a norm of at most `clip`.

    Each row joins a group by a lot of its own, so the law of the others' groups is the same
    whether a row is there or not; without it, its group's mean is another vector of that norm.

    Args:
        objective: Of whose loss the gradients are.
        rows: At least one.
        clip: Largest L2 norm of one group's mean.
        groups: How many there are; some may be empty.
    """
    total = torch.zeros(sum(leaf.numel() for leaf in rows.params.values()), dtype=torch.float64)
    keys = rows.keys
    lots = (mix_tensor(keys) & (2**62 - 1)) % groups
    for group in lots.unique():
        chosen = (lots == group).nonzero()[:, 0]
        data = trees.map(lambda leaf, at=chosen: leaf[at], rows.data)
        batch = Batch(data, None, keys[chosen[0]], rows.epoch)
        gradient, _ = objective.grad(rows.params, rows.buffers, rows.counts, batch)
        pieces = [Whole(gradient[name].reshape(1, -1)) for name in rows.params]
        add_(total, pieces, scales(norms_of(pieces), clip), rows.params)
    return total


def scales(norms: Tensor, clip: float) -> Tensor:
    """Return by what each gradient is multiplied, (rows,); 0 where it is not finite."""
    found = (GUARD * clip) / norms.clamp(min=clip)
    return torch.where(norms.isfinite(), found, 0.0)


def _rows_at_once(objective: Any, rows: Rows, way: Way) -> int:
    """Return how many rows' gradients may be held; closed forms of dense layers hold none."""
    number, held = rows.number, sum(leaf.numel() for leaf in rows.params.values())
    if number * held > _MOST_NUMBERS and way is not mapped and way is not alone:
        held -= ghost.never_held(objective.replica(), rows.params)
    return min(number, max(1, _MOST_NUMBERS // max(held, 1)))
