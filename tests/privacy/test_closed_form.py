"""The exact curve of Gaussian noise: beside published numbers, and beside sixty digits."""

import json
import math
from pathlib import Path

import mpmath
import pytest

from folkmoot.privacy.closed_form import gaussian_delta, gaussian_epsilon

EXACT = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())[
    "gaussian_exact"
]
SHIFTS = [1e-8, 1e-5, 9.9e-5, 1.01e-4, 0.01, 0.3, 1.0, 5.0, 28.0, 60.0, 200.0]


def in_sixty_digits(mu, epsilon):
    """Balle and Wang's theorem 8, as it is written."""
    with mpmath.workdps(60):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        second = mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)
        return mpmath.ncdf(mu / 2 - epsilon / mu) - second


@pytest.mark.parametrize("row", EXACT["epsilon"], ids=lambda row: f"mu={row['mu']:.3g}")
def test_epsilon_is_that_of_the_vectors(row):
    found = gaussian_epsilon(row["mu"], row["delta"])

    assert found == pytest.approx(row["epsilon"], rel=1e-8)


@pytest.mark.parametrize("row", EXACT["sigma"], ids=lambda row: f"epsilon={row['epsilon']}")
def test_the_textbook_deviation_gives_the_delta_of_the_vectors(row):
    classical = row["classical_formula_sqrt_2ln1_25_over_delta"]
    given = row["delta_actually_given_by_classical_sigma"]

    assert gaussian_epsilon(1 / row["sigma"], row["delta"]) == pytest.approx(row["epsilon"], 1e-8)
    assert gaussian_delta(1 / classical, row["epsilon"]) == pytest.approx(given, rel=1e-8)


@pytest.mark.parametrize("delta", [0.3, 1e-5, 1e-12, 1e-50, 1e-300], ids="delta={:g}".format)
@pytest.mark.parametrize("mu", SHIFTS, ids="mu={:g}".format)
def test_epsilon_is_right_to_8_digits_for_all_shifts_and_deltas(mu, delta):
    found = gaussian_epsilon(mu, delta)

    # The curve falls, so the root lies between two points on either side of delta.
    assert in_sixty_digits(mu, found * (1 + 1e-8)) <= delta
    assert found == 0 or in_sixty_digits(mu, found * (1 - 1e-8)) >= delta


@pytest.mark.parametrize("mu", [1e3, 1e4, 1e6], ids="mu={:g}".format)
def test_a_huge_shift_costs_half_its_square_and_a_quantile(mu):
    # For large mu only the first term counts, Phi(mu / 2 - epsilon / mu) = delta, but for about 1.
    quantile = 4.264890793922825  # of 1 - 1e-5

    tail = gaussian_epsilon(mu, 1e-5) - mu**2 / 2

    assert tail / mu == pytest.approx(quantile, abs=2 / mu)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 4.0, 30.0])
def test_delta_and_epsilon_are_each_others_inverse(epsilon):
    delta = gaussian_delta(1.3, epsilon)

    assert gaussian_epsilon(1.3, delta) == pytest.approx(epsilon, rel=1e-9, abs=1e-9)


def test_delta_at_epsilon_0_is_the_total_variation_distance():
    # Of two normal laws that are mu apart: 2 Phi(mu / 2) - 1.
    assert gaussian_delta(0.7, 0.0) == pytest.approx(math.erf(0.35 / math.sqrt(2)), rel=1e-9)


def test_the_ends_of_the_scale_are_no_crash():
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_epsilon(math.inf, 1e-5) == math.inf
    assert gaussian_epsilon(1.0, 0.0) == math.inf
    assert gaussian_epsilon(1e-9, 0.5) == 0
    assert gaussian_delta(0.0, 0.0) == 0
    assert gaussian_delta(math.inf, 1.0) == 1
