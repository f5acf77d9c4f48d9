"""A lower bound on epsilon from many runs, with and without one canary.

Jagielski, Ullman, Oprea, "Auditing Differentially Private Machine Learning", NeurIPS 2020,
arXiv:2006.07709, and Nasr et al., "Adversary Instantiation", S&P 2021, arXiv:2101.04535: a test
that tells the two apart has rates of true and of false positives, both bounded by Clopper and
Pearson, and (epsilon, delta)-privacy bounds the one by the other. Nasr et al., "Tight Auditing of
Differentially Private Machine Learning", USENIX Security 2023, arXiv:2302.07956, section 4: under
Gaussian noise the same two rates say more.

A test that needs a threshold takes it from other runs than those that it is judged by.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folkmoot.audit.binomial import lower_limit, upper_limit
from folkmoot.audit.one_run import refuse_shares
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.accountants import gaussian_epsilon

_THRESHOLDS = 64
_CHOOSING = 4
"""One run of so many only chooses the threshold."""
_NORMAL = NormalDist()

Numbers = NDArray[np.float64]


class Rates(NamedTuple):
    """How a test did, on runs with the canary and on runs without it."""

    true_positives: int
    positives: int
    """Runs with the canary."""
    false_positives: int
    negatives: int
    """Runs without it."""

    def limits(self, confidence: float) -> tuple[float, float]:
        """Return what the rate of true positives is not below, and that of false ones not above.

        Both hold together with the confidence.
        """
        error = (1 - confidence) / 2
        low = lower_limit(self.true_positives, self.positives, error)
        return low, upper_limit(self.false_positives, self.negatives, error)


def epsilon_lower_bound(rates: Rates, delta: float, confidence: float = 0.95) -> float:
    """Return what epsilon is not below, given how a test has done.

    Nothing is assumed of the mechanism. From N runs epsilon is at best about log(N / 4).

    Args:
        rates: Of a test that was fixed before these runs.
        delta: The other half of the promise, in [0, 1).
        confidence: How sure the bound is, in (0, 1).
    """
    refuse_shares(delta=delta, confidence=confidence)
    true, false = rates.limits(confidence)
    # The same two limits bound the rates of the opposite test.
    found = [_log_ratio(true - delta, false), _log_ratio(1 - false - delta, 1 - true)]
    return max(0.0, *found)


def _log_ratio(above: float, below: float) -> float:
    if above <= 0:
        return 0.0
    return math.log(above / below) if below > 0 else math.inf


def gaussian_lower_bound(rates: Rates, delta: float, confidence: float = 0.95) -> float:
    """Return what epsilon is not below if the mechanism is Gaussian noise on a sum.

    A few hundred runs do, because the whole curve of epsilon and delta follows from one point of
    it. That a mechanism is Gaussian is assumed, not shown: use this to find wrong noise, not to
    publish a bound.

    Args:
        rates: Of a test that was fixed before these runs.
        delta: The other half of the promise, in (0, 1).
        confidence: How sure the bound is, in (0, 1).
    """
    refuse_shares(delta=delta, confidence=confidence)
    true, false = rates.limits(confidence)
    if not 0 < true < 1 or not 0 < false < 1:
        return 0.0
    shift = _NORMAL.inv_cdf(true) - _NORMAL.inv_cdf(false)
    return gaussian_epsilon(shift, delta) if shift > 0 else 0.0


def _normal_tail(deviations: float) -> float:
    """Return how likely a normal number lies above."""
    return math.erfc(deviations / math.sqrt(2)) / 2


def rates_of(inside: ArrayLike, outside: ArrayLike, delta: float) -> Rates:
    """Choose a threshold on a quarter of the runs, and count on the others.

    Args:
        inside: (runs,), scores of runs with the canary; higher ones speak for it.
        outside: (runs,), scores of as many runs without it.
        delta: For which the threshold is to be good.
    """
    there, back = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    if len(there) != len(back) or len(there) < 2 * _CHOOSING:
        raise SettingsError(
            f"A threshold needs at least {2 * _CHOOSING} runs with the canary, and as many "
            f"without, but these are {len(there)} and {len(back)}."
        )
    last = np.arange(len(there)) % _CHOOSING > 0
    at = _threshold(there[~last], back[~last], int(last.sum()), delta)
    inside, outside = there[last] > at, back[last] > at
    return Rates(int(inside.sum()), len(inside), int(outside.sum()), len(outside))


def _threshold(inside: Numbers, outside: Numbers, runs: int, delta: float) -> float:
    """Return the threshold whose rates will bound most in `runs` others, if scores are normal.

    Where they are not, it is only a worse threshold. What a few scores far out say themselves is
    too rough to choose by.
    """
    both = np.concatenate([inside, outside])
    least = 1e-9 + 1e-6 * (both.max() - both.min())

    def rate(scores: Numbers, at: float) -> float:
        return _normal_tail((at - scores.mean()) / max(float(scores.std()), least))

    def promise(at: float) -> float:
        # Of n successes Clopper and Pearson leave about n - 2 sqrt(n), or n + 2 sqrt(n) + 3.
        hits, errors = runs * rate(inside, at), runs * rate(outside, at)
        true = (hits - 2 * math.sqrt(hits) - 3) / runs
        false = (errors + 2 * math.sqrt(errors) + 3) / runs
        return max(_log_ratio(true - delta, false), _log_ratio(1 - false - delta, 1 - true))

    return float(max(np.linspace(both.min(), both.max(), _THRESHOLDS), key=promise))
