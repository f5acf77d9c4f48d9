"""Codes of a few bits each, side by side in bytes, and the lots by which numbers are rounded.

Codes are cut into planes of 8, 4, 2 and 1 bits: 11 bits are a plane of 8, one of 2 and one of 1. A
byte of a plane of 4 holds a code of the plane's first half and one of its second, and so on, for
then all is done with whole, contiguous arrays. Fewer than 8 bytes are lost at the planes' ends.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folkmoot.core import rng

_ROW = 1 << 10
CHUNK = 1 << 14
"""Numbers that are worked on at a time, so that what is between steps stays in a core's cache."""


def packed(codes: np.ndarray, bits: int) -> Tensor:
    """Lay codes side by side.

    Args:
        codes: (size,), uint8, uint16 or uint32; below 2^bits.
        bits: From 1 to 32.

    Returns:
        uint8, (`packed_size(size, bits)`,).
    """
    planes = torch.empty(packed_size(len(codes), bits), dtype=torch.uint8)
    at, done = 0, 0
    for width in _widths(bits):
        plane = codes >> done if done else codes
        cut = torch.from_numpy(plane.astype(np.uint8, copy=False))
        if done + width < bits and width < 8:
            cut = cut & (1 << width) - 1
        length = _plane_size(len(codes), width)
        _fold(cut, width, planes[at : at + length])
        at, done = at + length, done + width
    return planes


def unpacked(planes: Tensor, bits: int, size: int) -> np.ndarray:
    """Read codes back, (size,), in the smallest of uint8, uint16 and uint32 that holds them."""
    dtype = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    at, done = 0, 0
    codes: np.ndarray = np.zeros(size, dtype=dtype)
    for width in _widths(bits):
        length = _plane_size(size, width)
        plane = _unfold(planes[at : at + length], width)[:size].numpy()
        part: Any = plane.astype(dtype, copy=False)
        codes = codes | part << done if done else part
        at, done = at + length, done + width
    return codes


def packed_size(size: int, bits: int) -> int:
    """Return the bytes of so many codes."""
    return sum(_plane_size(size, width) for width in _widths(bits))


def lots(key: int) -> Callable[[int, int], np.ndarray]:
    """Return the random numbers of a stream, below 2^16, as a function of places.

    Args:
        key: 64 bits, of a stream that is used for nothing else.

    Returns:
        From the first place, a multiple of 4, and how many, at most `CHUNK`, to (number,),
        uint16, which the next call writes over.
    """
    count = np.arange(CHUNK // 4, dtype=np.uint64)
    drawn, spare = np.empty_like(count), np.empty_like(count)

    def at(begin: int, number: int) -> np.ndarray:
        # `rng.mix_array` of place and key, in the same memory each time: new one takes longer.
        words, shifted = drawn[: -(-number // 4)], spare[: -(-number // 4)]
        np.add(count[: len(words)], np.uint64(begin // 4), out=words)
        words ^= np.uint64(key)
        words += np.uint64(rng.GAMMA)
        words ^= np.right_shift(words, np.uint64(30), out=shifted)
        words *= np.uint64(rng.MIX_1)
        words ^= np.right_shift(words, np.uint64(27), out=shifted)
        words *= np.uint64(rng.MIX_2)
        words ^= np.right_shift(words, np.uint64(31), out=shifted)
        return words.view(np.uint16)[:number]

    return at


def inner(first: Tensor, second: Tensor) -> float:
    """Return the inner product of float32 vectors, to the same bits for any number of threads."""
    a, b = first.numpy(), second.numpy()
    whole = len(a) // _ROW * _ROW
    rows = np.einsum("ij,ij->i", a[:whole].reshape(-1, _ROW), b[:whole].reshape(-1, _ROW))
    return float(rows.sum(dtype=np.float64) + np.einsum("i,i->", a[whole:], b[whole:]))


def pieces(size: int, block: int) -> Iterator[tuple[slice, slice]]:
    """Cut a vector into pieces of about `CHUNK` numbers that hold whole blocks or lie in one.

    Yields:
        Where a piece's numbers are, and its blocks.
    """
    if block >= CHUNK:
        for index, begin in enumerate(range(0, size, block)):
            end = min(begin + block, size)
            for at in range(begin, end, CHUNK):
                yield slice(at, min(at + CHUNK, end)), slice(index, index + 1)
        return
    whole = size // block * block
    step = CHUNK // block * block
    for at in range(0, whole, step):
        end = min(at + step, whole)
        yield slice(at, end), slice(at // block, end // block)
    if whole < size:
        yield slice(whole, size), slice(whole // block, whole // block + 1)


def _widths(bits: int) -> list[int]:
    """Return the planes of codes, lowest bits first."""
    return [8] * (bits // 8) + [width for width in (4, 2, 1) if bits % 8 & width]


def _plane_size(size: int, width: int) -> int:
    return -(-size * width // 8)


def _fold(plane: Tensor, width: int, out: Tensor) -> None:
    """Lay a plane's parts over each other."""
    length = len(out)
    out.copy_(plane[:length])
    for part in range(1, 8 // width):
        over = plane[part * length : (part + 1) * length]
        out[: len(over)] |= over << part * width


def _unfold(data: Tensor, width: int) -> Tensor:
    """Return a plane's codes, and some more at its end."""
    if width == 8:
        return data
    parts = torch.empty(8 // width, len(data), dtype=torch.uint8)
    for part in range(8 // width):
        torch.bitwise_right_shift(data, part * width, out=parts[part])
    return parts.bitwise_and_((1 << width) - 1).view(-1)
