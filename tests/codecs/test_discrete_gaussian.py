"""Discrete Gaussian noise: its law, by exact arithmetic where it can be, by tests where not."""

import json
import math
import time
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from folkmoot.codecs import discrete_gaussian as module
from folkmoot.codecs.discrete_gaussian import discrete_gaussian, total_variation
from folkmoot.codecs.entropy import seeded, system
from folkmoot.core.errors import SettingsError

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text("utf-8")
)["discrete_gaussian_variance"]
RARE = 1e-6  # Draws of the tests are seeded, but a seed should not have to be looked for.


def masses(sigma, most):
    """Exact probabilities of -most, ..., most, to 80 digits."""
    with localcontext() as context:
        context.prec = 90
        variance = Decimal(sigma) ** 2
        half = [(-(k * k) / (2 * variance)).exp() for k in map(Decimal, range(most + 1))]
        weights = [*half[:0:-1], *half]
        total = sum(weights)
        return [Fraction(weight / total) for weight in weights]


def table_masses(law):
    """Exact probabilities of a table's values: (value, probability)."""
    edges = [0, *law.boundaries, 1 << 128]
    widths = np.diff(np.array(edges, dtype=object))
    return {law.first + at: Fraction(int(width), 1 << 128) for at, width in enumerate(widths)}


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 16.3])
def test_the_distance_from_the_law_is_less_than_stated(sigma):
    most = math.ceil(14 * sigma) + 2

    exact = dict(zip(range(-most, most + 1), masses(sigma, most), strict=True))
    drawn = table_masses(module._table(sigma))

    values = exact.keys() | drawn.keys()
    distance = sum(abs(exact.get(value, 0) - drawn.get(value, 0)) for value in values) / 2
    assert float(distance) <= total_variation(sigma) < 2.0**-110


@pytest.mark.parametrize("sigma", [1500.5, 2.0**12, 2.0**18])
def test_a_sum_of_two_has_the_law_of_one_up_to_what_is_stated(sigma):
    inner, base = module._parts(sigma)
    stride = module._STRIDE

    with localcontext() as context:
        context.prec = 60
        variance = Decimal(base) ** 2 + stride**2 * Decimal(inner) ** 2

        def drawn(x):
            """Up to a factor, the chance that A + stride B is x."""
            near = range(round(x / stride) - 40, round(x / stride) + 41)
            exponents = [
                Decimal((x - stride * b) ** 2) / Decimal(base) ** 2 + b * b / Decimal(inner) ** 2
                for b in near
            ]
            return sum((-exponent / 2).exp() for exponent in exponents)

        def law(x):
            return (-Decimal(x * x) / (2 * variance)).exp()

        places = [round(share * sigma) for share in (0.001, 0.3, 1.0, 2.71, 6.0, -9.0)]
        ratios = [drawn(x) / law(x) / drawn(0) for x in [*places, 1, 7, 119, 120, 121]]

    assert all(abs(ratio - 1) <= 2 * total_variation(sigma) for ratio in ratios)
    assert sigma <= math.sqrt(variance) <= sigma * (1 + 2.0**-48)


def test_the_stated_distance_is_small_for_every_sigma():
    for sigma in [0.0, *np.geomspace(1e-3, 2.0**40, 2_000).tolist()]:
        assert 0 < total_variation(sigma) < 2.0**-110


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: f"{row['sigma2']}")
def test_the_variance_is_that_of_the_reference_values(row):
    law = table_masses(module._table(math.sqrt(row["sigma2"])))
    draws = discrete_gaussian(1_000_000, math.sqrt(row["sigma2"]), seeded(1)).astype(float)

    variance = float(sum(value * value * mass for value, mass in law.items()))
    assert variance == pytest.approx(row["variance"], rel=1e-12)
    fourth = float(sum(value**4 * mass for value, mass in law.items()))
    allowed = 5 * math.sqrt((fourth - variance**2) / len(draws))
    assert (draws**2).mean() == pytest.approx(variance, abs=allowed)


@pytest.mark.parametrize("source", [system(), seeded(2)], ids=["system", "seeded"])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_small_deviations_pass_a_chi_square_test(sigma, source):
    draws = discrete_gaussian(300_000, sigma, source)

    most = math.ceil(4 * sigma)
    expected = np.array([float(mass) for mass in masses(sigma, 40)])[40 - most : 41 + most]
    counts = np.bincount(np.clip(draws, -most, most) + most, minlength=2 * most + 1)
    expected[0] += (1 - expected.sum()) / 2
    expected[-1] += 1 - expected.sum()
    assert stats.chisquare(counts, len(draws) * expected).pvalue > RARE


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 64.0, 2.0**12, 2.0**18, 2.0**24])
def test_draws_pass_a_kolmogorov_smirnov_test(sigma):
    draws = np.sort(discrete_gaussian(400_000, sigma, seeded(3)))

    values, below = np.unique(draws, return_index=True)
    empirical = np.append(below[1:], len(draws)) / len(draws)
    if sigma < 64:
        exact = np.cumsum([float(mass) for mass in masses(sigma, 40)])[values + 40]
    else:
        exact = stats.norm.cdf((values + 0.5) / sigma)  # Off by less than 1 / (12 sigma^2).
    assert stats.kstwobign.sf(abs(empirical - exact).max() * math.sqrt(len(draws))) > RARE


@pytest.mark.parametrize("sigma", [2.0, 700.0, 2.0**20, 2.0**33])
def test_mean_and_deviation_are_right(sigma):
    n = 1_000_000

    draws = discrete_gaussian(n, sigma, system()).astype(float)

    assert abs(draws.mean()) < 5 * sigma / math.sqrt(n)
    assert abs(draws.std() / sigma - 1) < 5 / math.sqrt(2 * n)


def test_neighbouring_draws_are_independent():
    draws = discrete_gaussian(1_000_000, 2.0**16, seeded(4)).astype(float) / 2.0**16

    for lag in (1, 2, 65_536):
        assert abs((draws[lag:] * draws[:-lag]).mean()) < 5 / math.sqrt(len(draws) - lag)
    # The lowest digit, by which noise in floating point is told from noise.
    odd = (discrete_gaussian(1_000_000, 2.0**16, seeded(4)) & 1).mean()
    assert abs(odd - 0.5) < 5 * 0.5 / 1_000


def test_a_sigma_of_zero_gives_zeros_and_any_size_is_legal():
    assert discrete_gaussian(5, 0.0, seeded(0)).tolist() == [0] * 5
    assert discrete_gaussian(0, 1.0, seeded(0)).tolist() == []
    assert discrete_gaussian(1, 2.0**40, seeded(0)).dtype == np.int64


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf, 2.0**41])
def test_a_sigma_out_of_range_is_refused(sigma):
    with pytest.raises(SettingsError, match=r"sigma"):
        discrete_gaussian(1, sigma, seeded(0))


@pytest.mark.nightly
@pytest.mark.parametrize("sigma", [1.0, 1500.0, 2.0**16, 2.0**18, 2.0**24])
def test_a_million_draws_take_at_most_thirty_milliseconds_of_a_core(sigma):
    words, taken = system(), []
    discrete_gaussian(1, sigma, words)

    for _ in range(9):
        begun = time.process_time()
        discrete_gaussian(1_000_000, sigma, words)
        taken.append(time.process_time() - begun)

    assert min(taken) <= 0.030
