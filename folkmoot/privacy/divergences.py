"""Epsilon by Rényi divergences: a quick bound, and the only proof for cohorts of fixed size.

Mironov, CSF 2017, arXiv:1702.07476; Canonne, Kamath, Steinke, NeurIPS 2020, arXiv:2004.00010,
proposition 12 (to epsilon); Wang, Balle, Kasiviswanathan, AISTATS 2019, arXiv:1808.00087, theorem
27 (without replacement). Divergences of lots come from Google's dp-accounting; the conversion is
ours, because that library takes a divergence that rounding made negative for perfect privacy.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    Charge,
    Event,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    LocalGaussian,
    PoissonGaussian,
    Pure,
    Skellam,
)
from folkmoot.privacy.library import accounting, quiet, scipy_part

_BETWEEN = [72, 80, 90, 100, 112, 160, 200]
ORDERS = np.array(
    [1 + tenth / 10 for tenth in range(1, 100)]
    + sorted([*range(11, 64), *_BETWEEN, 128, 256, 512, 1024])
)
"""Those of dp-accounting, and some between: without replacement, epsilon jumps where they lack."""

_MUCH = 1e6
"""Noise above which the bound for cohorts of fixed size is rounded away; less bounds more."""


def epsilon_by_divergences(charges: Sequence[Charge], delta: float) -> float:
    """Return an upper bound on epsilon at a delta in (0, 1)."""
    total = _total(charges)
    found = total + np.log1p(-1 / ORDERS) - math.log(delta) / (ORDERS - 1)
    found -= np.log(ORDERS) / (ORDERS - 1)
    return max(0.0, float(np.nanmin(found)))


def delta_by_divergences(charges: Sequence[Charge], epsilon: float) -> float:
    """Return an upper bound on delta at an epsilon."""
    total = _total(charges)
    logs = (ORDERS - 1) * (total - epsilon + np.log1p(-1 / ORDERS)) - np.log(ORDERS)
    return math.exp(min(0.0, float(np.nanmin(logs))))


def _total(charges: Sequence[Charge]) -> np.ndarray:
    """Return the divergences of all charges together, by order."""
    total = np.zeros(len(ORDERS))
    for event, times in charges:
        total += times * _once(event)
    return total


@functools.lru_cache(maxsize=512)
def _once(event: Event) -> np.ndarray:
    """Return one release's divergences by order, which nobody may write to."""
    with quiet():
        found: np.ndarray = np.maximum(0.0, _divergences(event))
    found.flags.writeable = False
    return found


def _divergences(event: Event) -> np.ndarray:
    dp = accounting()
    match event:
        case Gaussian(noise):
            return ORDERS / (2 * noise**2)
        case PoissonGaussian(noise, rate):
            return _by_library(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)))
        case CappedPoissonGaussian():
            return _capped(event)
        case FixedSizeGaussian(noise, cohort, population):
            # Two sums are up to twice the norm apart, so beside that the noise is half.
            inner = dp.GaussianDpEvent(min(noise, _MUCH) / 2)
            drawn = dp.SampledWithoutReplacementDpEvent(population, cohort, inner)
            return _by_library(drawn, replace=True)
        case LocalGaussian(noise):
            # What one client sends is up to twice the norm from what it might have sent.
            return ORDERS * 2 / noise**2
        case Skellam(noise, reach, size):
            # Proved for whole orders; divergences do not fall with the order.
            whole, variance = np.ceil(ORDERS), (noise * reach) ** 2
            return skellam_divergences(whole, variance, reach, _l1(reach, size))
        case Laplace(noise):
            return _by_library(dp.LaplaceDpEvent(noise))
        case Pure(epsilon):
            return _randomized_response(epsilon)


def skellam_divergences(orders: np.ndarray, variance: float, l2: float, l1: float) -> np.ndarray:
    """Return the divergences of Skellam noise between sums that are so far apart, by order.

    Args:
        orders: Whole numbers above 1.
        variance: Of the noise.
        l2, l1: Norms of the difference, a vector of whole numbers.

    Source: Agarwal, Kairouz, Liu, NeurIPS 2021, arXiv:2110.04995, theorem 3.5.
    """
    close = ((2 * orders - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    found: np.ndarray = orders * l2**2 / (2 * variance) + np.minimum(close, 1.5 * l1 / variance)
    return found


def _l1(l2: float, size: int) -> float:
    """Return the largest L1 norm of whole numbers with an L2 norm: none is above its square."""
    return min(l2**2, math.sqrt(size) * l2)


def _by_library(event: object, replace: bool = False) -> np.ndarray:
    dp = accounting()
    relations = dp.NeighboringRelation
    near = relations.REPLACE_ONE if replace else relations.ADD_OR_REMOVE_ONE
    accountant = dp.rdp.RdpAccountant(orders=ORDERS, neighboring_relation=near)
    accountant.compose(event)
    return np.array(accountant.rdp)


def _capped(event: CappedPoissonGaussian) -> np.ndarray:
    """Bound the divergences of a Poisson cohort of which a random `cap` stay in.

    Where the others fill the cohort, someone more takes another's place, and moves the sum by up to
    twice the norm; else it is a Poisson cohort. exp((order - 1) divergence) is jointly convex, so
    it is at most the mean over both cases.
    """
    noise, rate, population, cap = (
        event.noise_multiplier,
        event.rate,
        event.population,
        event.cap,
    )
    full = float(scipy_part("stats").binom.sf(cap - 1, population - 1, rate))
    drawn = (ORDERS - 1) * _once(PoissonGaussian(noise, rate))
    # The noise's divergence between two sums that are twice the norm apart is order * 2 / noise^2.
    displaced = np.logaddexp(
        math.log1p(-rate) if rate < 1 else -math.inf,
        math.log(rate) + (ORDERS - 1) * ORDERS * 2 / noise**2,
    )
    parts = [(1 - full, drawn), (full, displaced)]
    logs = [math.log(chance) + part for chance, part in parts if chance > 0]
    found: np.ndarray = np.logaddexp.reduce(logs) / (ORDERS - 1)
    return found


def _randomized_response(epsilon: float) -> np.ndarray:
    """Return the divergences of one told bit, which bound those of all that is this private."""
    true = -math.log1p(math.exp(-epsilon))
    false = true - epsilon
    one, other = ORDERS * true + (1 - ORDERS) * false, ORDERS * false + (1 - ORDERS) * true
    found: np.ndarray = np.logaddexp(one, other) / (ORDERS - 1)
    return found
