"""Natural compression: every number becomes one of the powers of two around it, by lot.

Horvath, Ho, Horvath, Sahu, Canini, Richtarik, "Natural Compression for Distributed Deep Learning",
MSML 2022, arXiv:1905.10988. In float32 that is an addition: random bits are added to the fraction,
which then is cut off, and the exponent has taken the carry with the right chance.
"""

import math

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.lossy import lossy
from folkmoot.codecs.packing import CHUNK, lots, packed, unpacked
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree

_FRACTION, _BITS = 23, 9
_LOT_BITS = 16
_LEAST = 2.0**-126
_INFINITY = np.uint32(0x7F800000)


def natural() -> Codec:
    """Round each number, by lot, to one of the two powers of two around it, or to 0 below 2^-126.

    Unbiased, by chances that are met to 2^-16; NMSE is at most 1/8, of Gaussian numbers 0.0815. 9
    bits a number, and nothing else: small numbers keep their relative precision beside large ones.
    NaN becomes infinite; numbers above 2^127 may.

    What this does to the bounds: `l2` and `largest` double, and grow by what tiny numbers move.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: At `init`: if noise stands in front.

    Source: Horvath et al., MSML 2022, arXiv:1905.10988, definition 1 and theorem 1.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy("natural", bounds)
        state = {"size": torch.tensor(bounds.size)}
        l2 = 2 * bounds.l2 + _LEAST * math.sqrt(bounds.size)
        return state, bounds._replace(l2=l2, largest=2 * bounds.largest + _LEAST)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        drawn = lots(rng.mix(key ^ rng.label("natural")))
        bits = vector.contiguous().numpy().view(np.uint32)
        codes = np.empty(len(bits), dtype=np.uint16)
        for begin in range(0, len(bits), CHUNK):
            part = bits[begin : begin + CHUNK]
            added = drawn(begin, len(part)).astype(np.uint32)
            added <<= np.uint32(_FRACTION - _LOT_BITS)
            # A carry out of the largest exponent would turn NaN into a zero.
            added[(part & _INFINITY) == _INFINITY] = 0
            added += part
            added >>= np.uint32(_FRACTION)
            codes[begin : begin + CHUNK] = added
        return {"vector": packed(codes, _BITS)}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        codes = unpacked(message["vector"], _BITS, int(state["size"])).astype(np.uint32)
        return torch.from_numpy((codes << np.uint32(_FRACTION)).view(np.float32))

    return lossy("natural", init, pack, unpack)
