"""Rotations: orthonormal, their own way back, and flat whatever vector they are given."""

import math

import numpy as np
import pytest
import torch

from folkmoot.codecs import gaussian, rotate
from folkmoot.codecs.rotate import FLATNESS, _signs, hadamard_, rotated, rotated_back
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError

SMALL = range(71)
POWERS = [2**k + near for k in range(7, 17) for near in (-1, 0, 1)]
LARGE = [*POWERS, 10**5]
GROWTH = 1 + 2.0**-12


def ready(size, l2=1.0):
    bounds = Bounds(l2=l2, weight=1.0, clients=10, size=size)
    return rotate().init(bounds, Layout.of({"w": torch.zeros(size)}))


def signs(turn, place, size):
    return _signs(turn, place, size).double()


def walsh(size):
    """The orthonormal Hadamard matrix by its closed form: (-1)^(common binary digits)."""
    index = np.arange(size)
    common = np.bitwise_count(index[:, None] & index[None, :])
    return torch.from_numpy((1.0 - 2.0 * (common % 2)) / math.sqrt(size))


def matrix_of(size, turn):
    """The whole rotation as one matrix in float64: signs, a block in front, a block behind."""
    block = 2 ** int(math.log2(size))
    first, last = torch.eye(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    first[:block, :block] = walsh(block)
    if block < size:
        last[-block:, -block:] = walsh(block) * signs(turn, 1, block)
    return last @ (first * signs(turn, 0, size))


def shapes_of_vectors(size):
    """Unit vectors of all characters."""
    draw = torch.Generator().manual_seed(size)
    block = 2 ** int(math.log2(size))
    found = {
        "first": torch.eye(1, size)[0],
        "last": torch.eye(1, size)[0].flip(0),
        "middle": torch.roll(torch.eye(1, size)[0], size // 2),
        "constant": torch.ones(size),
        "alternating": torch.ones(size).index_fill(0, torch.arange(0, size, 2), -1.0),
        "random": torch.randn(size, generator=draw),
        "one block": torch.cat([torch.ones(block), torch.zeros(size - block)]),
        "behind the block": torch.cat([torch.zeros(block - 1), torch.ones(size - block + 1)]),
        "a Walsh function": torch.cat([walsh_row(block, block // 3), torch.zeros(size - block)]),
    }
    return {name: vector / vector.norm() for name, vector in found.items()}


def walsh_row(size, row):
    common = np.bitwise_count(np.arange(size) & row)
    return torch.from_numpy(1.0 - 2.0 * (common % 2)).float()


@pytest.mark.parametrize("bits", range(12))
def test_the_transform_is_the_product_with_the_matrix_of_its_closed_form(bits):
    vector = torch.randn(2**bits, generator=torch.Generator().manual_seed(bits))

    found = vector.clone()
    hadamard_(found)

    exact = walsh(2**bits) @ vector.double()
    assert (found.double() - exact).norm() <= 2.0**-20 * vector.norm()


@pytest.mark.parametrize("turn", [0, 1, 12_345])
def test_a_rotation_is_an_orthonormal_matrix_of_two_blocks(turn):
    for size in SMALL[2:]:
        matrix = matrix_of(size, turn)
        found = torch.stack([rotated(unit, turn) for unit in torch.eye(size)], dim=1)

        torch.testing.assert_close(found.double(), matrix, rtol=0, atol=1e-6)
        identity = torch.eye(size, dtype=torch.float64)
        torch.testing.assert_close(matrix.T @ matrix, identity, rtol=0, atol=1e-12)


def test_what_is_rotated_comes_back():
    for size in [*SMALL, *LARGE]:
        vector = torch.randn(size, generator=torch.Generator().manual_seed(size))

        found = rotated_back(rotated(vector, 3), 3)

        assert found.shape == vector.shape
        assert (found - vector).norm() <= 2e-6 * vector.norm()


@pytest.mark.parametrize("size", [2, 3, 33, 70, *LARGE])
def test_no_vector_grows_by_more_than_rounding_is_said_to(size):
    for vector in shapes_of_vectors(size).values():
        before = vector.double().norm()

        assert rotated(vector, 1).double().norm() <= before * GROWTH
        assert rotated_back(vector, 1).double().norm() <= before * GROWTH


@pytest.mark.parametrize("size", [2, 3, 5, 33, 70, *LARGE])
def test_no_coordinate_is_longer_than_is_stated_of_any_vector(size):
    _, bounds = ready(size)

    for vector in shapes_of_vectors(size).values():
        for turn in range(3):
            assert rotated(vector, turn).abs().max() <= bounds.largest


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 100, 10**5])
@pytest.mark.parametrize("l2", [1.0, 0.01, 300.0])
def test_the_bounds_behind_are_those_of_the_largest_power_within(size, l2):
    _, bounds = ready(size, l2)

    block = 2 ** int(math.log2(size))
    assert bounds.l2 == pytest.approx(l2 * GROWTH, rel=1e-15)
    # No coordinate is longer than its vector.
    assert bounds.largest == pytest.approx(min(FLATNESS * l2 / math.sqrt(block), l2 * GROWTH))
    assert bounds.size == size


def test_vectors_of_nothing_and_of_one_number_stay_as_they_are():
    _, bounds = ready(0)

    assert rotated(torch.zeros(0), 0).shape == (0,)
    assert rotated(torch.tensor([3.0]), 5).tolist() == [3.0]
    assert math.isfinite(bounds.largest)


def test_a_decoded_sum_is_the_sum_in_every_round():
    size, codec = 1000, rotate()
    state, _ = ready(size)
    draw, seen = torch.Generator().manual_seed(0), []

    for turn in range(3):
        given = [torch.randn(size, generator=draw) for _ in range(7)]
        sent = [codec.encode(state, vector, client) for client, vector in enumerate(given)]
        found, state = codec.decode(state, sum(sent), 0)
        seen.append(codec.encode({"turn": torch.tensor(turn)}, given[0], 0))

        exact = torch.stack(given).double().sum(0)
        assert (found.double() - exact).norm() <= 2e-6 * sum(vector.norm() for vector in given)
        assert torch.equal(seen[turn], sent[0])
        assert state["turn"].item() == turn + 1


def test_signs_are_fair_and_new_in_every_turn_and_place():
    size = 2**16
    drawn = [signs(turn, place, size) for turn in (0, 1, 2, 1000) for place in (0, 1)]

    for at, one in enumerate(drawn):
        assert set(one.unique().tolist()) == {-1.0, 1.0}
        assert abs(one.mean()) < 5 / math.sqrt(size)
        for other in drawn[:at]:
            assert abs((one * other).mean()) < 5 / math.sqrt(size)
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0))
    turned = [rotated(vector, turn) for turn in (0, 1)]
    assert abs((turned[0] * turned[1]).mean()) < 5 * vector.square().mean() / math.sqrt(size)


@pytest.mark.parametrize("size", [0, 1, 64, 100])
def test_nothing_that_is_given_is_written_to(size):
    codec, vector = rotate(), torch.arange(size).float()
    state, _ = ready(size)
    kept = vector.clone()

    sent = codec.encode(state, vector, 0)
    codec.decode(state, vector, 0)
    sent.add_(1)

    assert torch.equal(vector, kept)


def test_a_rotation_behind_noise_is_refused():
    bounds = Bounds(l2=1.0, weight=1.0, clients=10, size=10)

    with pytest.raises(SettingsError, match="rotate stands behind a stage that adds noise"):
        chain(gaussian(1.0), rotate()).init(bounds, Layout.of({"w": torch.zeros(10)}))
