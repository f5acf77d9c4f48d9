"""Shamir's shares of a 256-bit secret: any `threshold` of them give it back, fewer say nothing.

Shamir, "How to Share a Secret", CACM 1979. The secret is the value at 0 of a random polynomial over
the integers modulo the prime 2^256 + 297; a share is its value at one of the holders' points.

Arithmetic on Python's integers takes longer for some numbers than for others. Here that is measured
by nobody who is not on the machine itself, and each secret lives for one round.
"""

import math
from collections.abc import Mapping, Sequence

from folkmoot.secagg.primitives import entropy

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
"""Of one share, little-endian: values go up to the prime, which has 257 bits."""

_STEPS = 32
"""Steps of Horner's rule before the value is brought back below the prime; points are small, so
that it has grown little until then."""


def split(secret: bytes, points: Sequence[int], threshold: int) -> list[int]:
    """Cut a secret into shares.

    Args:
        secret: 32 bytes.
        points: Where the polynomial is evaluated, one for each holder: distinct, from 1 up.
        threshold: Shares that give it back, from 1 to the number of points.

    Returns:
        The shares, in the points' order, each below the prime.
    """
    return evaluate(polynomial(secret, threshold), points)


def polynomial(secret: bytes, threshold: int) -> list[int]:
    """Return random coefficients, lowest first, of a polynomial whose value at 0 is the secret.

    Coefficients are 256 bits of the operating system's entropy: over the prime that is uniform but
    for 297 of 2^256 values, which a whole polynomial tells apart with probability below 2^-236.
    """
    drawn = entropy(SECRET_BYTES * (threshold - 1))
    return [
        int.from_bytes(secret, "little"),
        *(
            int.from_bytes(drawn[at : at + SECRET_BYTES], "little")
            for at in range(0, len(drawn), SECRET_BYTES)
        ),
    ]


def evaluate(coefficients: Sequence[int], points: Sequence[int]) -> list[int]:
    """Return the polynomial's value at each point, modulo the prime."""
    highest_first = list(reversed(coefficients))
    blocks = [highest_first[at : at + _STEPS] for at in range(0, len(highest_first), _STEPS)]
    found = []
    for point in points:
        value = 0
        for block in blocks:
            for coefficient in block:
                value = value * point + coefficient
            value %= PRIME
        found.append(value)
    return found


def weights(points: Sequence[int]) -> list[int]:
    """Return Lagrange's weights at 0: the secret is the sum of weight times share.

    They depend on who answered and not on whose secret it is, so that one computation serves all
    secrets with the same holders.

    Args:
        points: Distinct, from 1 up; as many as the threshold.
    """
    # weight_i = prod_{j != i} x_j / (x_j - x_i) = (prod_j x_j) / (x_i prod_{j != i} (x_j - x_i))
    whole = math.prod(points)
    bottoms = [
        mine * math.prod([other - mine for other in points if other != mine]) % PRIME
        for mine in points
    ]
    return [whole * inverse % PRIME for inverse in _inverses(bottoms)]


def join(shares: Sequence[int], lagrange: Sequence[int]) -> bytes | None:
    """Put shares together.

    Args:
        shares: As many as the threshold.
        lagrange: What `weights` gave for their points, in the same order.

    Returns:
        The secret's 32 bytes; None if these shares are of no secret. Wrong shares mostly give a
        wrong secret, which whoever joins them has to check.
    """
    value = sum(w * share for w, share in zip(lagrange, shares, strict=True)) % PRIME
    return value.to_bytes(SECRET_BYTES, "little") if value < 2**256 else None


def value_at(point: int, shares: Mapping[int, int]) -> int:
    """Return what the share at a point has to be, given as many other shares as the threshold.

    Args:
        point: From 1 up.
        shares: Point to share; all of them right.
    """
    if point in shares:
        return shares[point]
    moved = weights([(other - point) % PRIME for other in shares])
    return sum(w * share for w, share in zip(moved, shares.values(), strict=True)) % PRIME


def _inverses(values: Sequence[int]) -> list[int]:
    """Return all inverses modulo the prime for the price of one (Montgomery's trick)."""
    before, product = [], 1
    for value in values:
        before.append(product)
        product = product * value % PRIME
    inverse, found = pow(product, -1, PRIME), []
    for value, prefix in zip(reversed(values), reversed(before), strict=True):
        found.append(inverse * prefix % PRIME)
        inverse = inverse * value % PRIME
    return found[::-1]
