"""Epsilon by privacy loss distributions: the tightest that is proved for cohorts drawn by lot.

Koskela, Jälkö, Honkela, AISTATS 2020, arXiv:1906.03049 (composition by Fourier transforms);
Doroshenko et al., PoPETs 2022, arXiv:2207.04380 (rounding up by connecting dots), both computed by
Google's dp-accounting. How fine the grid must be, and what the transform's rounding costs, is
found here.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from folkmoot.core.errors import SettingsError
from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    Charge,
    Event,
    Gaussian,
    Laplace,
    PoissonGaussian,
    Pure,
)
from folkmoot.privacy.library import accounting, quiet

FINEST = 1e-4
"""Step of the finest grid of privacy losses: what dp-accounting itself uses."""
_FINER = 3
COARSEST = _FINER**5 * FINEST
_WIDEST = 100.0
"""Step of the coarsest grid where losses are in the hundred thousands."""
_CLOSE = 5e-4
"""Share of a value that rounding losses up to the grid may add."""
_ROUNDING = 2.0**-52
"""Delta that one composition may lose in the Fourier transform. Measured against the exact curve of
Gaussian noise, for up to a million compositions, it was at most a quarter of that."""
_BLOCK = 10_000
"""Compositions at once; dp-accounting computes a power of that many digits."""


def epsilon_by_losses(charges: Sequence[Charge], delta: float, near: float) -> tuple[float, bool]:
    """Return an upper bound on epsilon, and whether it is as tight as this method promises.

    Args:
        charges: Events whose neighbours are added or removed, none without noise.
        delta: In (0, 1).
        near: About what is expected, to choose a first grid.

    Returns:
        Epsilon, which may be infinite, and True where the grid adds less than a thousandth and the
        transform's rounding less than a tenth of delta.
    """
    lost = _ROUNDING * sum(times for _, times in charges)
    if lost >= delta:
        return math.inf, False
    found, settled = _refined(
        lambda grid: float(_composed(charges, grid).get_epsilon_for_delta(delta - lost)), near
    )
    return max(0.0, found), settled and lost < delta / 10


def delta_by_losses(charges: Sequence[Charge], epsilon: float) -> float:
    """Return an upper bound on delta at an epsilon; arguments as for `epsilon_by_losses`."""
    lost = _ROUNDING * sum(times for _, times in charges)
    found, _ = _refined(
        lambda grid: float(_composed(charges, grid).get_delta_for_epsilon(epsilon)), epsilon
    )
    return max(0.0, found) + lost


def _refined(value: Callable[[float], float], near: float) -> tuple[float, bool]:
    """Compute on finer and finer grids until a finer one would change next to nothing.

    Every grid gives an upper bound, whose excess goes with the square of its step: so the last
    difference tells what is left, an eighth of it where the step was cut to a third.
    """
    # Little noise makes losses of thousands, which few grids can hold and none need.
    step = min(max(COARSEST, near * 1e-4), _WIDEST)
    with quiet():
        found, left = value(step), math.inf
        while left > _CLOSE * found and step > 1.01 * FINEST:
            step /= _FINER
            finer = value(step)
            left, found = (found - finer) / (_FINER**2 - 1), min(found, finer)
    return found, left <= 2 * _CLOSE * found


def _composed(charges: Sequence[Charge], grid: float) -> Any:
    """Return the distribution of all charges' losses together."""
    return functools.reduce(
        lambda all_before, one: all_before.compose(one),
        (_repeated(event, times, grid) for event, times in charges),
    )


def _repeated(event: Event, times: int, grid: float) -> Any:
    if isinstance(event, Gaussian):
        # T releases are one with as much noise over the root of T.
        return _once(Gaussian(event.noise_multiplier / math.sqrt(times)), grid)
    single = _once(event, grid)
    if times <= _BLOCK:
        return single if times == 1 else single.self_compose(times)
    blocks, rest = divmod(times, _BLOCK)
    many = single.self_compose(_BLOCK).self_compose(blocks)
    return many.compose(single.self_compose(rest)) if rest else many


@functools.lru_cache(maxsize=16)
def _once(event: Event, grid: float) -> Any:
    """Return the distribution of one release's loss; nothing changes it afterwards."""
    losses = accounting().pld.privacy_loss_distribution
    match event:
        case Gaussian(noise):
            return losses.from_gaussian_mechanism(noise, value_discretization_interval=grid)
        case PoissonGaussian(noise, rate):
            return losses.from_gaussian_mechanism(
                noise, value_discretization_interval=grid, sampling_prob=rate
            )
        case CappedPoissonGaussian(noise, rate, population, cap):
            return losses.from_truncated_subsampled_gaussian_mechanism(
                population, rate, cap, noise, value_discretization_interval=grid
            )
        case Laplace(noise):
            return losses.from_laplace_mechanism(noise, value_discretization_interval=grid)
        case Pure(epsilon):
            return _randomized_response(epsilon, grid)
    raise SettingsError(f"No privacy loss distribution is proved for {event!r}.")


def _randomized_response(epsilon: float, grid: float) -> Any:
    """Return the loss of telling one bit, true with chance e^epsilon / (1 + e^epsilon).

    Whatever is epsilon-differentially private can be made from that bit (Kairouz, Oh, Viswanath,
    ICML 2015, arXiv:1311.0776, theorem 2.5), so it bounds them all.
    """
    pld = accounting().pld
    reach = math.ceil(epsilon / grid)
    at = grid * np.arange(-reach, reach + 1)
    # Divergence of the two outcomes' chances at each point of the grid, in a form that is exact
    # also where epsilon is large: (1 - e^(at - epsilon)) e^epsilon / (1 + e^epsilon).
    told = -np.expm1(np.minimum(0.0, at - epsilon)) / (1 + math.exp(-epsilon))
    # The mass below -epsilon is all of it, less what the other bit takes.
    deltas = np.where(at <= -epsilon, -np.expm1(at), told)
    dots = pld.pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap
    return pld.privacy_loss_distribution.PrivacyLossDistribution(
        dots(grid, -reach, reach, np.clip(deltas, 0.0, 1.0))
    )
