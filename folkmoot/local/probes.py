"""Made-up weights and rows, to ask a model how it works rather than what it makes of its examples.

What is found out then hangs on the model and hardly on who trains it first, so that engines which
begin with other clients find the same.
"""

import torch
from torch import Tensor

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.tree import Tree


def moved(params: Tree) -> Tree:
    """Return weights moved by noise, for some gradients are 0 at a first model."""
    draw = rng.generator(0)

    def one(leaf: Tensor) -> Tensor:
        noise = torch.as_tensor(draw.standard_normal(leaf.shape), dtype=leaf.dtype)
        return leaf + 0.1 * noise * leaf.std(correction=0).clamp(min=0.1)

    return trees.map(one, params)


def drawn(data: Tree) -> Tree:
    """Return two rows of normal numbers; of whole numbers, as those of a first row stand."""
    draw = rng.generator(0)

    def two(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return _flipped(leaf[:1])
        noise = draw.standard_normal((2, *leaf.shape[1:]))
        return torch.as_tensor(noise, dtype=leaf.dtype)

    return trees.map(two, data)


def flipped(data: Tree) -> Tree:
    """Return a first row and the same read backwards: numbers that a model surely takes."""
    return trees.map(lambda leaf: _flipped(leaf[:1]), data)


def _flipped(row: Tensor) -> Tensor:
    other = row.flip(-1) if row.dim() > 1 else row
    return torch.cat([row, other / 2 if row.is_floating_point() else other])
