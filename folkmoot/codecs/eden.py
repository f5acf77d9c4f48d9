"""EDEN and DRIVE: rotate by a seed of the client's own, then send 1 to 4 bits a coordinate.

Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021, arXiv:2105.08339, and
"EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning", ICML
2022, arXiv:2108.08842. A rotated vector's coordinates are nearly Gaussian whatever it was, so each
becomes the nearest of the points that Lloyd and Max found best for a Gaussian. One scale then makes
the whole unbiased, or its error smallest.

A Hadamard transform takes 2^k coordinates, so a vector is cut into blocks of so many, the largest
first, each with a scale of its own. Transforms that overlap, as in `rotate`, would not do: parts of
a vector that are unlike, as layers are, stay unlike in length, and one scale is then a bad one.

The papers' theorems are about uniform rotations. Blocks of up to 64 coordinates have such ones; in
longer ones signs and a transform do as well for all but vectors that have a few numbers far above
the others: of two numbers, 1 and 0.1, and zeros the smaller one may never arrive.
"""

import functools
import itertools
import math

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.half import power_above
from folkmoot.codecs.lossy import lossy
from folkmoot.codecs.packing import CHUNK, inner, packed, unpacked
from folkmoot.codecs.quantize import whole_number
from folkmoot.codecs.rotate import rotated, rotated_back_
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree

POINTS = {
    1: (0.7978845608028654,),
    2: (0.4527800346364865, 1.5104176084990817),
    3: (0.2450941789442079, 0.7560052812058411, 1.3439092785049496, 2.151945704536943),
    4: (
        0.1283950298511190,
        0.3880482994902072,
        0.6567591185323325,
        0.9423404564867908,
        1.256231197346982,
        1.6180463860216756,
        2.0690172265311846,
        2.7325895709949863,
    ),
}
"""By bits: the points above 0 that are nearest to a standard Gaussian in the mean square (Lloyd,
1957 and 1982; Max, 1960). Those below 0 mirror them."""
_UNIFORM = 64
_LEAST_SQUARE = 2.0**-60
"""Squared lengths from here to its inverse are safe in float32, and so is all that follows."""


def eden(bits: int, *, unbiased: bool = True) -> Codec:
    """Rotate each vector and round each coordinate to the nearest of 2^bits points.

    NMSE is 0.571, 0.133, 0.0358 and 0.00959 for 1 to 4 bits, of any long vector, and divides by the
    number of clients in a mean. Unbiased up to 64 coordinates, and beyond for vectors whose length
    is in many of them. `unbiased=False` takes the scale with the smallest error, NMSE 0.363, 0.117,
    0.0345 and 0.00950, which is shorter than the vector in the mean: use it within
    `feedback(work, codec)`. Beside the bits a float32 scale for each digit 1 of d in binary. Where
    a number is NaN or infinite no finite one arrives.

    What this does to the bounds: `l2` grows to the worst case, the root of `size` times up to 1.2,
    or stays, if not unbiased; of single coordinates nothing more is known.

    Args:
        bits: Of a coordinate, from 1 to 4.
        unbiased: Whether the mean over rotations is the vector.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: If `bits` is out of range. At `init`: if noise stands in front.

    Source: Vargaftik et al., ICML 2022, arXiv:2108.08842, algorithm 1 and section 4.
    """
    whole_number(max(POINTS), bits=bits)
    return _eden(f"eden({bits}{'' if unbiased else ', unbiased=False'})", bits, unbiased)


def drive(*, unbiased: bool = True) -> Codec:
    """Rotate each vector and send the coordinates' signs: `eden(1)` under its first name.

    NMSE is pi / 2 - 1, or 1 - 2 / pi if not unbiased; all else is as for `eden`.

    Source: Vargaftik et al., NeurIPS 2021, arXiv:2105.08339, algorithm 1 and section 4.
    """
    return _eden(f"drive({'' if unbiased else 'unbiased=False'})", 1, unbiased)


def _eden(name: str, bits: int, unbiased: bool) -> Codec:
    points = POINTS[bits]
    # cos(x, x^) is at least what it is for a vector with all its length in one coordinate, times
    # Kantorovich's bound on mean by root mean square of numbers in a range.
    spread = (points[0] + points[-1]) / (2 * math.sqrt(points[0] * points[-1]))

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        grown = max(spread * math.sqrt(bounds.size), 1.0) if unbiased else 1.0
        l2 = bounds.l2 * grown * (1 + 2.0**-10)
        return {"size": torch.tensor(bounds.size)}, bounds._replace(l2=l2, largest=math.inf)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        codes = np.empty(len(vector), dtype=np.uint8)
        scales = [
            _coded(vector[block], bits, unbiased, _key(key, block), codes[block])
            for block in blocks(len(vector))
        ]
        return {"vector": packed(codes, bits), "scales": torch.tensor(scales)}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        size = int(state["size"])
        codes, scales = unpacked(message["vector"], bits, size), message["scales"].tolist()
        found = torch.empty(size)
        for block, scale in zip(blocks(size), scales, strict=True):
            _write_points(codes[block], bits, scale, found[block])
            _rotate_back(found[block], _key(key, block))
        return found

    return lossy(name, init, pack, unpack)


def blocks(size: int) -> list[slice]:
    """Cut a vector into powers of two, the largest first, and a rest of at most 64 numbers."""
    found, begin = [], 0
    while begin < size:
        left = size - begin
        length = left if left <= _UNIFORM else 1 << left.bit_length() - 1
        found.append(slice(begin, begin + length))
        begin += length
    return found


def _coded(vector: Tensor, bits: int, unbiased: bool, key: int, codes: np.ndarray) -> float:
    """Write a block's codes, and return its scale."""
    power, square = 1.0, inner(vector, vector)
    if not _LEAST_SQUARE < square < 1 / _LEAST_SQUARE:
        power = power_above(vector)
        vector = vector * (1 / power)
        square = inner(vector, vector)
    flat = _rotated(vector, key)
    _write_codes(flat.numpy(), bits, math.sqrt(square / len(flat)), codes)
    found = torch.empty_like(flat)
    _write_points(codes, bits, 1.0, found)
    along = inner(flat, found)
    # Both are 0 for the zero vector only.
    scale = _ratio(square, along) if unbiased else _ratio(along, inner(found, found))
    return scale * power


def _key(key: int, block: slice) -> int:
    return rng.mix(key ^ rng.label("eden") ^ block.start)


def _write_codes(flat: np.ndarray, bits: int, deviation: float, codes: np.ndarray) -> None:
    """Write each coordinate's code, uint8: the lowest bit is its sign."""
    points = POINTS[bits]
    limits = [np.float32(deviation * (a + b) / 2) for a, b in itertools.pairwise(points)]
    codes[:] = 0
    lengths, beyond = np.empty(CHUNK, dtype=np.float32), np.empty(CHUNK, dtype=bool)
    for begin in range(0, len(flat), CHUNK):
        part, code = flat[begin : begin + CHUNK], codes[begin : begin + CHUNK]
        absolute, above = lengths[: len(part)], beyond[: len(part)]
        np.abs(part, out=absolute)
        for limit in limits:
            code += np.greater(absolute, limit, out=above).view(np.uint8)
        code += code
        code += np.less(part, 0, out=above).view(np.uint8)


def _write_points(codes: np.ndarray, bits: int, scale: float, out: Tensor) -> None:
    """Write the points that codes stand for, times a scale."""
    even, table = len(codes) // 2 * 2, _table(bits) * np.float32(scale)
    # Two codes are looked up at a time, as one number of 16 bits; "clip" is numpy's fast way.
    index, pairs = codes[:even].view(np.uint16), table.view(np.complex64).reshape(-1)
    two = out.numpy()[:even].view(np.complex64)
    for begin in range(0, len(index), CHUNK):
        part = slice(begin, begin + CHUNK)
        np.take(pairs, index[part], out=two[part], mode="clip")
    if even < len(codes):
        out[-1] = table[codes[-1], 0].item()


@functools.cache
def _table(bits: int) -> np.ndarray:
    """Return the points of each pair of codes, (pairs, 2), by the pair's 16 bits."""
    one = np.array([point * sign for point in POINTS[bits] for sign in (1, -1)], dtype=np.float32)
    pairs = np.zeros((1 << 8 + bits, 2), dtype=np.float32)
    low, high = np.meshgrid(np.arange(1 << bits), np.arange(1 << bits))
    pairs[low + 256 * high, 0], pairs[low + 256 * high, 1] = one[low], one[high]
    return pairs


def _ratio(above: float, below: float) -> float:
    return above / below if below else above * 0.0


def _rotated(vector: Tensor, key: int) -> Tensor:
    if len(vector) > _UNIFORM:
        return rotated(vector, key)
    return (_uniform(key, len(vector)) @ vector.double()).float()


def _rotate_back(vector: Tensor, key: int) -> None:
    if len(vector) > _UNIFORM:
        rotated_back_(vector, key)
    else:
        vector.copy_(_uniform(key, len(vector)).T @ vector.double())


def _uniform(key: int, size: int) -> Tensor:
    """Return an orthogonal matrix, (size, size), float64, of which none is likelier than another.

    Source: Mezzadri, "How to Generate Random Matrices from the Classical Compact Groups", Notices
    of the AMS 54, 2007, arXiv:math-ph/0609050, section 5.
    """
    drawn = torch.from_numpy(rng.generator(key).standard_normal((size, size)))
    matrix, triangle = torch.linalg.qr(drawn)
    found: Tensor = matrix * triangle.diagonal().sign()
    return found
