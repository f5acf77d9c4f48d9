"""Discrete Laplace noise: whole numbers k with probability in proportion to exp(-|k| / scale).

Ghosh, Roughgarden, Sundararajan, "Universally Utility-maximizing Privacy Mechanisms", STOC 2009:
the two-sided geometric law. It is the difference of two geometric ones, of q = exp(-1 / scale). The
digits of a geometric number are independent, as q^k is a product over the digits of k: so each
digit to the base 2048 is drawn from a table of its own.
"""

import functools
import math
from decimal import Decimal, localcontext

import numpy as np

from folkmoot.codecs.entropy import Words
from folkmoot.codecs.inverse import Table, draw, table
from folkmoot.core.errors import SettingsError, not_negative

_BASE = 2048
_CUT = 128 * math.log(2)
_LARGEST = 2.0**45
_WEIGHT_BITS = 160


def discrete_laplace(size: int, scale: float, words: Words) -> np.ndarray:
    """Draw independent discrete Laplace numbers around 0.

    Args:
        size: How many.
        scale: Of the law, from 0 (which gives zeros) to 2^45; the standard deviation is sqrt(2)
            times that, from about 1 on.
        words: Where the bits come from: `entropy.system()`, or seeded ones in a simulation.

    Returns:
        (size,), int64. Each is within a total variation of 2^-112 of the law: two geometric
        numbers, of at most 5 digits of 2^-129 for each of 2048 values, and as much again for their
        weights' 160 bits, cut where 2^-128 of the law is left.

    Raises:
        SettingsError: If the scale is out of range.
    """
    not_negative(scale=scale)
    if scale > _LARGEST:
        raise SettingsError(
            f"Discrete Laplace noise is drawn up to a scale of 2^45 steps of its grid, but was "
            f"asked for {scale:g}. A coarser grid, or less noise, is needed."
        )
    found = np.zeros(size, dtype=np.int64)
    for law in _digits(scale):
        found *= _BASE
        found += draw(law, size, words)
        found -= draw(law, size, words)
    return found


@functools.lru_cache(maxsize=32)
def _digits(scale: float) -> list[Table]:
    """Return the tables of a geometric number's digits, the highest first."""
    tables: list[Table] = []
    place = 1
    while scale > 0 and (place <= _CUT * scale or not tables):
        tables.append(_digit(scale / place))
        place *= _BASE
    return tables[::-1]


def _digit(scale: float) -> Table:
    """Return the law on 0, ..., 2047 in proportion to exp(-j / scale)."""
    weights: list[int] = []
    with localcontext() as context:
        context.prec = 60
        weight, ratio = Decimal(1 << _WEIGHT_BITS), (-1 / Decimal(scale)).exp()
        while len(weights) < _BASE and weight >= 1:
            weights.append(int(weight))
            weight *= ratio
    return table(0, weights)
