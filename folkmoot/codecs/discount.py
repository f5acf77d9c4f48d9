"""Discount: shrink stale answers between their bound and the noise that hides them.

A weight of at most 1 only makes a bounded vector shorter, so the bound stays what it is. It must be
applied in front of the noise's grid: whole numbers that were multiplied would have to be rounded
again, and rounding of a sum has a bound of its own.
"""

import torch
from torch import Tensor

from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree


def discount() -> Codec:
    """Multiply each vector by the weight of its staleness, which whoever asks sets.

    Returns:
        A linear codec. Its state holds the weight, "discount", in (0, 1]; 1 where nobody says.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        return {"discount": torch.ones((), dtype=torch.float64)}, bounds

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        weight = float(state["discount"])
        # Rounded towards 0, so that no coordinate grows.
        return vector if weight == 1 else vector.mul_(weight * (1 - 2.0**-23))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total, state

    return Codec("discount", init, encode, decode)
