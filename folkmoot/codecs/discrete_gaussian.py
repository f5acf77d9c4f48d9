"""Discrete Gaussian noise: whole numbers k with probability in proportion to exp(-k^2 / 2 sigma^2).

Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020,
arXiv:2004.00010. Floating-point noise leaks through its low bits (Mironov, CCS 2012); integers have
none. Their exact sampler works with rationals, one number at a time; this one reads a table, and
comes with a bound on how far its law is from the true one.

**Small sigma**: one table of 128-bit boundaries, cut at 13 sigma.

**Large sigma**: A + 240 B, with A of sigma 512 and B of what is then missing (in turn made so).
Given its value x, the number B is a discrete Gaussian around some point that depends on x, of
1 / s^2 = 240^2 / 512^2 + 1 / sigma_B^2. Its normaliser, a sum of exp over the integers, is by
Poisson summation the same for every such point up to a factor 1 ± eps, eps = 2 exp(-2 pi^2 s^2)
(and terms below eps^4), which s > 2 makes less than 2^-112. So the sum's probabilities are those of
the discrete Gaussian of sigma^2 = 512^2 + 240^2 sigma_B^2 up to (1 + eps) / (1 - eps): a total
variation of at most eps / (1 - eps). This is the convolution of Peikert, CRYPTO 2010, theorem 3.1,
and of Micciancio and Walter, CRYPTO 2017.

How long a draw takes depends a little on what is drawn: nothing here defends against a clock.
"""

import functools
import math
from decimal import Decimal, localcontext

import numpy as np

from folkmoot.codecs.entropy import Words
from folkmoot.codecs.inverse import Table, draw, table
from folkmoot.core.errors import SettingsError, not_negative

_CUT = 13
_LARGEST_TABLE = 1500.0
_BASE, _STRIDE = 512.0, 240
_LARGEST = 2.0**40
_CHUNK = 1 << 16
_WEIGHT_BITS = 160


def discrete_gaussian(size: int, sigma: float, words: Words) -> np.ndarray:
    """Draw independent discrete Gaussians around 0.

    Args:
        size: How many.
        sigma: Parameter of the law, from 0 (which gives zeros) to 2^40; from 1 on it is the
            standard deviation up to a part in 10^6, below that is smaller. It is exceeded by at
            most 2^-48 of itself.
        words: Where the bits come from: `entropy.system()`, or seeded ones in a simulation.

    Returns:
        (size,), int64. Each is within `total_variation(sigma)` of the law.

    Raises:
        SettingsError: If sigma is out of range.
    """
    tables = [_table(part) for part in _parts(sigma)]
    found = np.zeros(size, dtype=np.int64)
    for begin in range(0, size, _CHUNK):
        part = found[begin : begin + _CHUNK]
        for law in tables:
            part *= _STRIDE
            part += draw(law, len(part), words)
    return found


def total_variation(sigma: float) -> float:
    """Return a bound on the total variation distance of one draw from the discrete Gaussian.

    By table: 2^-129 for each value, for boundaries of 128 bits, as much again for weights of 160
    bits, and the cut tails, 2 exp(-13^2 / 2) = 2^-120.9 (the law is sub-Gaussian with sigma). By
    sum: eps / (1 - eps). All parts add up, to less than 2^-110 whatever sigma is.

    With d coordinates and T releases, noise that is t from its law turns an (epsilon, delta)
    guarantee into (epsilon, delta + (1 + e^epsilon) d T t): for a thousand releases of 10^9
    coordinates at epsilon = 10 that adds 2^-55 to delta.

    Args:
        sigma: As for `discrete_gaussian`.
    """
    tail = 2 * math.exp(-(_CUT**2) / 2)
    parts = _parts(sigma)
    distance = sum((2 * _half_width(part) + 1) * 2.0**-128 + tail for part in parts)
    inner = parts[0]
    for base in parts[1:]:
        given = 1 / ((_STRIDE / base) ** 2 + 1 / inner**2)
        eps = 2 * math.exp(-2 * math.pi**2 * given)
        distance += eps / (1 - eps)
        inner = math.hypot(base, _STRIDE * inner)
    return distance


def _parts(sigma: float) -> list[float]:
    """Return the sigmas of the tables whose sum is drawn, the one of the largest stride first."""
    not_negative(sigma=sigma)
    if sigma > _LARGEST:
        raise SettingsError(
            f"Discrete Gaussian noise is drawn up to sigma = 2^40 steps of its grid, but was asked "
            f"for {sigma:g}. A coarser grid, or less noise, is needed."
        )
    found: list[float] = []
    while sigma > _LARGEST_TABLE:
        found.append(_BASE)
        sigma = math.sqrt(sigma * sigma - _BASE * _BASE) / _STRIDE * (1 + 2.0**-50)
    return [sigma, *found]


def _half_width(sigma: float) -> int:
    return math.ceil(_CUT * sigma)


@functools.lru_cache(maxsize=32)
def _table(sigma: float) -> Table:
    """Return one table, with weights of 160 bits by the ratios of neighbours.

    With 60 digits the errors of the ratios, added up over at most 20,000 steps, stay far below the
    last of the 160 bits.
    """
    if sigma == 0:
        return table(0, [1])
    one = Decimal(1 << _WEIGHT_BITS)
    half: list[int] = []
    with localcontext() as context:
        context.prec = 60
        variance = Decimal(sigma) ** 2
        weight, ratio, curve = one, (-1 / (2 * variance)).exp(), (-1 / variance).exp()
        for _ in range(_half_width(sigma)):
            weight *= ratio
            ratio *= curve
            if weight < 1:
                break
            half.append(int(weight))
    return table(-len(half), [*half[::-1], int(one), *half])
