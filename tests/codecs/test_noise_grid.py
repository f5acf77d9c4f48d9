"""The grid: rounded to the nearest, of a step that follows from public numbers, and never full."""

import math

import pytest
import torch

from folkmoot.codecs.grid import gridded, in_units, rounded
from folkmoot.core.codec import Bounds
from folkmoot.core.errors import SettingsError

BOUNDS = Bounds(l2=1.0, weight=1.0, clients=100, size=1_000, expected=100)


@pytest.mark.parametrize("size", [1, 1_000, 101_770, 25_000_000, 10**9])
@pytest.mark.parametrize("deviation", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("l2", [1.0, 0.01, 300.0])
def test_rounding_lengthens_a_vector_by_at_most_one_in_256_and_noise_spans_1024_steps(
    size, deviation, l2
):
    state, after = gridded("stage", BOUNDS._replace(size=size, l2=l2), deviation)

    steps = state["steps"].item()
    assert after.l2 == l2 + math.sqrt(size) / 2 / steps
    assert after.l2 <= l2 * (1 + 2.0**-8)
    assert deviation * l2 * steps >= 2.0**10
    assert math.log2(steps).is_integer()
    assert state["reach"].item() == pytest.approx(after.l2 * steps, rel=1e-12)


@pytest.mark.parametrize(
    ("clients", "dtype"),
    [(1, torch.int32), (16_000, torch.int32), (40_000, torch.int64), (10**9, torch.int64)],
)
def test_the_sum_of_all_clients_fits_into_its_integers(clients, dtype):
    # 10^5 coordinates want 2^16 steps: 32,000 clients that all say 1 fill 31 bits.
    state, after = gridded("stage", BOUNDS._replace(size=10**5, clients=clients), 1.0)

    assert (state["steps"].item(), state["steps"].dtype) == (2**16, dtype)
    assert clients * after.l2 * 2**16 < torch.iinfo(dtype).max


def test_every_number_goes_to_the_nearest_step():
    state, _ = gridded("stage", BOUNDS, 1.0)
    steps = state["steps"].item()
    vector = torch.tensor([0.0, 0.4, 0.6, -0.4, -0.6, 1.0, -1.0, 0.5, 1.5, -0.5]) / steps

    assert rounded(state, vector).tolist() == [0, 0, 1, 0, -1, 1, -1, 0, 2, 0]
    assert rounded(state, torch.tensor([1.0, -1.0])).tolist() == [steps, -steps]


@pytest.mark.parametrize(
    "bounds",
    [
        BOUNDS,
        BOUNDS._replace(clients=10**6),
        BOUNDS._replace(size=10**9, clients=2),
        BOUNDS._replace(size=10**9, clients=10**6),
    ],
    ids=["bits", "bits, 64", "round", "round, 64"],
)
def test_rounding_is_exact_on_each_of_its_ways(bounds):
    state, _ = gridded("stage", bounds, 1.0)
    draw = torch.Generator().manual_seed(0)
    vector = torch.rand(20_000, generator=draw) * 2 - 1
    vector[:10_000] *= 2.0 ** torch.randint(-30, 0, (10_000,), generator=draw)

    found = rounded(state, vector.clone())

    assert found.dtype == state["steps"].dtype
    # Halves to even, in float64, which holds the products exactly.
    assert torch.equal(found, (vector.double() * state["steps"].item()).round().to(found.dtype))
    back = in_units(state, found.double())
    assert (back - vector).abs().max() <= 0.51 / state["steps"].item() + 1e-7


def test_without_noise_the_grid_is_a_million_times_finer_than_the_bound():
    _, after = gridded("stage", BOUNDS, 0.0)

    assert after.l2 <= 1 + 2.0**-20


@pytest.mark.parametrize("deviation", [1e-30, 1e-9])
def test_hardly_any_noise_is_legal(deviation):
    state, after = gridded("stage", BOUNDS, deviation)

    assert state["steps"].item() <= 2**40
    assert after.l2 <= 1 + 2.0**-8


def test_what_no_integer_holds_is_refused():
    with pytest.raises(SettingsError, match="do not fit into 64 bits"):
        gridded("stage", BOUNDS._replace(size=10**9, clients=10**14), 1.0)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (Bounds(weight=1.0), "nothing bounds that part. Put a clip in front"),
        (Bounds(l2=1.0), "may count up to inf times. Use a rule in which all count the same"),
        (Bounds(l2=1.0, weight=2.0), "may count up to 2 times"),
        (Bounds(l2=1.0, weight=1.0, noise=0.5), "stands behind a stage that adds noise"),
    ],
    ids=["no clip", "no bound on weights", "weights", "noise twice"],
)
def test_a_sum_without_a_bound_gets_no_noise(bounds, message):
    with pytest.raises(SettingsError, match=message):
        gridded("gaussian(1)", bounds, 1.0)
