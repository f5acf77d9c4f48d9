"""Events: what happened, as data, and what cannot have happened."""

import json
import math

import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    LocalGaussian,
    PoissonGaussian,
    Pure,
    adjacency,
    as_json,
    from_json,
    is_open,
)

EVENTS = (
    Gaussian(1.5),
    PoissonGaussian(0.5, 0.01),
    CappedPoissonGaussian(1.0, 0.1, 1000, 120),
    FixedSizeGaussian(2.0, 10, 100),
    LocalGaussian(4.0),
    Laplace(3.0),
    Pure(0.25),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_json(event):
    written = json.dumps(as_json(event))

    assert from_json(json.loads(written)) == event


def test_numbers_of_numpy_are_written_as_plain_ones():
    event = FixedSizeGaussian(np.float32(2.0), np.int64(10), np.int64(100))

    assert json.loads(json.dumps(as_json(event))) == {
        "event": "FixedSizeGaussian",
        "noise_multiplier": 2.0,
        "cohort": 10,
        "population": 100,
    }


def test_only_a_cohort_of_fixed_size_and_noise_at_the_clients_have_replaced_neighbours():
    kinds = {type(event).__name__ for event in EVENTS if adjacency(event) == "replace-one"}

    assert kinds == {"FixedSizeGaussian", "LocalGaussian"}
    assert {adjacency(event) for event in EVENTS} == {"replace-one", "add-or-remove-one"}


def test_no_noise_is_legal_and_open():
    assert is_open(Gaussian(0)) and is_open(PoissonGaussian(0.0, 0.1)) and is_open(Laplace(0))
    assert is_open(LocalGaussian(0))
    assert not any(is_open(event) for event in EVENTS)


def test_a_rate_of_1_is_legal():
    assert PoissonGaussian(1.0, 1).rate == 1
    assert CappedPoissonGaussian(1.0, 1.0, 10, 5).rate == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gaussian(-1), "noise_multiplier must be a finite number of at least 0, but is -1"),
        (lambda: Gaussian(math.nan), "noise_multiplier .* but is nan"),
        (lambda: Gaussian(math.inf), "noise_multiplier .* but is inf"),
        (lambda: LocalGaussian(-2), "noise_multiplier .* but is -2"),
        (lambda: Laplace(-0.1), "noise_multiplier .* but is -0.1"),
        (lambda: PoissonGaussian(1, 0), "rate must be above 0 and at most 1, but is 0"),
        (lambda: PoissonGaussian(1, 1.01), "rate .* but is 1.01"),
        (lambda: PoissonGaussian(1, math.nan), "rate .* but is nan"),
        (lambda: PoissonGaussian(1, "0.1"), "rate .* but is '0.1'"),
        (lambda: CappedPoissonGaussian(1, 0.1, 0, 5), "population must be a whole number"),
        (lambda: CappedPoissonGaussian(1, 0.1, 10, 2.5), "cap must be a whole number .* 2.5"),
        (lambda: FixedSizeGaussian(1, 11, 10), "cohort of 11 was asked of a population of 10"),
        (lambda: Pure(0), "epsilon must be a finite number above 0"),
    ],
)
def test_what_cannot_have_happened_is_refused_by_name_and_value(build, message):
    with pytest.raises(SettingsError, match=message):
        build()


@pytest.mark.parametrize(
    "data",
    [
        {"event": "Exponential", "noise_multiplier": 1.0},
        {"noise_multiplier": 1.0},
        {"event": "Gaussian", "rate": 0.1},
    ],
)
def test_other_json_is_no_event(data):
    with pytest.raises(SettingsError, match=r"is no privacy event: .* Known: Capped"):
        from_json(data)
