"""The exact privacy curve of Gaussian noise where no lot is drawn, in a few lines of arithmetic.

Balle and Wang, ICML 2018, arXiv:1805.06530, theorem 8: delta(epsilon) = Phi(mu / 2 - epsilon / mu)
- e^epsilon Phi(-mu / 2 - epsilon / mu), where mu is the sensitivity over the noise's deviation. T
such releases are one of mu sqrt(T).

As written, the two terms overflow, or cancel to nothing, for the noises and deltas of practice.
With x = epsilon / mu - mu / 2 they are phi(x) (R(x) - R(x + mu)), where R(x) = Phi(-x) / phi(x) is
Mills' ratio: the curve is computed in logarithms of R, to ten digits however small delta is.
"""

import math

_FAR = 30.0
"""From here on Mills' ratio comes from its continued fraction, which ten terms then settle."""
_LITTLE = 1e-4
_HALF_LOG_TAU = math.log(2 * math.pi) / 2


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the delta of Gaussian noise at an epsilon.

    Args:
        mu: Sensitivity over the noise's standard deviation, at least 0.
        epsilon: At least 0.
    """
    return math.exp(_log_delta(mu, epsilon))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the least epsilon of Gaussian noise at a delta.

    Args:
        mu: Sensitivity over the noise's standard deviation, at least 0.
        delta: In (0, 1); for 0 no epsilon is enough.

    Returns:
        At least the exact value, and above it by at most 1e-12 of it.
    """
    if mu == 0:
        return 0.0
    if delta <= 0 or math.isinf(mu):
        return math.inf
    aim = math.log(delta)
    if _log_delta(mu, 0.0) <= aim:
        return 0.0
    # Bun and Steinke 2016, proposition 1.3, for rho = mu^2 / 2: enough in any case.
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(-2 * aim)
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if _log_delta(mu, middle) <= aim else (middle, high)
    return high


def _log_delta(mu: float, epsilon: float) -> float:
    if mu == 0:
        return -math.inf
    if math.isinf(mu):
        return 0.0
    x = epsilon / mu - mu / 2
    if mu > _LITTLE:
        drop = _log_mills(x + mu) - _log_mills(x)
    else:
        # The slope of log R, as the two would differ by less than they are rounded.
        drop = mu * (x + mu / 2 - math.exp(-_log_mills(x + mu / 2)))
    return _log_tail(x) + (math.log(-math.expm1(drop)) if drop < 0 else -math.inf)


def _log_tail(x: float) -> float:
    """Return log Phi(-x)."""
    if x < _FAR:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    return _log_mills(x) - x * x / 2 - _HALF_LOG_TAU


def _log_mills(x: float) -> float:
    """Return log(Phi(-x) / phi(x)), which falls."""
    if x < _FAR:
        return _log_tail(x) + x * x / 2 + _HALF_LOG_TAU
    # Laplace: R(x) = 1 / (x + 1 / (x + 2 / (x + 3 / ...))).
    bottom = x
    for term in range(12, 0, -1):
        bottom = x + term / bottom
    return -math.log(bottom)
