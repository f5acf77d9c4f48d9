"""Quantize: numbers become a few bits each, rounded up or down by lot, so that sums are unbiased.

Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding", NeurIPS 2017, arXiv:1610.02132; Wen et al., "TernGrad", NeurIPS 2017,
arXiv:1705.07878, without its clipping and by one scale for all layers; Horvath et al., "Natural
Compression for Distributed Deep Learning", MSML 2022, arXiv:1905.10988. The paper on QSGD codes
its integers by Elias' code; here they have a fixed length, and `entropy_coded` makes them shorter.

A number is rounded up with a chance of what is beyond the step below, met to 2^-16. Lots follow
from the client's key. A block that holds NaN or an infinity arrives with no finite number.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.lossy import lossy
from folkmoot.codecs.packing import CHUNK, inner, lots, packed, pieces, unpacked
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree

_MOST_BITS = 16
_LEAST_BLOCK = 8
GUARD = 1 + 2.0**-18
"""Float32 arithmetic lengthens nothing by more."""
_TINY = 2.0**-100
"""One over a number is finite in float32 from here on, in steps of a 2^-16th."""
_SHRINK = 1 - 2.0**-22
"""So that nothing is rounded beyond the last step; as much as float32 tells apart."""
Norm = Literal["max", "l2"]


def quantize(bits: int, *, block: int | None = None) -> Codec:
    """Round each number, by lot, to one of 2^bits that are evenly spread over its block's range.

    Unbiased. A coordinate moves by less than a step, 2 m / (2^bits - 1) with m the block's largest
    absolute number, and by a variance of at most a quarter of that squared: NMSE is at most
    d m^2 / ((2^bits - 1)^2 ||x||^2), for d numbers in a block. One number that is far larger than
    the others spoils its block; `rotate()` in front spreads it. No step lies at 0, so zeros
    arrive as small numbers: `qsgd` keeps them.

    What this does to the bounds: `l2` grows to the worst case, a step in every coordinate.

    Args:
        bits: Of a number, from 1 to 16, plus 32 for each block.
        block: Numbers that share one scale, at least 8; None for all.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: If a number is out of range. At `init`: if noise stands in front.
    """
    whole_number(_MOST_BITS, bits=bits)
    name = f"quantize({bits}{'' if block is None else f', block={block}'})"
    return _stochastic(name, (2**bits - 1) / 2, block, "max")


def qsgd(levels: int, *, block: int | None = 512) -> Codec:
    """Round each number, by lot, to a multiple of its block's L2 norm over the number of levels.

    Unbiased; zeros stay zeros. NMSE is at most min(d / s^2, sqrt(d) / s) for s levels and blocks of
    d numbers. Takes the bits of 2 s + 1 values, and 32 for each block; most are 0 or near it, so
    `entropy_coded()` behind it pays.

    What this does to the bounds: `l2` grows to the worst case.

    Args:
        levels: s, from 1 to 32,767.
        block: d, numbers that share one norm, at least 8; None for all.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: If a number is out of range. At `init`: if noise stands in front.

    Source: Alistarh et al., NeurIPS 2017, arXiv:1610.02132, section 3.1 and theorem 3.2.
    """
    whole_number(2 ** (_MOST_BITS - 1) - 1, levels=levels)
    return _stochastic(f"qsgd({levels}, block={block})", float(levels), block, "l2")


def ternary(*, block: int | None = None) -> Codec:
    """Round each number, by lot, to 0 or to plus or minus its block's largest absolute number m.

    Unbiased; NMSE is m ||x||_1 / ||x||^2 - 1, at most sqrt(d) - 1 for d numbers in a block. Two
    bits a number, and 32 for each block; most numbers become 0, so `entropy_coded()` pays.

    What this does to the bounds: `l2` grows by the root of d.

    Args:
        block: Numbers that share one scale, at least 8; None for all.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: If `block` is out of range. At `init`: if noise stands in front.

    Source: Wen et al., NeurIPS 2017, arXiv:1705.07878, section 3.
    """
    name = f"ternary({'' if block is None else f'block={block}'})"
    return _stochastic(name, 1.0, block, "max")


def _stochastic(name: str, half: float, block: int | None, norm: Norm) -> Codec:
    """Build a stage that rounds to `half` steps on each side of 0, up to a block's norm."""
    if block is not None:
        whole_number(None, block=block)
        if block < _LEAST_BLOCK:
            raise SettingsError(f"block must be at least {_LEAST_BLOCK}, but is {block!r}.")
    bits = int(2 * half).bit_length()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        most = min(bounds.largest, bounds.l2)
        within = min(block or bounds.size, bounds.size)
        l2 = bounds.l2 * min(1 + math.sqrt(bounds.size) / half, math.sqrt(max(within, 1)))
        largest = most if norm == "max" else min(bounds.l2, most * (1 + math.sqrt(within) / half))
        return {"size": torch.tensor(bounds.size)}, bounds._replace(
            l2=l2 * GUARD, largest=largest * GUARD
        )

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        width = block or max(len(vector), 1)
        scales = norms(vector, width, norm)
        codes = _codes(vector.numpy(), scales.numpy(), width, half, key)
        codes = _zigzag(codes, half) if half.is_integer() else codes
        return {"vector": packed(codes, bits), "scales": scales}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        size = int(state["size"])
        codes = unpacked(message["vector"], bits, size)
        codes = _zigzag_back(codes, half) if half.is_integer() else codes
        return _numbers(codes, message["scales"].numpy(), block or max(size, 1), half)

    return lossy(name, init, pack, unpack)


def norms(vector: Tensor, block: int, norm: Norm) -> Tensor:
    """Return the norm of each block, (blocks,), float32; NaN or infinite where there is such."""
    whole = len(vector) // block * block
    parts = (vector[:whole].view(-1, block), vector[whole:].view(1, -1))
    found = [_norm_of_rows(part, norm) for part in parts if part.numel()]
    return torch.cat(found) if found else torch.zeros(0)


def _norm_of_rows(rows: Tensor, norm: Norm) -> Tensor:
    if norm == "max":
        return torch.maximum(rows.amax(1), -rows.amin(1))
    if len(rows) == 1:
        square = inner(rows[0], rows[0])
        if _TINY < square < 1 / _TINY:
            return torch.tensor([square]).sqrt()
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return lengths.float()


def _codes(vector: np.ndarray, scales: np.ndarray, block: int, half: float, key: int) -> np.ndarray:
    """Return which step each number is rounded to, (size,), from 0 to 2 * half."""
    drawn = lots(rng.mix(key ^ rng.label("quantize")))
    positive = scales[scales > 0]
    # One over a tiny scale is no float32.
    dtype = np.float64 if positive.size and positive.min() < _TINY else np.float32
    codes = np.empty(len(vector), dtype=np.uint8 if half < 128 else np.uint16)
    steps_of: Any = np.empty(CHUNK, dtype)
    lots_of: Any = np.empty(CHUNK, dtype)
    with np.errstate(all="ignore"):
        inverse = np.where(scales == 0, 0, _SHRINK * half / scales.astype(np.float64))
        inverse = inverse.astype(dtype)
        for part, blocks in pieces(len(vector), block):
            rows = blocks.stop - blocks.start
            steps, lot = steps_of[: part.stop - part.start], lots_of[: part.stop - part.start]
            np.multiply(
                vector[part].reshape(rows, -1), inverse[blocks, None], out=steps.reshape(rows, -1)
            )
            np.copyto(lot, drawn(part.start, len(lot)))
            lot *= 2.0**-16
            lot += half
            steps += lot
            if half >= 128:
                # A lot this far from 0 is rounded itself, to 1 at times.
                np.clip(steps, 0, 2 * half, out=steps)
            np.copyto(codes[part], steps, casting="unsafe")
    return codes


def _numbers(codes: np.ndarray, scales: np.ndarray, block: int, half: float) -> Tensor:
    """Return the numbers that codes stand for, (size,), float32."""
    found = np.empty(len(codes), dtype=np.float32)
    with np.errstate(all="ignore"):
        for part, blocks in pieces(len(codes), block):
            numbers = found[part]
            np.copyto(numbers, codes[part])
            numbers -= half
            numbers *= 1 / half
            rows = numbers.reshape(blocks.stop - blocks.start, -1)
            np.multiply(rows, scales[blocks, None], out=rows)
    return torch.from_numpy(found)


def _zigzag(codes: np.ndarray, half: float) -> np.ndarray:
    """Number the steps 0, -1, 1, -2, 2, ... from the middle one, so that most high bits are 0."""
    signed = np.dtype(f"i{codes.itemsize}")
    steps = (codes - codes.dtype.type(half)).view(signed)
    found: np.ndarray = ((steps << 1) ^ (steps >> (8 * codes.itemsize - 1))).view(codes.dtype)
    return found


def _zigzag_back(codes: np.ndarray, half: float) -> np.ndarray:
    """Undo `_zigzag`."""
    one = codes.dtype.type(1)
    found: np.ndarray = (codes >> one ^ -(codes & one)) + codes.dtype.type(half)
    return found


def whole_number(most: int | None, **values: int) -> None:
    """Refuse what is no whole number from 1 on, or above the most, by name and value."""
    for name, value in values.items():
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not fits or (most is not None and value > most):
            until = "on" if most is None else f"to {most}"
            raise SettingsError(f"{name} must be a whole number from 1 {until}, but is {value!r}.")
