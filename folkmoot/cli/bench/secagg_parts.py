"""What a secure sum is made of, measured by itself: masks, and whole numbers in place of floats."""

import os
import statistics
from time import process_time
from typing import Any

import numpy as np
import torch

from folkmoot.codecs import clip, rotate, to_field
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.secagg.masks import CHUNK_BYTES, add_masks

_MASKS, _CLIENTS = 35, 100
_STREAM_BAR = 1.5


def parts(numbers: int, times: int) -> dict[str, Any]:
    """Return the figures, as plain JSON.

    Args:
        numbers: Length of a vector.
        times: Medians are over so many.
    """
    pairs = [(_added_s(numbers), _stream_s(4 * numbers)) for _ in range(times)]
    ratio = statistics.median(ours / raw for ours, raw in pairs)
    return {
        "mask_ms": 1e3 * statistics.median(ours for ours, _ in pairs),
        "stream_ms": 1e3 * statistics.median(raw for _, raw in pairs),
        "mask_by_stream": ratio,
        "bar": _STREAM_BAR,
        "holds": ratio <= _STREAM_BAR,
        "encode_ms": {f"{bits}": 1e3 * _encode_s(numbers, bits, times) for bits in (32, 16)},
    }


def _added_s(numbers: int) -> float:
    """Return the seconds in which one mask is made and added to a vector, as a client does it."""
    total, seeds = [np.zeros(numbers, dtype=np.uint32)], [os.urandom(32) for _ in range(_MASKS)]
    begun = process_time()
    add_masks(total, seeds)
    return (process_time() - begun) / _MASKS


def _stream_s(size: int) -> float:
    """Return the seconds for so many bytes of AES-128's counter mode, which nothing is done with.

    The fastest mode of its kind that the library has by that name; in pieces that stay in cache.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    keys = [(os.urandom(16), os.urandom(16)) for _ in range(_MASKS)]
    blank, buffer = bytes(CHUNK_BYTES), bytearray(CHUNK_BYTES + 16)
    begun = process_time()
    ciphers = [Cipher(algorithms.AES(key), modes.CTR(at)).encryptor() for key, at in keys]
    for at in range(0, size, CHUNK_BYTES):
        piece = memoryview(blank)[: size - at]
        for cipher in ciphers:
            cipher.update_into(piece, buffer)
    return (process_time() - begun) / _MASKS


def _encode_s(numbers: int, bits: int, times: int) -> float:
    """Return the seconds in which a client clips, rotates and rounds its update."""
    stages = chain(clip(1.0), rotate(), to_field(bits=bits))
    layout = Layout.of({"w": torch.zeros(numbers)})
    known = Bounds(weight=1.0, clients=_CLIENTS, size=numbers, expected=_CLIENTS)
    state, _ = stages.init(known, layout)
    update = torch.randn(numbers, generator=torch.Generator().manual_seed(0))
    taken, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    for key in range(times + 1):
        vector = update.clone()
        begun = process_time()
        stages.encode(state, vector, key)
        taken.append(process_time() - begun)
    torch.set_num_threads(threads)
    return statistics.median(taken[1:])
