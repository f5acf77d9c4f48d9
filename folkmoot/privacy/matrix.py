"""Matrix mechanisms: how noise of several rounds hangs together, and what one client then moves.

A run shows prefix sums A S, A the lower triangle of ones. The mechanism releases A S + B Z with
A = B C: as private as C S + Z, so one client moves it by the norm of its rounds' columns of C. The
release then costs `Gaussian(noise multiplier of Z / sensitivity)`, once for all its rounds.

Fichtenberger, Henzinger, Upadhyay, ICML 2023, arXiv:2202.11205 (square root of A); Choquette-Choo
et al., NeurIPS 2023, arXiv:2306.08153 (bands); Kairouz et al., ICML 2021, arXiv:2103.00039 (tree).
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from folkmoot.core.errors import SettingsError, positive
from folkmoot.privacy.library import scipy_part


def square_root(rounds: int) -> np.ndarray:
    """Return the first column of the square root of A, (rounds,): c_k = c_{k-1} (2k - 1) / 2k."""
    steps = np.arange(1, rounds)
    return np.concatenate([[1.0], np.cumprod((2 * steps - 1) / (2 * steps))])


@functools.lru_cache(maxsize=32)
def optimal_bands(rounds: int, bands: int) -> tuple[float, ...]:
    """Return the bands of the Toeplitz matrix C whose prefix sums have the least mean error.

    Args:
        rounds: Of the run.
        bands: Largest number of bands; at most `rounds` are used.

    Returns:
        c_0, c_1, ..., falling, with c_0 = 1.

    Source: McMahan et al., "A Hassle-free Algorithm for Private Learning", 2024, arXiv:2408.08868,
    section 3, which optimises the same by gradients.
    """
    positive(rounds=rounds, bands=bands)
    width = min(bands, rounds)
    begin = square_root(rounds)[1:width]
    if not len(begin):
        return (1.0,)

    def cost(free: np.ndarray) -> tuple[float, np.ndarray]:
        return _loss_and_slope(np.concatenate([[1.0], free]), rounds)

    # From the square root, which is the best there is but for a constant: a few dozen steps.
    minimize = scipy_part("optimize").minimize
    found = minimize(cost, begin, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(begin))
    # Falling coefficients keep the noise from growing.
    return (1.0, *np.minimum.accumulate(np.minimum(found.x, 1.0)).tolist())


def _loss_and_slope(coefficients: np.ndarray, rounds: int) -> tuple[float, np.ndarray]:
    """Return the log of (mean squared error x squared sensitivity), and its slope by c_1, ...

    B = A C^-1 is Toeplitz, with b the prefix sums of C's inverse; the mean over rounds of its
    rows' squared norms weighs b_j by rounds - j.
    """
    inverse = toeplitz_inverse(coefficients, rounds)
    sums = np.cumsum(inverse)
    weights = (rounds - np.arange(rounds)) / rounds
    error, squared = float(weights @ sums**2), float(coefficients @ coefficients)
    # d inverse / d c_k is minus inverse * inverse shifted by k.
    twice = np.convolve(inverse, np.cumsum(inverse))[:rounds]
    weighted = 2 * weights * sums
    slopes = [-float(weighted[k:] @ twice[: rounds - k]) for k in range(1, len(coefficients))]
    slope = np.array(slopes) / error + 2 * coefficients[1:] / squared
    return math.log(error) + math.log(squared), slope


def toeplitz_inverse(coefficients: Sequence[float] | np.ndarray, rounds: int) -> np.ndarray:
    """Return the first column of C^-1, (rounds,), of a lower triangular Toeplitz matrix C."""
    band = np.asarray(coefficients, dtype=np.float64)
    found = np.zeros(rounds)
    found[0] = 1 / band[0]
    for row in range(1, rounds):
        reach = min(row, len(band) - 1)
        found[row] = -(band[1 : reach + 1] @ found[row - reach : row][::-1]) / band[0]
    return found


def sensitivity(
    coefficients: Sequence[float], rounds: int, participations: int = 1, separation: int = 1
) -> float:
    """Return the largest norm of C u over what one client of norm 1 may do.

    Args:
        coefficients: C's bands.
        rounds: Of the run.
        participations: Most rounds of one client.
        separation: Rounds from one of them to the next, at least.

    Raises:
        SettingsError: If columns of one client overlap, where more than one takes part.
    """
    positive(rounds=rounds, participations=participations, separation=separation)
    column = coefficients[:rounds]
    if participations > 1 and len(column) > separation:
        raise SettingsError(
            f"{len(column)} bands are felt for as many rounds, but a client may come again after "
            f"{separation}, and of overlapping columns no bound is proved. Use at most "
            f"{separation} bands, or keep clients further apart."
        )
    # Columns that do not overlap are orthogonal; none of a Toeplitz matrix beats the first.
    return math.sqrt(participations * math.fsum(one * one for one in column))


def participations(rounds: int, separation: int) -> int:
    """Return how often one client may take part."""
    return math.ceil(rounds / separation)


def errors(coefficients: Sequence[float], rounds: int) -> tuple[float, float]:
    """Return (largest, root mean square) deviation of the prefix sums' noise, over the rounds.

    Args:
        coefficients: C's bands.
        rounds: Of the run.

    Returns:
        For Z of deviation 1: multiply by the sensitivity to compare matrices at equal privacy.
    """
    squares = np.cumsum(np.cumsum(toeplitz_inverse(coefficients, rounds)) ** 2)
    return math.sqrt(squares[-1]), math.sqrt(float(squares.mean()))


def tree_height(rounds: int) -> int:
    """Return how many nodes of a tree over so many rounds hold one round: ceil(log2(rounds + 1)).

    A client that takes part once moves each of them, so its sensitivity is the square root.
    """
    return rounds.bit_length()


def tree_covariance(rounds: int, restart: int | None = None) -> np.ndarray:
    """Return the covariance of a tree's prefix sums, (rounds, rounds), for nodes of deviation 1.

    The sum of rounds 1 to t is covered by a node for each binary digit 1 of t, so two sums share
    the nodes of the digits that they have in common from the top.

    Args:
        rounds: Of the run.
        restart: Rounds of one tree, each of which begins where the one before has ended; None for
            one tree.
    """
    covers = [_cover(last, restart or rounds) for last in range(1, rounds + 1)]
    return np.array([[float(len(a & b)) for b in covers] for a in covers])


def _cover(last: int, restart: int) -> set[tuple[int, int]]:
    """Return the nodes (first round, rounds) that cover the rounds up to `last`."""
    found, begin = set(), 0
    while begin < last:
        in_tree = min(restart, last - begin)
        for bit in reversed(range(in_tree.bit_length())):
            if in_tree >> bit & 1:
                found.add((begin, 1 << bit))
                begin += 1 << bit
    return found
