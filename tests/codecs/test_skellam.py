"""Skellam noise: its law by Bessel functions to 60 digits where it can be, by tests where not."""

import math
import time
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import special, stats

from folkmoot.codecs import skellam as module
from folkmoot.codecs.entropy import seeded, system
from folkmoot.codecs.skellam import skellam
from folkmoot.core.errors import SettingsError

RARE = 1e-6  # Draws of the tests are seeded, but a seed should not have to be looked for.
STATED = 2.0**-113


def masses(sigma, most):
    """Probabilities of -most, ..., most, by scipy's Bessel functions."""
    half = special.ive(np.arange(most + 1), sigma**2)
    return np.concatenate([half[:0:-1], half])


def table_masses(law):
    """Exact probabilities of a table's values: (value, probability)."""
    edges = [0, *law.boundaries, 1 << 128]
    widths = np.diff(np.array(edges, dtype=object))
    return {law.first + at: Fraction(int(width), 1 << 128) for at, width in enumerate(widths)}


def chi_square(draws, sigma):
    """The p-value of draws against the law, by values up to 4 sigma and what is beyond."""
    most = math.ceil(4 * sigma)
    expected = masses(sigma, most)
    beyond = (1 - expected.sum()) / 2
    expected[0] += beyond
    expected[-1] += beyond
    counts = np.bincount(np.clip(draws, -most, most) + most, minlength=2 * most + 1)
    return stats.chisquare(counts, len(draws) * expected / expected.sum()).pvalue


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.5, 1.0, 3.0, 16.3])
def test_the_distance_from_the_law_is_less_than_stated(sigma):
    drawn = table_masses(module._table(sigma))

    most = math.ceil(16 * sigma) + 60
    with mpmath.workdps(60):
        variance = mpmath.mpf(sigma) ** 2
        scale = mpmath.exp(-variance)
        exact = {k: scale * mpmath.besseli(k, variance) for k in range(most + 1)}
        distance = sum(
            abs(exact[abs(k)] - mpmath.mpf(part.numerator) / part.denominator)
            for k in range(-most, most + 1)
            for part in [drawn.get(k, Fraction(0))]
        )
        assert abs(sum(exact.values()) * 2 - exact[0] - 1) < mpmath.mpf(2) ** -144
    assert set(drawn) <= set(range(-most, most + 1))
    # By value 2^-129, and the tails.
    assert distance / 2 <= len(drawn) * 2.0**-129 + 2.0**-144 < STATED


def test_the_largest_table_has_few_enough_values_and_the_right_ones():
    variance, law = 1500.0**2, module._table(1500.0)
    drawn = table_masses(law)

    edge = -law.first
    # The chance of k or more is at most exp(v - k asinh(k / v) - sqrt(k^2 + v^2)), by Chernoff.
    exponent = (edge + 1) * math.asinh((edge + 1) / variance)
    exponent += variance - math.hypot(edge + 1, variance)
    assert -exponent / math.log(2) < -145
    assert len(drawn) == 2 * edge + 1 < 45_000
    assert len(drawn) * 2.0**-129 + 2.0**-144 < STATED
    values = np.arange(-9000, 9001)
    found = np.array([float(drawn[value]) for value in values.tolist()])
    np.testing.assert_allclose(found, special.ive(abs(values), variance), rtol=1e-9)
    with mpmath.workdps(50):
        exact = mpmath.exp(-variance) * mpmath.besseli(0, variance)
        assert abs(drawn[0] - Fraction(int(exact * 2**140), 2**140)) <= Fraction(1, 2**127)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("source", [system(), seeded(2)], ids=["system", "seeded"])
def test_draws_pass_a_chi_square_test(sigma, source):
    draws = skellam(300_000, sigma, source)

    assert draws.dtype == np.int64
    assert chi_square(draws, sigma) > RARE


@pytest.mark.parametrize("sigma", [700.0, 1500.0, 1501.0, 4000.0, 12_000.0])
def test_large_deviations_pass_a_kolmogorov_smirnov_test(sigma):
    draws = np.sort(skellam(100_000, sigma, seeded(3)))

    # Off by less than 1 / (8 sigma^2) in the distribution function.
    exact = stats.norm.cdf((draws + 0.5) / sigma)
    empirical = np.searchsorted(draws, draws, "right") / len(draws)
    assert stats.kstwobign.sf(abs(empirical - exact).max() * math.sqrt(len(draws))) > RARE


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0, 200.0, 1500.0, 6000.0])
def test_the_moments_are_those_of_the_law(sigma):
    n = 300_000

    draws = skellam(n, sigma, system()).astype(float) / sigma

    # In units of sigma: the fourth moment is 3 + 1 / variance, the third 0 by symmetry.
    fourth = 3 + sigma**-2
    assert abs(draws.mean()) < 5 / math.sqrt(n)
    assert abs((draws**2).mean() - 1) < 5 * math.sqrt((fourth - 1) / n)
    sixth = 15 + 25 * sigma**-2 + sigma**-4
    assert abs((draws**3).mean()) < 5 * math.sqrt(sixth / n)


@pytest.mark.parametrize("sigma", [0.3, 3.0, 1500.0])
def test_a_table_is_symmetric_to_its_last_bit(sigma):
    law = table_masses(module._table(sigma))

    assert set(law) == {-value for value in law}
    # A boundary is rounded down, so a mass may be off by one of 2^128.
    assert all(abs(law[value] - law[-value]) <= Fraction(1, 1 << 128) for value in law)


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_tails_are_heavier_than_those_of_a_gaussian(sigma):
    # At 4 sigma by a third and more: noise that is sold as Skellam must have them.
    n, most = 2_000_000, math.ceil(4 * sigma)

    beyond = (abs(skellam(n, sigma, seeded(4))) >= most).sum()

    expected = 1 - masses(sigma, most - 1).sum()
    assert abs(beyond / n - expected) < 5 * math.sqrt(expected / n)
    assert expected > 1.3 * 2 * stats.norm.sf((most - 0.5) / sigma)


@pytest.mark.parametrize(("sigma", "shares"), [(0.5, 7), (3.0, 20), (3.0, 14)])
def test_a_sum_of_shares_has_the_law_of_all_variances_together(sigma, shares):
    total = sum(skellam(200_000, sigma, seeded(at)) for at in range(shares))

    assert chi_square(total, sigma * math.sqrt(shares)) > RARE


def test_neighbouring_draws_are_independent():
    draws = skellam(500_000, 3000.0, seeded(5)).astype(float) / 3000.0

    for lag in (1, 2, 65_536):
        assert abs((draws[lag:] * draws[:-lag]).mean()) < 5 / math.sqrt(len(draws) - lag)


def test_a_sigma_of_zero_gives_zeros_and_any_size_is_legal():
    assert skellam(5, 0.0, seeded(0)).tolist() == [0] * 5
    assert skellam(0, 1.0, seeded(0)).tolist() == []
    assert skellam(70_000, 12_000.0, seeded(0)).shape == (70_000,)


def test_equal_words_give_equal_numbers():
    assert np.array_equal(skellam(1000, 5.0, seeded(1)), skellam(1000, 5.0, seeded(1)))
    assert not np.array_equal(skellam(1000, 5.0, seeded(1)), skellam(1000, 5.0, seeded(2)))
    assert not np.array_equal(skellam(1000, 5.0, system()), skellam(1000, 5.0, system()))


@pytest.mark.parametrize("sigma", [12_001.0, 1e6, 1e300])
def test_a_deviation_beyond_what_is_drawn_is_refused_with_the_cure(sigma):
    with pytest.raises(SettingsError, match=r"up to a deviation of 12000 steps.*Take 16 bits"):
        skellam(1, sigma, seeded(0))


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(SettingsError, match="sigma must be a finite number of at least 0"):
        skellam(1, sigma, seeded(0))


@pytest.mark.nightly
@pytest.mark.parametrize("sigma", [3.0, 200.0, 1500.0])
def test_a_million_draws_take_at_most_fifty_milliseconds_of_a_core(sigma):
    words, taken = system(), []
    skellam(1, sigma, words)

    for _ in range(9):
        begun = time.process_time()
        skellam(1_000_000, sigma, words)
        taken.append(time.process_time() - begun)

    assert min(taken) <= 0.050
