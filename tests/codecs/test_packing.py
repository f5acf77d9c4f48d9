"""Codes and places take the bytes that they should, and are read back as they were."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.codecs.packing import lots, packed, packed_size, pieces, unpacked
from folkmoot.codecs.places import largest, read, written
from folkmoot.core import rng
from folkmoot.core import tree as trees

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@many
@given(bits=st.integers(1, 32), size=st.integers(0, 400), seed=st.integers(0, 9))
def test_codes_are_read_back_from_few_bytes(bits, size, seed):
    dtype = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    codes = np.random.default_rng(seed).integers(1 << bits, size=size, dtype=np.uint64)
    codes = codes.astype(dtype)

    planes = packed(codes, bits)

    assert planes.dtype == torch.uint8
    assert size * bits / 8 <= len(planes) == packed_size(size, bits) < size * bits / 8 + 3
    found = unpacked(planes, bits, size)
    assert found.dtype == dtype
    assert np.array_equal(found, codes)


def test_lots_are_the_same_from_wherever_they_are_read_and_are_uniform():
    drawn, pages = lots(123), range(0, 100_000, 10_000)
    whole = np.concatenate([drawn(begin, 10_000).copy() for begin in pages])

    assert np.array_equal(drawn(40_000, 1001), whole[40_000:41_001])
    assert not np.array_equal(lots(124)(0, 1000), whole[:1000])
    words = rng.mix_array(np.arange(25_000, dtype=np.uint64) ^ np.uint64(123))
    assert np.array_equal(whole, words.view(np.uint16))
    # The mean of n uniform numbers has a deviation of 1 / sqrt(12 n).
    assert abs(whole.mean() / 2**16 - 0.5) < 4 / math.sqrt(12 * len(whole))
    counts = np.bincount(whole >> 8, minlength=256)
    assert abs(((counts - counts.mean()) ** 2 / counts.mean()).sum() - 255) < 4 * math.sqrt(510)


@many
@given(size=st.integers(0, 100_000), block=st.sampled_from([8, 100, 512, 16384, 30_000, 100_000]))
def test_pieces_cover_a_vector_once_and_hold_whole_blocks_or_lie_in_one(size, block):
    end = 0
    for part, blocks in pieces(size, block):
        assert part.start == end
        assert part.start % 4 == 0
        end = part.stop
        inside = range(part.start // block, (part.stop - 1) // block + 1)
        assert (blocks.start, blocks.stop) == (inside.start, inside.stop)
        if len(inside) > 1:
            assert (part.stop - part.start) == len(inside) * block
    assert end == size


def sorted_first(values, number):
    """Places of the largest values by a stable sort."""
    order = np.argsort(-values.astype(np.float64), kind="stable")
    return np.sort(order[:number])


@many
@given(
    size=st.integers(0, 300),
    share=st.floats(0, 1),
    values=st.sampled_from(["all", "few", "one", "ascending"]),
    seed=st.integers(0, 9),
)
def test_the_largest_are_those_of_a_stable_sort(size, share, values, seed):
    draw = np.random.default_rng(seed)
    made = {
        "all": draw.random(size),
        "few": draw.integers(3, size=size),
        "one": np.ones(size),
        "ascending": np.arange(size),
    }[values].astype(np.float32)
    number = min(max(round(share * size), 1), size)

    assert np.array_equal(largest(made, number), sorted_first(made, number))


@pytest.mark.parametrize("number", [1, 50, 5000, 99_999])
@pytest.mark.parametrize("period", [1, 12, 13])
def test_vectors_whose_sample_misleads_give_the_same(number, period):
    # Long enough to be sampled, and large only where the sample does not look, or only there.
    values = np.random.default_rng(0).random(100_000).astype(np.float32)
    values[::period] += 1
    hidden = values.copy()
    hidden[::12] = 0

    for each in (values, hidden, np.zeros_like(values)):
        assert np.array_equal(largest(each, number), sorted_first(each, number))


@many
@given(size=st.integers(1, 5000), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_places_are_read_back_from_as_few_bytes_as_they_need(size, share, seed):
    number = max(round(share * size), 1)
    places = np.sort(np.random.default_rng(seed).choice(size, number, replace=False))

    leaves = written(places, size)

    assert np.array_equal(read(leaves, size, number), places)
    length = sum(leaf.numel() for leaf in trees.leaves(leaves))
    # A bit for each number of the vector, or Elias and Fano's 2 + log2(size / number) for a place.
    most = number * (2 + math.log2(size / number)) / 8 + 5
    assert length <= min(-(-size // 8), most)
