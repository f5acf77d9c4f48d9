"""Count sketch: numbers are added up in few buckets, with random signs, several times over.

Charikar, Chen, Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002; Rothchild et
al., "FetchSGD", ICML 2020, arXiv:2007.07682. In each row a number is estimated by its bucket, with
its sign; the median over rows is what arrives.

Buckets come from a mixing of the places that is one to one on the next power of two, not from a
hash: a bucket then holds few numbers for sure, and so the sketch's length has a bound.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.quantize import whole_number
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree

_MIXINGS = 3


def count_sketch(width: int, *, rows: int = 5) -> Codec:
    """Add each number, with a random sign, to one bucket of each row; estimate it by the median.

    Each row is unbiased, with an error of variance ||x||^2 / width; the median of several is not
    quite, and is robust against the few buckets that hold another large number. For 5 rows and d
    Gaussian numbers NMSE is 0.287 d / width. It finds numbers that are far larger than
    ||x|| / sqrt(width), and is noise for all others. 32 bits for each bucket.

    What this does to the bounds: `size` becomes rows * width; `l2` grows by the root of rows times
    the most numbers of a bucket; `largest` by that number.

    Args:
        width: Buckets of a row.
        rows: An odd number.

    Returns:
        A linear codec: sketches add up to the sketch of the sum. Its state counts the rounds, from
        which buckets and signs follow; they are public.

    Raises:
        SettingsError: If a number is out of range. At `init`: if noise stands in front.

    Source: Charikar et al., ICALP 2002, section 3; Rothchild et al., ICML 2020, algorithm 1.
    """
    whole_number(None, width=width, rows=rows)
    if rows % 2 == 0:
        raise SettingsError(f"rows must be odd, so that one is the middle, but is {rows!r}.")
    name = f"count_sketch({width}, rows={rows})"

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        most = min(-(-(1 << _bits(bounds.size)) // width), max(bounds.size, 1))
        state = {"size": torch.tensor(bounds.size), "turn": torch.tensor(0)}
        grown = math.sqrt(rows * most) * (1 + 2.0**-12)
        return state, bounds._replace(
            l2=bounds.l2 * grown,
            largest=bounds.largest * most * (1 + 2.0**-12),
            size=rows * width,
        )

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        found = np.empty((rows, width), dtype=np.float32)
        for row in range(rows):
            buckets, signs = _places(int(state["turn"]), row, len(vector), width)
            found[row] = np.bincount(buckets, vector.numpy() * signs, minlength=width)
        return torch.from_numpy(found.reshape(-1))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        turn, size = int(state["turn"]), int(state["size"])
        estimates = []
        for row, sums in enumerate(total.float().view(rows, width).numpy()):
            buckets, signs = _places(turn, row, size, width)
            estimates.append(torch.from_numpy(sums[buckets] * signs))
        return _median(estimates), {**state, "turn": torch.tensor(turn + 1)}

    return Codec(name, init, encode, decode)


@functools.lru_cache(maxsize=8)
def _places(turn: int, row: int, size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each number's bucket, int64, and sign, float32, which nobody may write to."""
    key = rng.derive(turn, purpose=f"count_sketch {row}")
    signs = rng.mix_array(np.arange(-(-size // 64), dtype=np.uint64) ^ np.uint64(key))
    bits = np.unpackbits(signs.view(np.uint8))[:size]
    mixed = _mixed(np.arange(size, dtype=np.uint64), _bits(size), key)
    buckets = (mixed * np.uint64(width)) >> np.uint64(_bits(size))
    return buckets.astype(np.int64), 2 * bits.astype(np.float32) - 1


def _median(rows: list[Tensor]) -> Tensor:
    """Return the median of an odd number of vectors, NaN where one of them is; they are lost.

    Neighbours are put in order, the larger one behind, until the upper half stands: whole vectors
    at a time, which is far faster than to sort each place's few numbers.
    """
    for end in range(len(rows) - 1, len(rows) // 2 - 1, -1):
        for at in range(end):
            low, high = rows[at], rows[at + 1]
            rows[at], rows[at + 1] = torch.minimum(low, high), torch.maximum(low, high)
    return rows[len(rows) // 2]


def _mixed(places: np.ndarray, bits: int, key: int) -> np.ndarray:
    """Return places mixed one to one among the numbers below 2^bits."""
    mask = np.uint64((1 << bits) - 1)
    half = np.uint64((bits + 1) // 2)
    for _ in range(_MIXINGS):
        key = rng.mix(key)
        # An odd factor, an addition and a shift to the right can each be undone.
        places = places * np.uint64(key | 1) + np.uint64(rng.mix(key)) & mask
        places ^= places >> half
    return places


def _bits(size: int) -> int:
    """Return the bits of the least power of two that is not below a size, at least 1."""
    return max((size - 1).bit_length(), 1)
