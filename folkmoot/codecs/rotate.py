"""Rotate: spread each vector evenly over its coordinates, so that few bits hold them all.

Suresh, Yu, Kumar, McMahan, "Distributed Mean Estimation with Limited Communication", ICML 2017,
arXiv:1611.00429: random signs, then a Walsh-Hadamard transform. A coordinate of a rotated vector is
a sum of all coordinates with random signs, which is longer than t times the norm over sqrt(n) with
a chance below 2 exp(-t^2 / 2).

A transform takes 2^k coordinates, and padding to the next power of two could double what is sent.
So two transforms overlap: one of the first 2^k coordinates, then, with signs of its own, one of the
last 2^k, for the largest 2^k that fits. Length and size stay as they were.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.lossy import lossy
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree

FLATNESS = 8.0
"""t: of 10^9 coordinates none is longer with a chance of 1 - 10^-4."""
_BITS = 4
"""A transform of 2^k is done as products with matrices of 2^4: few passes, and few operations."""
_CACHED_BITS = 16
"""Vectors of so many bits, and a spare one, fit into a core's cache."""
_SIGNS_OF_A_BYTE = np.float32(2) * np.unpackbits(np.arange(256, dtype="u1")[:, None], axis=1) - 1
_ROUNDING = 2.0**-12
"""Share by which a float32 rotation may lengthen a vector: 17 * 2^-24 * sqrt(16) for each of at
most 2 * 8 products."""


def rotate() -> Codec:
    """Rotate each vector by signs and a Hadamard transform that all clients of a round share.

    In front of a stage that packs vectors each client has signs of its own: errors of equal signs
    would add up in the mean.

    What this does to the bounds: `l2` grows by 2^-12 for rounding; `largest` becomes what hardly
    any coordinate will exceed, 8 `l2` / sqrt(2^k) for the largest 2^k within the size.

    Returns:
        A linear codec: a rotated sum is the sum rotated. Its state counts the rounds, from which
        the signs follow; they are public.

    Source: Suresh et al., ICML 2017, arXiv:1611.00429, section 3.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        return {"turn": torch.tensor(0)}, _behind(bounds)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return rotated(vector, int(state["turn"]))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        turn = int(state["turn"])
        return rotated_back(total.float(), turn), {"turn": torch.tensor(turn + 1)}

    return Codec("rotate", init, encode, decode, own=_own())


def _own() -> Codec:
    """Build the stage whose signs follow from the client's key."""

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        return {}, _behind(bounds)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        return {"vector": rotated(vector, key)}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        return rotated_back(message["vector"], key)

    return lossy("rotate", init, pack, unpack)


def _behind(bounds: Bounds) -> Bounds:
    """Return what is known of rotated vectors."""
    refuse_noisy("rotate", bounds)
    largest = FLATNESS * bounds.l2 / math.sqrt(max(_block(bounds.size), 1))
    grown = bounds.l2 * (1 + _ROUNDING)
    return bounds._replace(l2=grown, largest=min(largest, grown))


def rotated(vector: Tensor, turn: int) -> Tensor:
    """Return a float32 vector rotated by the signs of a turn or key, in memory of its own."""
    size, block = len(vector), _block(len(vector))
    if size < 2:
        return vector.clone()
    found = vector * _signs(turn, 0, size)
    hadamard_(found[:block])
    if block < size:
        last = found[size - block :]
        hadamard_(last.mul_(_signs(turn, 1, block)))
    return found


def rotated_back(vector: Tensor, turn: int) -> Tensor:
    """Undo `rotated`, in memory of its own."""
    return rotated_back_(vector.clone(), turn)


def rotated_back_(vector: Tensor, turn: int) -> Tensor:
    """Undo `rotated` where the vector is: to fetch new memory takes as long as the arithmetic."""
    size, block = len(vector), _block(len(vector))
    if size < 2:
        return vector
    if block < size:
        last = vector[size - block :]
        hadamard_(last)
        last.mul_(_signs(turn, 1, block))
    hadamard_(vector[:block])
    return vector.mul_(_signs(turn, 0, size))


def hadamard_(vector: Tensor) -> None:
    """Make of 2^k numbers their orthonormal Walsh-Hadamard transform; it is its own inverse.

    It is the Kronecker product of small ones, each of which acts on some digits of the index.
    """
    bits = len(vector).bit_length() - 1
    spare = torch.empty(1 << min(bits, _CACHED_BITS), dtype=vector.dtype)
    parts = [vector]
    while bits > _CACHED_BITS:
        taken = min(bits - _CACHED_BITS, _BITS)
        bits -= taken
        for part in parts:
            _transform_columns(part.view(1 << taken, -1), taken, spare)
        parts = [smaller for part in parts for smaller in part.view(1 << taken, -1)]
    for part in parts:
        _transform(part, spare)


def _transform_columns(rows: Tensor, bits: int, spare: Tensor) -> None:
    """Transform each column where it is, as many at a time as fit into a core's cache."""
    matrix, width = _matrix(bits, rows.dtype), len(spare) >> bits
    found = spare.view(-1, width)
    for begin in range(0, rows.shape[1], width):
        columns = rows[:, begin : begin + width]
        columns.copy_(torch.mm(matrix, columns, out=found))


def _transform(vector: Tensor, spare: Tensor) -> None:
    """Transform a vector that fits into a core's cache where it is."""
    bits, left, here, there = len(vector).bit_length() - 1, 1, vector, spare
    while bits:
        taken = min(bits, _BITS)
        bits -= taken
        here, there = _product(here, left, taken, there), here
        left <<= taken
    if here is not vector:
        vector.copy_(here)


def _product(vector: Tensor, left: int, bits: int, out: Tensor) -> Tensor:
    """Transform along some digits of the index, behind those that count to `left`."""
    matrix, rows = _matrix(bits, vector.dtype), 1 << bits
    if left == 1:
        torch.mm(matrix, vector.view(rows, -1), out=out.view(rows, -1))
    elif left * rows == len(vector):
        torch.mm(vector.view(left, rows), matrix, out=out.view(left, rows))
    else:
        several = matrix.expand(left, rows, rows)
        torch.bmm(several, vector.view(left, rows, -1), out=out.view(left, rows, -1))
    return out


def _block(size: int) -> int:
    """Return the largest power of two that is not above a size; 0 of 0."""
    return 1 << size.bit_length() - 1 if size else 0


@functools.cache
def _matrix(bits: int, dtype: torch.dtype) -> Tensor:
    """Return the orthonormal Hadamard matrix of 2^bits rows."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    for _ in range(bits):
        matrix = torch.kron(step, matrix)
    return matrix.to(dtype)


@functools.lru_cache(maxsize=4)
def _signs(turn: int, place: int, size: int) -> Tensor:
    """Return random signs, float32, which nobody may write to."""
    key = rng.derive(turn, purpose=f"rotate {place}")
    words = rng.mix_array(np.arange(-(-size // 64), dtype=np.uint64) ^ np.uint64(key))
    found = np.empty((8 * len(words), 8), dtype=np.float32)
    np.take(_SIGNS_OF_A_BYTE, words.view(np.uint8), axis=0, out=found, mode="clip")
    return torch.from_numpy(found.reshape(-1))[:size]
