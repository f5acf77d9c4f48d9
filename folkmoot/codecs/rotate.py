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
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree

FLATNESS = 8.0
"""t: of 10^9 coordinates none is longer with a chance of 1 - 10^-4."""
_BITS = 5
"""A transform of 2^k is done as products with matrices of 2^5: few passes, in fast kernels."""
_ROUNDING = 2.0**-12
"""Share by which a float32 rotation may lengthen a vector: 33 * 2^-24 * sqrt(32) for each of at
most 2 * 7 products."""


def rotate() -> Codec:
    """Rotate each vector by signs and a Hadamard transform that all clients of a round share.

    What this does to the bounds: `l2` grows by 2^-12 for rounding; `largest` becomes what hardly
    any coordinate will exceed, 8 `l2` / sqrt(2^k) for the largest 2^k within the size.

    Returns:
        A linear codec: a rotated sum is the sum rotated. Its state counts the rounds, from which
        the signs follow; they are public.

    Source: Suresh et al., ICML 2017, arXiv:1611.00429, section 3.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy("rotate", bounds)
        largest = FLATNESS * bounds.l2 / math.sqrt(max(_block(bounds.size), 1))
        grown = bounds.l2 * (1 + _ROUNDING)
        return {"turn": torch.tensor(0)}, bounds._replace(l2=grown, largest=min(largest, grown))

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return rotated(vector, int(state["turn"]))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        turn = int(state["turn"])
        return rotated_back(total.float(), turn), {"turn": torch.tensor(turn + 1)}

    return Codec("rotate", init, encode, decode)


def rotated(vector: Tensor, turn: int) -> Tensor:
    """Return a float32 vector rotated by the signs of a turn, in memory of its own."""
    size, block = len(vector), _block(len(vector))
    if size < 2:
        return vector.clone()
    found = vector * _signs(turn, 0, size)
    found[:block] = hadamard(found[:block])
    if block < size:
        last = found[size - block :]
        last.copy_(hadamard(last * _signs(turn, 1, block)))
    return found


def rotated_back(vector: Tensor, turn: int) -> Tensor:
    """Undo `rotated`."""
    size, block = len(vector), _block(len(vector))
    if size < 2:
        return vector.clone()
    found = vector.clone()
    if block < size:
        last = found[size - block :]
        last.copy_(hadamard(last) * _signs(turn, 1, block))
    found[:block] = hadamard(found[:block])
    return found.mul_(_signs(turn, 0, size))


def hadamard(vector: Tensor) -> Tensor:
    """Return the orthonormal Walsh-Hadamard transform of 2^k numbers; it is its own inverse.

    It is the Kronecker product of small ones, each of which acts on some digits of the index.
    """
    bits, left = len(vector).bit_length() - 1, 1
    while bits:
        taken = min(bits, _BITS)
        bits -= taken
        matrix = _matrix(taken, vector.dtype)
        parts = vector.view(left, 1 << taken, 1 << bits)
        if bits:
            vector = torch.matmul(matrix, parts).view(-1)
        else:
            vector = torch.mm(parts.view(left, -1), matrix).view(-1)
        left <<= taken
    return vector


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
    bits = np.unpackbits(words.view(np.uint8))[:size]
    return torch.from_numpy(bits).float().mul_(2).sub_(1)
