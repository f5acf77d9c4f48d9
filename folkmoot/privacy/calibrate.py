"""From a budget to the least noise, the most rounds, or the largest cohort that it pays for.

What is returned never overspends: it is the side of the root on which the accountant agrees. A
guess, in closed form, tells where to look, so that the accountant is asked about five times.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.privacy.accountants import epsilon as epsilon_of
from folkmoot.privacy.accountants import epsilon_guess
from folkmoot.privacy.events import Charge

_LEAST, _MOST = 2.0**-6, 2.0**40
"""Noise multipliers between which is looked."""
_CLOSE = 0.004
"""Share of the target that may be left unspent."""
_STRIDE = 4.0
"""Largest factor between a noise that was tried and the next one."""
_HALVING = 4
"""Of so many steps inside a bracket one halves it: where epsilon jumps, secants creep."""


_NARROW = 8
"""Bracket of whole numbers that is halved."""

ChargesOf = Callable[[float], Sequence[Charge]]
"""From a noise multiplier to what a run costs."""


def noise_for(epsilon: float, delta: float, charges_of: ChargesOf) -> float:
    """Return the least noise multiplier with which a run stays within a budget.

    Args:
        epsilon: The target, above 0.
        delta: In (0, 1).
        charges_of: From a noise multiplier to the whole run's charges; more noise costs less.

    Returns:
        A multiplier whose epsilon is at most the target, and at least 0.99 of it; 1/64 where even
        less noise would do.

    Raises:
        SettingsError: If no noise is enough, or as `accountants.epsilon`.
    """
    _refuse(epsilon, delta, charges_of)
    aim = (1 - _CLOSE / 2) * epsilon
    tried, inside = _guessed_noise(epsilon, delta, charges_of), 0
    latest: list[_Point] = []
    little, enough = _Point(0.0, math.inf), _Point(math.inf, 0.0)
    while little.noise < tried < enough.noise:
        found = _Point(tried, epsilon_of(charges_of(tried), delta))
        latest = [*latest[-1:], found]
        little, enough = (found, enough) if found.epsilon > epsilon else (little, found)
        if enough.epsilon >= (1 - _CLOSE) * epsilon or enough.noise <= _LEAST:
            break
        if little.noise >= _MOST:
            raise SettingsError(
                f"No noise is enough for epsilon {epsilon:g} at delta {delta:g}: what does not "
                f"depend on it costs {little.epsilon:.4g}. Choose a larger epsilon."
            )
        tried = min(_MOST, max(_LEAST, _along(latest, aim)))
        if little.noise > 0 and enough.noise < math.inf:
            inside += 1
            if inside % _HALVING == 0 or not little.noise < tried < enough.noise:
                tried = math.sqrt(little.noise * enough.noise)
    return enough.noise


def rounds_for(epsilon: float, delta: float, charges_of: Callable[[int], Sequence[Charge]]) -> int:
    """Return the most rounds that a budget pays for.

    Args:
        epsilon, delta: The budget.
        charges_of: From a number of rounds to a run's charges.

    Raises:
        SettingsError: If it does not pay for one.
    """
    return _most(epsilon, delta, charges_of, 1 << 40, "round")


def cohort_for(
    epsilon: float, delta: float, charges_of: Callable[[int], Sequence[Charge]], population: int
) -> int:
    """Return the largest cohort that a budget pays for.

    Args:
        epsilon, delta: The budget.
        charges_of: From the cohort's size to a run's charges.
        population: The most that there can be.

    Raises:
        SettingsError: If it does not pay for a cohort of one.
    """
    return _most(epsilon, delta, charges_of, population, "client a round")


def refuse_delta(delta: float, population: int) -> None:
    """Refuse a delta with which releasing one member's data outright would be allowed.

    Raises:
        SettingsError: If delta is not below 1 / population.
    """
    if delta >= 1 / population:
        raise SettingsError(
            f"delta {delta:g} is not below 1 / population, {1 / population:.2g} for "
            f"{population} clients: publishing one of them at random would be private. Choose a "
            f"delta such as {0.1 / population:.0e}."
        )


def _refuse(epsilon: float, delta: float, charges_of: Any) -> None:
    """Refuse a budget that is none, and charges that do not follow from a number."""
    positive(epsilon=epsilon)
    not_negative(delta=delta)
    if not callable(charges_of):
        raise SettingsError(
            "charges_of must be a function from a number to a list of (event, times), such as "
            f"lambda noise: [(fm.privacy.Gaussian(noise), 100)], but is {charges_of!r}."
        )


class _Point(NamedTuple):
    noise: float
    epsilon: float


def _along(points: Sequence[_Point], aim: float) -> float:
    """Return the noise at which epsilon is the aim, if it goes as a power of the noise.

    The power comes from the last two points, or is taken to be the inverse square; the step from
    the last one is at most `_STRIDE`.
    """
    last, power = points[-1], 2.0
    if len(points) == 2 and all(0 < point.epsilon < math.inf for point in points):
        first = points[0]
        power = math.log(first.epsilon / last.epsilon) / math.log(last.noise / first.noise)
    if not 0 < last.epsilon < math.inf:
        return last.noise * (_STRIDE if last.epsilon else 1 / _STRIDE)
    step: float = (last.epsilon / aim) ** (1 / max(power, 0.2))
    return last.noise * min(_STRIDE, max(1 / _STRIDE, step))


def _guessed_noise(epsilon: float, delta: float, charges_of: ChargesOf) -> float:
    """Return about the noise that is looked for."""
    low, high = _LEAST, _MOST
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        fits = epsilon_guess(charges_of(middle), delta) <= epsilon
        low, high = (low, middle) if fits else (middle, high)
    return high


def _most(
    epsilon: float,
    delta: float,
    charges_of: Callable[[int], Sequence[Charge]],
    most: int,
    what: str,
) -> int:
    """Return the largest number whose charges fit."""
    _refuse(epsilon, delta, charges_of)
    spent: dict[int, float] = {}

    def fits(number: int) -> bool:
        spent[number] = epsilon_of(charges_of(number), delta)
        return spent[number] <= epsilon

    if not fits(1):
        raise SettingsError(
            f"Epsilon {epsilon:g} at delta {delta:g} does not pay for one {what}, which costs "
            f"{spent[1]:.4g}; add noise."
        )
    low, high, width = 1, most + 1, 1
    tried = _guessed_number(epsilon, delta, charges_of, most)
    while high - low > 1:
        low, high = (tried, high) if fits(tried) else (low, tried)
        if high <= most:
            tried = _between(low, high, spent, epsilon)
        else:
            # Above what fits, at first by a hundredth, then by more and more.
            tried, width = low + max(1, low * width // 100), 4 * width
        tried = min(max(tried, low + 1), high - 1)
    return low


def _between(low: int, high: int, spent: Mapping[int, float], target: float) -> int:
    """Return where the chord of two epsilons meets the target, or the middle if they are near."""
    rise = spent[high] - spent[low]
    if high - low <= _NARROW or not 0 < rise < math.inf:
        return (low + high) // 2
    return low + round((high - low) * min(0.9, max(0.1, (target - spent[low]) / rise)))


def _guessed_number(
    epsilon: float, delta: float, charges_of: Callable[[int], Sequence[Charge]], most: int
) -> int:
    """Return about the largest number whose charges fit, at least 2 where there can be two."""
    low, high = 1, most + 1
    while high - low > 1:
        middle = min(2 * low, (low + high) // 2) if high > most else (low + high) // 2
        fits = epsilon_guess(charges_of(middle), delta) <= epsilon
        low, high = (middle, high) if fits else (low, middle)
    return min(most, max(2, low))
