"""The gradients of a batch's examples by one parameter, in forms that need not hold them.

Each form knows its examples' squared norms, and can be added up in float64 with a share for each:
of the numbers whose norms were taken, so that a bound holds for what is added.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from folkmoot.core.tree import Tree

_ROUNDING = 2.0**-40
"""Of products that cancel: far above what float64 makes of them, far below what a norm shows."""


class Piece(Protocol):
    """The gradients of a batch's examples by one parameter, in some form."""

    def squares(self) -> Tensor:
        """Return each example's squared norm, (rows,), float64."""
        ...

    def add_(self, total: Tensor, shares: Tensor) -> None:
        """Add the examples' gradients, each times its share, (rows,), to a flat float64 vector."""
        ...

    def without(self, rows: Tensor) -> "Piece":
        """Return these with zeros for some examples, (rows,), bool."""
        ...


class Whole(NamedTuple):
    """Gradients as they are."""

    gradients: Tensor
    """(rows, size)."""

    def squares(self) -> Tensor:
        """Return each example's squared norm."""
        norms = torch.linalg.vector_norm(self.gradients, dim=1, dtype=torch.float64)
        return norms.square()

    def add_(self, total: Tensor, shares: Tensor) -> None:
        """Add the gradients by their shares."""
        total.addmv_(self.gradients.double().t(), shares)

    def without(self, rows: Tensor) -> "Whole":
        """Return these with zeros for some examples."""
        return Whole(self.gradients.masked_fill(rows[:, None], 0))


class Outer(NamedTuple):
    """Gradients that are sums over positions of b_t a_t^T: a dense layer's, by its weight."""

    a: Tensor
    """(rows, positions, inputs), float64."""
    b: Tensor
    """(rows, positions, outputs), float64."""

    def squares(self) -> Tensor:
        """Return each example's squared norm, at least: what cancels counts with its rounding."""
        if self.a.shape[1] == 1:
            a, b = (torch.linalg.vector_norm(one, dim=(1, 2)) for one in self)
            return (a * b).square()
        products = (self.a @ self.a.mT) * (self.b @ self.b.mT)
        lengths = (self.a.norm(dim=2) * self.b.norm(dim=2)).sum(1)
        return products.sum((1, 2)).clamp(min=0) + _ROUNDING * lengths.square()

    def add_(self, total: Tensor, shares: Tensor) -> None:
        """Add the gradients by their shares."""
        a, b = self.a.flatten(0, 1), (self.b * shares[:, None, None]).flatten(0, 1)
        total.view(b.shape[1], a.shape[1]).addmm_(b.t(), a)

    def without(self, rows: Tensor) -> "Outer":
        """Return these with zeros for some examples."""
        blank = rows[:, None, None]
        return Outer(self.a.masked_fill(blank, 0), self.b.masked_fill(blank, 0))


class Looked(NamedTuple):
    """Gradients of a table's rows that were looked up: an embedding's."""

    entries: int
    """Rows of the table."""
    ids: Tensor
    """(rows, positions), int64."""
    b: Tensor
    """(rows, positions, size), float64."""

    def squares(self) -> Tensor:
        """Return each example's squared norm; what it gives one entry at several places adds up."""
        rows = len(self.ids)
        owner = torch.arange(rows)[:, None] * self.entries
        found, places = torch.unique(owner + self.ids, return_inverse=True)
        added = self.b.new_zeros(len(found), self.b.shape[2])
        added.index_add_(0, places.reshape(-1), self.b.flatten(0, 1))
        each = added.square().sum(1)
        return each.new_zeros(rows).index_add_(0, found // self.entries, each)

    def add_(self, total: Tensor, shares: Tensor) -> None:
        """Add the gradients by their shares."""
        b = (self.b * shares[:, None, None]).flatten(0, 1)
        total.view(self.entries, -1).index_add_(0, self.ids.reshape(-1), b)

    def without(self, rows: Tensor) -> "Looked":
        """Return these with zeros for some examples."""
        return self._replace(b=self.b.masked_fill(rows[:, None, None], 0))


def norms_of(pieces: Sequence[Piece]) -> Tensor:
    """Return each row's norm over all parameters, (rows,), float64."""
    return torch.stack([piece.squares() for piece in pieces]).sum(0).sqrt()


def add_(total: Tensor, pieces: Sequence[Piece], shares: Tensor, params: Tree) -> None:
    """Add the rows' gradients, each times its share; one whose share is 0 is not looked at.

    Args:
        total: One vector for all parameters, float64; written into.
        pieces: By parameter, in order.
        shares: (rows,), float64.
        params: Whose shapes say where each parameter stands in the vector.
    """
    void = shares == 0
    if bool(void.any()):
        pieces = [piece.without(void) for piece in pieces]
    parts = torch.split(total, [leaf.numel() for leaf in params.values()])
    for part, piece in zip(parts, pieces, strict=True):
        piece.add_(part, shares)
