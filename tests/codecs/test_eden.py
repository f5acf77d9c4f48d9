"""EDEN: exact where theory is, and as biased as it says where theory ends."""

import math

import pytest
import torch

from folkmoot.codecs import drive, eden
from folkmoot.codecs.eden import _uniform
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout


def ready(codec, size, **known):
    return codec.init(Bounds(size=size, **known), Layout.of({"w": torch.zeros(size)}))


def drawn(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def key_of(client):
    return rng.derive(0, round=1, client=client, purpose="encode")


def test_small_rotations_are_orthogonal_and_uniform():
    found = torch.stack([_uniform(key_of(seed), 3) for seed in range(4000)])

    assert torch.allclose(found.mT @ found, torch.eye(3, dtype=torch.float64), atol=1e-12)
    # Of a uniform rotation each entry has mean 0, square 1/3 and fourth power 1/5.
    for power, mean in ((1, 0.0), (2, 1 / 3), (4, 1 / 5)):
        assert (found**power).mean(0) == pytest.approx(mean, abs=4 / math.sqrt(4000))


@pytest.mark.parametrize("size", [2, 3, 7, 64, 1000])
def test_what_arrives_has_the_vector_itself_as_its_projection(size):
    # <x, x^> = ||x||^2 in every draw: that, and symmetry around x, is why EDEN is unbiased.
    vector = drawn(size)
    for bits in (1, 2, 3, 4):
        state, bounds = ready(eden(bits), size, l2=vector.norm().item())

        found = eden(bits).encode(state, vector, key_of(bits)).double()

        assert (found @ vector.double()).item() == pytest.approx(
            vector.norm().item() ** 2, rel=1e-5
        )
        assert found.norm().item() <= bounds.l2


def test_a_vector_of_two_unlike_numbers_is_where_long_rotations_are_biased():
    # What the page and the docstring say: signs of a + b and a - b are those of a.
    vector = torch.zeros(128)
    vector[3], vector[77] = 1.0, 0.1
    state, _ = ready(drive(), 128)

    found = torch.stack([drive().encode(state, vector, key_of(at)) for at in range(50)])

    assert found[:, 77].abs().max() < 1e-5
    assert found[:, 3] == pytest.approx(1.01, rel=1e-4)
