"""Draws from a law on the integers, by its inverse distribution function in a table.

The first 16 bits of a uniform 128-bit number choose one of 65,536 cells; most cells lie between two
boundaries and answer at once (Chen and Asau, "On Generating Random Variates from an Empirical
Distribution", AIIE Transactions 1974). Elsewhere 48 more bits are drawn and compared, and 64 more
where those tie with a boundary, so the answer is that of the whole number.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from folkmoot.codecs.entropy import Words

_BITS = 128
_CELL_BITS = 16
_HEAD_BITS = 64
_OPEN = np.iinfo(np.int16).min
"""What stands in a cell that holds a boundary."""
_CHUNK = 1 << 16
"""Draws at once: guide, words and answers then stay in a core's second cache."""


class Table(NamedTuple):
    """A law on the integers: `first + j` has the numbers from boundary j - 1 up to boundary j."""

    first: int
    """The least value."""
    boundaries: tuple[int, ...]
    """Rising, of 128 bits each; one less than there are values."""
    heads: np.ndarray
    """Their first 64 bits, and a last one that bounds nothing."""
    guide: np.ndarray
    """(2^16,) int16: the value of each cell, or `_OPEN`."""
    passed: np.ndarray
    """(2^16,) int32: boundaries below each cell."""


def table(first: int, weights: Sequence[int]) -> Table:
    """Return the table of a law.

    Each probability is met to 2^-128, so the total variation distance from the law of the weights
    is at most 2^-129 for each value.

    Args:
        first: The value of the first weight; all values must fit into 15 bits.
        weights: Whole numbers above 0, in proportion to the probabilities.
    """
    total, below, boundaries = sum(weights), 0, []
    for weight in weights[:-1]:
        below += weight
        boundaries.append((below << _BITS) // total)
    heads = np.array([one >> (_BITS - _HEAD_BITS) for one in boundaries], dtype=np.uint64)
    width = 1 << (_HEAD_BITS - _CELL_BITS)
    begins = np.arange(1 << _CELL_BITS, dtype=np.uint64) * np.uint64(width)
    passed = np.searchsorted(heads, begins, "left")
    guide = (first + passed).astype(np.int16)
    guide[passed != np.searchsorted(heads, begins + np.uint64(width - 1), "right")] = _OPEN
    heads = np.append(heads, np.uint64((1 << _HEAD_BITS) - 1))
    return Table(first, tuple(boundaries), heads, guide, passed.astype(np.int32))


def draw(law: Table, size: int, words: Words) -> np.ndarray:
    """Return independent draws from a law: (size,), int16.

    Args:
        law: From `table`.
        size: Draws.
        words: Where the bits come from.
    """
    found = np.empty(size, dtype=np.int16)
    for begin in range(0, size, _CHUNK):
        part = found[begin : begin + _CHUNK]
        cells = words(len(part) // 2 + 1).view(np.uint16)[: len(part)]
        part[:] = law.guide.take(cells)
        places = np.flatnonzero(part == _OPEN)
        if len(places):
            part[places] = _searched(law, cells[places], words)
    return found


def _searched(law: Table, cells: np.ndarray, words: Words) -> np.ndarray:
    """Return the values of numbers that begin with the given 16 bits."""
    more = words(2 * len(cells)).view(np.uint64) >> np.uint64(_CELL_BITS)
    heads = cells.astype(np.uint64) << np.uint64(_HEAD_BITS - _CELL_BITS) | more
    passed = law.passed.take(cells)
    # Most open cells hold one boundary: a comparison, and a search only where that is not all.
    passed += heads >= law.heads.take(passed)
    further = np.flatnonzero(heads >= law.heads.take(passed))
    passed[further] = np.searchsorted(law.heads[:-1], heads[further], "right")
    for place in np.flatnonzero(law.heads.take(passed - 1) == heads):
        low = int.from_bytes(words(2).tobytes(), "little")
        number = (int(heads[place]) << (_BITS - _HEAD_BITS)) | low
        passed[place] = bisect.bisect_right(law.boundaries, number)
    return passed + law.first
