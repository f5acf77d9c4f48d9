"""Exact binomial tails and the intervals of Clopper and Pearson.

Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
Binomial", Biometrika 1934. Sums of exact probabilities, with no approximation that could make a
bound optimistic.
"""

import functools

import numpy as np
from numpy.typing import NDArray

_HALVINGS = 50


def probabilities(trials: int, chance: float) -> NDArray[np.float64]:
    """Return the chance of 0, 1, ..., `trials` successes, (trials + 1,)."""
    if chance in (0.0, 1.0):
        sure = np.zeros(trials + 1)
        sure[-1 if chance else 0] = 1.0
        return sure
    successes = np.arange(trials + 1)
    log_chance = successes * np.log(chance) + (trials - successes) * np.log1p(-chance)
    return np.exp(_log_choose(trials) + log_chance)


@functools.lru_cache(maxsize=8)
def _log_choose(trials: int) -> NDArray[np.float64]:
    """Return the logarithms of the binomial coefficients, which soon are beyond float64."""
    k = np.arange(1, trials + 1)
    return np.concatenate([[0.0], np.cumsum(np.log((trials - k + 1) / k))])


def at_least(successes: int, trials: int, chance: float) -> float:
    """Return the chance of so many successes or more."""
    return min(1.0, float(probabilities(trials, chance)[max(0, successes) :].sum()))


def lower_limit(successes: int, trials: int, error: float) -> float:
    """Return what the chance of a success is not below, except with probability `error`.

    Args:
        successes, trials: What was counted.
        error: In (0, 1).
    """
    low, high = 0.0, 1.0
    # So many successes grow more likely with their chance: the limit is where they are as likely
    # as the error.
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_least(successes, trials, middle) < error:
            low = middle
        else:
            high = middle
    return low


def upper_limit(successes: int, trials: int, error: float) -> float:
    """Return what the chance of a success is not above, except with probability `error`."""
    return 1.0 - lower_limit(trials - successes, trials, error)
