"""The bound from one run: the paper's numbers, and what it says of noise that is known exactly."""

import numpy as np
import pytest

from folkmoot.audit.binomial import at_least, lower_limit, upper_limit
from folkmoot.audit.one_run import epsilon_lower_bound, guess, p_value
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.accountants import gaussian_epsilon

DELTA = 1e-5


def one_release(draw, canaries, noise, reach=1.0):
    """Coins, and scores under noise beside a pull of `reach` for each canary that is in."""
    coins = draw.random(canaries) < 0.5
    return reach * coins + noise * draw.standard_normal(canaries), coins


# The paper's numbers


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_bound_is_the_papers(canaries, guesses, correct, delta, published):
    found = epsilon_lower_bound(correct, guesses, canaries, delta)

    # The paper rounds the one (appendix D) and cuts the other (section 7).
    assert found == pytest.approx(published, abs=1e-3)


def test_without_delta_the_bound_is_that_of_randomized_response():
    # All of 100 are correct: e^eps / (1 + e^eps) = 0.05^(1 / 100).
    chance = 0.05**0.01

    found = epsilon_lower_bound(100, 100, 100, 0.0)

    assert found == pytest.approx(np.log(chance / (1 - chance)), rel=1e-9)


def test_a_p_value_by_hand():
    # One guess of two canaries, correct: 0.5 at epsilon 0, and 2 * 2 * delta * P[0 right] / 1.
    assert p_value(1, 1, 2, 0.0, 0.1) == pytest.approx(0.5 + 4 * 0.1 * 0.5)
    # Two guesses, both correct: 1/4, and the larger of P[1] / 1 = 1/2 and P[0 or 1] / 2 = 3/8.
    assert p_value(2, 2, 2, 0.0, 0.01) == pytest.approx(0.25 + 4 * 0.01 * 0.5)


def test_guesses_no_better_than_chance_bound_nothing():
    assert epsilon_lower_bound(52, 100, 100, 0.0) == 0.0
    assert epsilon_lower_bound(0, 0, 100, 1e-5) == 0.0


def test_more_delta_or_more_canaries_weaken_the_bound():
    bounds = [epsilon_lower_bound(95, 100, m, d) for m, d in ((100, 0), (100, 1e-5), (1000, 1e-3))]

    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[1] > bounds[2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((11, 10, 20, 0.0), "these are 11, 10 and 20"),
        ((5, 30, 20, 0.0), "these are 5, 30 and 20"),
        ((5, 10, 20, 1.0), "delta must lie between 0 and 1, but is 1.0"),
        ((5, 10, 20, 0.0, 1.0), "confidence must lie between 0 and 1, but is 1.0"),
        ((5, 10, 20, 0.0, 0.0), "confidence must lie between 0 and 1, but is 0.0"),
    ],
)
def test_what_is_no_count_or_no_share_is_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        epsilon_lower_bound(*given)


# Soundness and power


@pytest.mark.parametrize("noise", [0.7, 3.0])
def test_the_bound_exceeds_an_exact_epsilon_in_at_most_one_trial_of_twenty(noise):
    draw = np.random.default_rng(20240816)
    exact = gaussian_epsilon(1 / noise, DELTA)

    above = 0
    for _ in range(100):
        above += guess(*one_release(draw, 300, noise), DELTA).epsilon > exact

    # 100 trials at 5 %: more than 11 have a chance below 1 %.
    assert above <= 11


def test_randomized_response_meets_its_bound_and_no_more():
    """The one mechanism for which the theorem is tight: errors come near to 5 %, not above."""
    draw, epsilon, above = np.random.default_rng(7), 1.0, 0
    chance = np.e / (1 + np.e)
    for _ in range(400):
        correct = draw.binomial(200, chance)
        above += epsilon_lower_bound(correct, 200, 200, 0.0) > epsilon

    assert 4 <= above <= 32  # 20 expected at most; both ends are about 3 deviations away


def test_a_sum_without_noise_is_caught():
    draw = np.random.default_rng(1)

    found = guess(*one_release(draw, 1000, 1e-3), DELTA)

    # 500 of 500 at an error of 0.05 / 9, but for delta's share; all 1,000 pay more for delta.
    assert found.correct == found.guesses
    assert found.epsilon > 4.0


def test_canaries_that_never_spoke_are_no_evidence():
    coins = np.random.default_rng(1).random(500) < 0.5

    assert guess(np.zeros(500), coins, DELTA).epsilon < 0.5


def test_guesses_that_a_canary_is_in_are_enough_where_silence_says_little():
    draw = np.random.default_rng(3)
    coins = draw.random(1000) < 0.5
    # One in ten of those that are in speaks up, loudly; nothing tells apart all others.
    scores = draw.standard_normal(1000) + 100 * (coins & (draw.random(1000) < 0.1))

    found = guess(scores, coins, DELTA)

    assert found.guesses < 100
    assert found.epsilon > 1.5


# Binomials


def test_tails_are_exact():
    # Of three fair coins at least two: 4 of 8.
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(0, 3, 0.1) == 1.0
    assert at_least(3, 3, 1.0) == 1.0
    assert at_least(1, 1000, 1e-3) == pytest.approx(1 - 0.999**1000, rel=1e-9)


def test_limits_are_clopper_and_pearsons():
    # All of n: p^n = error. None of n: (1 - p)^n = error.
    assert lower_limit(10, 10, 0.025) == pytest.approx(0.025**0.1)
    assert upper_limit(0, 10, 0.025) == pytest.approx(1 - 0.025**0.1)
    # 3 of 20, from the quantiles of the beta distribution: 0.0321 and 0.3789, as in tables.
    assert lower_limit(3, 20, 0.025) == pytest.approx(0.03207, abs=1e-5)
    assert upper_limit(3, 20, 0.025) == pytest.approx(0.37893, abs=1e-5)
    assert (lower_limit(0, 20, 0.025), upper_limit(20, 20, 0.025)) == (0.0, 1.0)
