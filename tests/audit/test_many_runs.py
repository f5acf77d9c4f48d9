"""The bound from many runs: exact epsilons, soundness, and what it catches."""

import math

import numpy as np
import pytest

from folkmoot.audit.many_runs import (
    Rates,
    epsilon_lower_bound,
    gaussian_lower_bound,
    rates_of,
)
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.accountants import gaussian_epsilon

DELTA = 1e-5


def runs(draw, number, noise):
    """Scores of runs with the canary, and without."""
    return 1 + noise * draw.standard_normal(number), noise * draw.standard_normal(number)


def test_rates_bound_epsilon_as_by_hand():
    rates = Rates(10, 10, 0, 10)

    found = epsilon_lower_bound(rates, 0.0)

    # All of 10 and none of 10, each at an error of 0.025.
    limit = 0.025**0.1
    assert found == pytest.approx(math.log(limit / (1 - limit)))


def test_the_opposite_test_counts_as_well():
    # Nearly nobody is missed: what is told apart is that the canary is not there.
    found = epsilon_lower_bound(Rates(1000, 1000, 900, 1000), 0.0)

    # 900 of 1000 are at most 0.9179 of all, by tables; all of 1000 at least 0.025^(1 / 1000).
    assert found == pytest.approx(math.log((1 - 0.9179) / (1 - 0.025**0.001)), abs=1e-2)


def test_a_test_that_is_no_test_bounds_nothing():
    assert epsilon_lower_bound(Rates(50, 100, 50, 100), DELTA) == 0.0
    assert gaussian_lower_bound(Rates(0, 100, 0, 100), DELTA) == 0.0


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_bound_exceeds_an_exact_epsilon_in_at_most_one_trial_of_twenty(noise):
    draw, exact = np.random.default_rng(5), gaussian_epsilon(1 / noise, DELTA)
    above = np.zeros(2)
    for _ in range(100):
        rates = rates_of(*runs(draw, 400, noise), DELTA)
        bounds = epsilon_lower_bound(rates, DELTA), gaussian_lower_bound(rates, DELTA)
        above += np.array(bounds) > exact

    # 100 trials at 5 %: more than 11 have a chance below 1 %.
    assert (above <= 11).all()


def test_halved_noise_is_caught():
    stated = gaussian_epsilon(1 / 2.0, DELTA)

    rates = rates_of(*runs(np.random.default_rng(0), 20_000, 1.0), DELTA)

    assert epsilon_lower_bound(rates, DELTA) > stated


def test_with_normal_noise_taken_for_granted_a_thousand_runs_catch_it():
    stated = gaussian_epsilon(1 / 2.0, DELTA)
    draw = np.random.default_rng(0)

    honest = rates_of(*runs(draw, 1000, 2.0), DELTA)
    halved = rates_of(*runs(draw, 1000, 1.0), DELTA)

    assert gaussian_lower_bound(honest, DELTA) <= stated < gaussian_lower_bound(halved, DELTA)


def test_too_few_runs_are_refused():
    with pytest.raises(SettingsError, match="these are 7 and 7"):
        rates_of([1.0] * 7, [0.0] * 7, DELTA)
    with pytest.raises(SettingsError, match="as many without, but these are 9 and 8"):
        rates_of([1.0] * 9, [0.0] * 8, DELTA)
