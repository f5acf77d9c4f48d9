"""Masks: known answers, whatever the chunk; they come off again to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from folkmoot.secagg import masks

FILE = Path(__file__).parents[1] / "vectors/secagg_primitives.json"
VECTORS = json.loads(FILE.read_text("utf-8"))
KNOWN = VECTORS["aes128_ctr_zero_iv_key_000102..0f_u32le"]
SEED = bytes(range(16)) + bytes(16)  # The key, and the first counter.


def expanded(seed, shapes, **options):
    vectors = masks.zeros(shapes)
    masks.add_masks(vectors, [seed], **options)
    return vectors


def test_a_mask_is_the_known_key_stream_in_little_endian_words():
    [words] = expanded(SEED, [(16, 32)])

    assert words.dtype == np.uint32
    assert words.tolist() == KNOWN


def test_a_long_mask_is_the_known_key_stream_at_its_end():
    [words] = expanded(SEED, [(1_000_001, 32)])

    assert words[1_000_000] == VECTORS["aes128_ctr_word_index_1000000"]


def test_the_second_half_of_a_seed_is_where_the_counter_begins():
    later = SEED[:16] + (2).to_bytes(16, "big")

    # Two blocks of four words further on.
    assert expanded(later, [(8, 32)])[0].tolist() == KNOWN[8:]


@pytest.mark.parametrize("bits", [16, 64])
def test_other_widths_read_the_same_stream(bits):
    [words] = expanded(SEED, [(16 * 32 // bits, bits)])

    stream = sum(word << 32 * at for at, word in enumerate(KNOWN))
    assert words.tolist() == [
        stream >> bits * at & ((1 << bits) - 1) for at in range(16 * 32 // bits)
    ]


@pytest.mark.parametrize("chunk_bytes", [8, 16, 24, 1000, 4096, 1 << 16])
def test_the_size_of_a_chunk_changes_nothing(chunk_bytes):
    shapes = [(1001, 16), (3, 64), (0, 32), (2500, 32)]
    expected = expanded(SEED, shapes)

    found = expanded(SEED, shapes, chunk_bytes=chunk_bytes)

    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_vectors_continue_one_stream():
    [whole] = expanded(SEED, [(16, 32)])

    first, second = expanded(SEED, [(5, 32), (11, 32)])

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
