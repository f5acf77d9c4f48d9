"""Masks: seeds of 32 bytes, stretched to words that look uniform, added to vectors in place.

A mask is the key stream of AES-128 in counter mode, under what its seed hashes to, read as
little-endian words of the vector's width, all vectors one after the other. It is the same on every
machine. Words wrap around at 2^16, 2^32 or 2^64.
"""

from collections.abc import Sequence

import numpy as np

from folkmoot.secagg.primitives import keystream

CHUNK_BYTES = 1 << 18
"""Masks are added a piece at a time, all masks to one piece before the next: vector and key stream
then stay in a core's own cache."""

_GROUP = 128
"""Masks expanded side by side; each keeps a cipher open."""


def zeros(shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Return vectors of zeros.

    Args:
        shapes: Length and bits (16, 32 or 64) of each.

    Returns:
        One (length,) vector each, uint16, uint32 or uint64.
    """
    return [np.zeros(length, dtype=f"u{bits // 8}") for length, bits in shapes]


def add_masks(
    vectors: Sequence[np.ndarray],
    plus: Sequence[bytes],
    minus: Sequence[bytes] = (),
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Add the masks of some seeds to vectors, and subtract those of others, in place.

    Args:
        vectors: (length,) each, uint16, uint32 or uint64, contiguous.
        plus: Seeds of 32 bytes, whose masks are added.
        minus: Seeds whose masks are subtracted.
        chunk_bytes: Bytes of key stream made at a time, a multiple of 8; it changes no result.
    """
    signed = [(seed, np.add) for seed in plus] + [(seed, np.subtract) for seed in minus]
    blank, buffer = bytes(chunk_bytes), np.empty(chunk_bytes + 16, dtype=np.uint8)
    for begin in range(0, len(signed), _GROUP):
        ciphers = [(keystream(seed), apply) for seed, apply in signed[begin : begin + _GROUP]]
        for vector in vectors:
            words = buffer[:chunk_bytes].view(vector.dtype.newbyteorder("<"))
            for at in range(0, len(vector), len(words)):
                piece = vector[at : at + len(words)]
                nothing, mask = memoryview(blank)[: piece.nbytes], words[: len(piece)]
                for cipher, apply in ciphers:
                    cipher.update_into(nothing, buffer)
                    apply(piece, mask, out=piece)
