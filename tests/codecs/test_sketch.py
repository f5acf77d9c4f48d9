"""Sketches and random places: shared by turn, linear, and within their bounds."""

import math

import pytest
import torch

from folkmoot.codecs import count_sketch, random_k
from folkmoot.codecs.sparsify import places_of
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError


def ready(codec, size, **known):
    return codec.init(Bounds(size=size, **known), Layout.of({"w": torch.zeros(size)}))


def drawn(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_a_sketch_of_a_sum_is_the_sum_of_sketches_and_finds_what_is_large():
    codec, size = count_sketch(200, rows=5), 10_000
    state, bounds = ready(codec, size, l2=1.0)
    vectors = [drawn(size, seed) / 1000 for seed in range(3)]
    vectors[0][1234] += 0.9
    vectors[1][777] -= 0.8

    total = sum(codec.encode(state, vector, 0) for vector in vectors)
    found, following = codec.decode(state, total, 0)

    assert torch.allclose(total, codec.encode(state, sum(vectors), 9), atol=1e-5)
    assert total.shape == (bounds.size,) == (1000,)
    assert found[[1234, 777]].tolist() == pytest.approx([0.9, -0.8], abs=0.1)
    assert following["turn"] == 1
    assert codec.linear


def test_no_bucket_of_a_sketch_holds_more_than_its_bound_says():
    # All numbers with the signs that add up: the worst that a bucket can hold.
    codec, size = count_sketch(50, rows=1), 1000
    for turn in range(20):
        state, bounds = ready(codec, size, largest=1.0)
        state["turn"] = torch.tensor(turn)
        counted = torch.stack([codec.encode(state, one, 0) for one in torch.eye(size)]).abs()
        assert counted.sum(1).tolist() == [1.0] * size
        assert counted.sum(0).max() <= bounds.largest


def test_random_places_are_shared_by_turn_and_uniform():
    codec = random_k(count=3)
    state, bounds = ready(codec, 10, l2=5.0)
    counts = torch.zeros(10)
    for turn in range(3000):
        places = places_of(state, turn)
        assert len(set(places.tolist())) == 3
        counts[torch.from_numpy(places)] += 1

    assert (bounds.size, bounds.l2) == (3, 5.0)
    # Chosen with the chance 3/10.
    assert (counts / 3000 - 0.3).abs().max() < 4 * math.sqrt(0.21 / 3000)
    total = sum(codec.encode(state, torch.full((10,), 1.0), key) for key in range(4))
    found, following = codec.decode(state, total, 0)
    assert sorted(found.tolist()) == pytest.approx([0.0] * 7 + [4 * 10 / 3] * 3)
    assert following["turn"] == 1


def test_an_even_number_of_rows_has_no_middle():
    with pytest.raises(SettingsError, match="rows must be odd"):
        count_sketch(10, rows=4)
    assert chain(count_sketch(10), random_k(0.5)).linear
