"""Directions in which canaries pull: all orthogonal, so that none hides another.

Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR 2024,
arXiv:2302.03098, take random directions, which are nearly orthogonal in a large model. Here each
canary owns some coordinates and pulls along a random sign in each: exactly orthogonal in a model of
any size, and all of them together are one vector.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folkmoot.core import rng


class Directions(NamedTuple):
    """One unit vector for each canary, over disjoint coordinates."""

    owner: NDArray[np.int64]
    """(size,), the canary that owns a coordinate."""
    signed: NDArray[np.float64]
    """(size,), all directions added."""
    canaries: int
    """Where there are more of them than coordinates, the last ones own none, and are silent."""

    def of(self, canary: int) -> Tensor:
        """Return one canary's direction, (size,), float32."""
        return torch.from_numpy(np.where(self.owner == canary, self.signed, 0.0)).float()

    def along(self, vector: Tensor) -> NDArray[np.float64]:
        """Return the inner product of a vector, (size,), with every direction, (canaries,)."""
        parts = vector.double().numpy() * self.signed
        return np.bincount(self.owner, weights=parts, minlength=self.canaries).astype(np.float64)

    def speaks(self, canary: int) -> bool:
        """Tell whether a canary owns a coordinate."""
        return canary < len(self.owner)


def directions(size: int, canaries: int, seed: int, exchange: int = 0) -> Directions:
    """Deal the coordinates out.

    Args:
        size: Coordinates of a vector.
        canaries: Who each get as many, within one.
        seed: Of the lot.
        exchange: Each exchange of a round has directions of its own.
    """
    draw = rng.generator(rng.derive(seed, purpose=f"canaries' directions {exchange}"))
    owner = np.empty(size, dtype=np.int64)
    owner[draw.permutation(size)] = np.arange(size) % canaries
    owned = np.bincount(owner, minlength=canaries)
    signs = draw.choice((-1.0, 1.0), size)
    return Directions(owner, signs / np.sqrt(owned[owner]), canaries)
