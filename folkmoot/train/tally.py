"""Who was asked, who answered, and the bytes of each, over a whole run: four numbers a client.

Kept as arrays, so that a million clients take 32 MB and a round adds as fast as its cohort is long.
A private run keeps none: that a client took part is what its promise hides.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from folkmoot.core.tree import Tree

Numbers = int | Sequence[int] | np.ndarray | Tensor
"""One number for all, or one for each place."""


class Tally(NamedTuple):
    """Counts of each client, int64, in ascending order of the population's ids."""

    asked: Tensor
    """How often each was asked."""
    answered: Tensor
    """How often its answer counted."""
    upload_bytes: Tensor
    download_bytes: Tensor

    @classmethod
    def of(cls, population: int) -> "Tally":
        """Return the counts before the first round."""
        return cls(*torch.zeros(4, population, dtype=torch.int64).unbind())

    def add(
        self,
        places_asked: Numbers,
        downloads: Numbers,
        places_answered: Numbers,
        uploads: Numbers,
        *,
        counts: bool = True,
    ) -> "Tally":
        """Count one round in place, and return the same counts.

        Args:
            places_asked: Places in the population of those who were asked; one may be there twice.
            downloads: Bytes down to each of them.
            places_answered: Places of those whose answer arrived.
            uploads: Bytes up from each of them.
            counts: Whether the answers made a result; their bytes have travelled in any case.
        """
        for places, bytes_, times, moved, once in (
            (places_asked, downloads, self.asked, self.download_bytes, 1),
            (places_answered, uploads, self.answered, self.upload_bytes, int(counts)),
        ):
            where = _whole(places).reshape(-1)
            times.index_add_(0, where, torch.full_like(where, once))
            moved.index_add_(0, where, _whole(bytes_).expand(len(where)))
        return self

    def tree(self) -> Tree:
        """Return what a checkpoint stores."""
        return dict(self._asdict())

    @classmethod
    def from_tree(cls, tree: Tree) -> "Tally":
        """Read back what `tree` has written."""
        return cls(**tree)


def _whole(numbers: Any) -> Tensor:
    return torch.as_tensor(numbers, dtype=torch.int64)
