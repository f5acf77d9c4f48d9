"""Masks: the key stream of what a seed hashes to, whatever the chunk; they come off to the bit."""

import hashlib

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from folkmoot.secagg import masks
from folkmoot.secagg.primitives import counter_mode

SEED = bytes(range(32))
HASHED = hashlib.sha256(b"folkmoot secure sum 1, mask" + SEED).digest()
KNOWN = np.frombuffer(counter_mode(HASHED[:16], HASHED[16:28]).update(bytes(32)), "<u4").tolist()


def expanded(seed, shapes, **options):
    vectors = masks.zeros(shapes)
    masks.add_masks(vectors, [seed], **options)
    return vectors


def test_a_mask_is_a_key_stream_in_little_endian_words():
    [words] = expanded(SEED, [(8, 32)])

    assert words.dtype == np.uint32
    assert words.tolist() == KNOWN


def test_a_long_mask_is_the_key_stream_of_counter_mode():
    key, nonce = HASHED[:16], HASHED[16:28]
    first = int.from_bytes(nonce + (2).to_bytes(4, "big"), "big")
    cipher = Cipher(algorithms.AES(key), modes.CTR(first.to_bytes(16, "big"))).encryptor()

    [words] = expanded(SEED, [(1_000_001, 32)])

    assert words.tobytes() == cipher.update(bytes(4 * 1_000_001))


@pytest.mark.parametrize("bits", [16, 64])
def test_other_widths_read_the_same_stream(bits):
    [words] = expanded(SEED, [(8 * 32 // bits, bits)])

    stream = sum(word << 32 * at for at, word in enumerate(KNOWN))
    assert words.tolist() == [
        stream >> bits * at & ((1 << bits) - 1) for at in range(8 * 32 // bits)
    ]


@pytest.mark.parametrize("chunk_bytes", [8, 16, 24, 1000, 4096, 1 << 16])
def test_the_size_of_a_chunk_changes_nothing(chunk_bytes):
    shapes = [(1001, 16), (3, 64), (0, 32), (2500, 32)]
    expected = expanded(SEED, shapes)

    found = expanded(SEED, shapes, chunk_bytes=chunk_bytes)

    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_vectors_continue_one_stream():
    [whole] = expanded(SEED, [(8, 32)])

    first, second = expanded(SEED, [(5, 32), (3, 32)])

    assert np.concatenate([first, second]).tolist() == whole.tolist()


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_what_was_added_comes_off_to_the_bit(bits):
    seeds = [bytes([i]) * 32 for i in range(200)]
    vectors = [np.arange(777, dtype=f"u{bits // 8}")]

    masks.add_masks(vectors, seeds[:150], seeds[150:])
    hidden = vectors[0].copy()
    masks.add_masks(vectors, seeds[150:], seeds[:150])

    assert (hidden != np.arange(777)).any()
    assert (vectors[0] == np.arange(777)).all()


def test_a_mask_hangs_on_every_bit_of_its_seed():
    whole = int.from_bytes(SEED, "little")
    turned = [(whole ^ 1 << bit).to_bytes(32, "little") for bit in range(256)]

    streams = {expanded(seed, [(4, 32)])[0].tobytes() for seed in [SEED, *turned]}

    assert len(streams) == 257


def test_global_seeds_change_no_mask():
    found = []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        found.append(expanded(SEED, [(64, 32)])[0].tolist())

    assert found[0] == found[1]
