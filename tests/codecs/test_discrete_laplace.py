"""Discrete Laplace noise: its law, digit by digit and as a whole."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from folkmoot.codecs import discrete_laplace as module
from folkmoot.codecs.discrete_laplace import discrete_laplace
from folkmoot.codecs.entropy import seeded, system
from folkmoot.core.errors import SettingsError

RARE = 1e-6


def law(scale, values):
    """Exact probabilities: (1 - q) / (1 + q) q^|k| with q = exp(-1 / scale)."""
    q = math.exp(-1 / scale)
    return (1 - q) / (1 + q) * q ** np.abs(values)


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0, 2048.0])
def test_a_digit_is_as_close_to_its_law_as_is_stated(scale):
    digit = module._digit(scale)

    with localcontext() as context:
        context.prec = 80
        ratio = (-1 / Decimal(scale)).exp()
        exact = [ratio**j for j in range(2048)]
        total = sum(exact)
        exact = [Fraction(one / total) for one in exact]
    edges = [0, *digit.boundaries, 1 << 128]
    drawn = [Fraction(int(width), 1 << 128) for width in np.diff(np.array(edges, dtype=object))]
    drawn += [Fraction(0)] * (2048 - len(drawn))
    distance = sum(abs(a - b) for a, b in zip(exact, drawn, strict=True)) / 2
    assert distance < 2 * 2048 * Fraction(1, 1 << 129)


@pytest.mark.parametrize("scale", [0.3, 1.0, 7.0])
def test_small_scales_pass_a_chi_square_test(scale):
    draws, most = discrete_laplace(300_000, scale, seeded(1)), math.ceil(5 * scale)

    expected = law(scale, np.arange(-most, most + 1))
    counts = np.bincount(np.clip(draws, -most, most) + most, minlength=2 * most + 1)
    expected[[0, -1]] += (1 - expected.sum()) / 2
    assert stats.chisquare(counts, len(draws) * expected).pvalue > RARE


@pytest.mark.parametrize("scale", [500.0, 2.0**16, 2.0**31, 2.0**45])
def test_large_scales_pass_a_kolmogorov_smirnov_test(scale):
    draws = np.sort(discrete_laplace(200_000, scale, system())) / scale

    empirical = np.arange(1, len(draws) + 1) / len(draws)
    distance = abs(empirical - stats.laplace.cdf(draws)).max()
    # At a scale of 500 one value has a thousandth of all draws.
    assert distance < 6 / math.sqrt(len(draws)) + 1 / scale


def test_a_scale_of_zero_gives_zeros():
    assert discrete_laplace(4, 0.0, seeded(0)).tolist() == [0] * 4


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 2.0**46])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(SettingsError, match=r"scale"):
        discrete_laplace(1, scale, seeded(0))
