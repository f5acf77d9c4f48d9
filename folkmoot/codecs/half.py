"""Half: 16 bits a number, rounded to the nearest.

Of bfloat16's 16 bits 8 hold the range of float32 and 7 the fraction; of IEEE half precision's 5
and 10. Rounding to the nearest is the same each time, so its error has no mean of 0 over clients
who send the same; it is small.
"""

import math

import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.lossy import lossy
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree

_TOP_EXPONENT = 15
"""Largest numbers are brought to [2^14, 2^15); half precision ends at 65,504."""
_MOST_EXPONENT = 126
_TINY_STEP = 2.0**-133
"""Of bfloat16, below 2^-126."""


def bf16() -> Codec:
    """Round each number to bfloat16.

    Biased by rounding to the nearest: a number moves by less than 2^-8 of itself, so NMSE is below
    2^-16; below 2^-126 it moves by up to 2^-134. 16 bits a number. NaN and infinities stay as they
    are. Finite numbers above 3.39e38 become infinite.

    What this does to the bounds: `l2` and `largest` grow by 2^-8, and by what tiny numbers move.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: At `init`: if noise stands in front.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy("bf16", bounds)
        grown = 1 + 2.0**-8
        l2 = bounds.l2 * grown + _TINY_STEP * math.sqrt(bounds.size)
        return {}, bounds._replace(l2=l2, largest=bounds.largest * grown + _TINY_STEP)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        return {"vector": vector.bfloat16()}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        found: Tensor = message["vector"].float()
        return found

    return lossy("bf16", init, pack, unpack)


def fp16() -> Codec:
    """Round each number to half precision, by one scale for the whole vector.

    The scale is the power of two that brings the largest number to [2^14, 2^15), so that none is
    beyond 65,504, and updates of 10^-6 use all bits. Biased by rounding to the nearest: a number
    moves by less than 2^-11 of itself, or by 2^-39 of the largest where that is more. 16 bits a
    number, and 32. Where a number is NaN or infinite no finite one arrives.

    What this does to the bounds: `l2` and `largest` grow by 2^-10, or by 2^-38 a coordinate's root.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: At `init`: if noise stands in front.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy("fp16", bounds)
        grown = 1 + 2.0**-10 + 2.0**-38 * math.sqrt(bounds.size)
        return {}, bounds._replace(l2=bounds.l2 * grown, largest=bounds.largest * grown)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        scale = power_above(vector) * 2.0**-_TOP_EXPONENT
        return {"vector": (vector * (1 / scale)).half(), "scale": torch.tensor([scale])}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        found: Tensor = message["vector"].float()
        return found.mul_(message["scale"])

    return lossy("fp16", init, pack, unpack)


def power_above(vector: Tensor) -> float:
    """Return the power of two above all numbers of a vector; at least 2^-111, NaN if one is none.

    Divided by it a vector is exact in float32, and neither its squares nor their sum overflow.
    """
    if not len(vector):
        return 1.0
    largest = max(float(vector.amax()), -float(vector.amin()))
    if not math.isfinite(largest) or math.isnan(float(vector.amin())):
        return math.nan
    return 2.0 ** max(math.frexp(largest)[1], _TOP_EXPONENT - _MOST_EXPONENT)
