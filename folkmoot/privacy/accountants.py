"""How much of its budget a run has spent: epsilon at a delta, for what has really happened.

Three ways lead from events to epsilon, each an upper bound: the closed form for Gaussian noise
without a lot, privacy loss distributions, and Rényi divergences. `epsilon` is the least that is
proved for what is asked; `epsilon_bound` is the quickest.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from numbers import Real

from folkmoot.core.errors import SettingsError
from folkmoot.privacy.closed_form import gaussian_delta, gaussian_epsilon
from folkmoot.privacy.divergences import delta_by_divergences, epsilon_by_divergences
from folkmoot.privacy.events import (
    REPLACE,
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
    adjacency,
    is_open,
)
from folkmoot.privacy.losses import delta_by_losses, epsilon_by_losses

__all__ = ["delta_of", "epsilon", "epsilon_bound", "epsilon_curve", "gaussian_epsilon"]

_POINTS = 12
_NONE = 1e-3
"""Noise that counts as none: epsilon would be in the hundred thousands."""


def epsilon(charges: Iterable[Charge], delta: float) -> float:
    """Return the epsilon that all charges together have spent.

    Args:
        charges: Events, and how often each happened.
        delta: In (0, 1); 0 where every event is pure.

    Returns:
        By the closed form where all noise is Gaussian and no lot is drawn, by Rényi divergences for
        cohorts of fixed size and Skellam noise, else by privacy loss distributions, which may add a
        thousandth.
        Infinite where something was released without noise.

    Raises:
        SettingsError: If delta is out of range, neighbours differ from event to event, or a library
            is missing.
    """
    return _epsilon(_merged(charges, delta), float(delta))


def epsilon_bound(charges: Iterable[Charge], delta: float) -> float:
    """Return a quick upper bound on `epsilon`, by Rényi divergences: for a live meter.

    Args, Raises: As for `epsilon`.
    """
    merged = _merged(charges, delta)
    if not merged or _is_open(merged):
        return math.inf if merged else 0.0
    return epsilon_by_divergences(merged, delta) if delta else _sum_of_pure(merged)


def delta_of(charges: Iterable[Charge], epsilon: float) -> float:
    """Return the delta at which all charges together have spent an epsilon.

    Args:
        charges: Events, and how often each happened.
        epsilon: At least 0.

    Raises:
        SettingsError: If neighbours differ from event to event, or epsilon is below 0.
    """
    if not is_number(epsilon) or not epsilon >= 0:
        raise SettingsError(f"epsilon must be at least 0, but is {epsilon!r}.")
    merged = _merged(charges)
    if not merged or _is_open(merged):
        return 1.0 if merged else 0.0
    found = [1.0]
    shift = _shift_without_lot(merged)
    if shift is not None:
        found += [gaussian_delta(shift, epsilon)]
    if _all(merged, Laplace, Pure) and _sum_of_pure(merged) <= epsilon:
        return 0.0
    if _all(merged, Gaussian, LocalGaussian):
        return min(found)
    by_any = delta_by_divergences if _by_divergences_alone(merged) else delta_by_losses
    return min(*found, by_any(merged, epsilon))


def epsilon_curve(
    charges: Sequence[Charge], rounds: int, delta: float, points: int = _POINTS
) -> list[tuple[int, float]]:
    """Return (round, epsilon) along a run whose charges came evenly; the first and last among them.

    Args:
        charges: Of the whole run.
        rounds: Rounds done.
        delta: As for `epsilon`.
        points: About so many rounds after the first.
    """
    paid = listed(charges)
    if rounds < 1:
        return []
    chosen = {1, *(max(1, round(rounds * place / points)) for place in range(1, points + 1))}
    return [
        (number, epsilon([(e, math.ceil(times * number / rounds)) for e, times in paid], delta))
        for number in sorted(chosen)
    ]


def epsilon_guess(charges: Iterable[Charge], delta: float) -> float:
    """Return about what `epsilon` may be, in no time: a place to look from, and no bound.

    Many small releases together are nearly Gaussian noise without a lot (Bu, Dong, Long, Su, HDSR
    2020, arXiv:1911.11607, corollary 4), whose shift is rate sqrt(T (e^(1 / z^2) - 1)). Without
    replacement, where one may move a sum by twice as much, what is proved comes to twice that.
    """
    shifts = []
    for event, times in listed(charges):
        match event:
            case Pure(spent):
                shift = spent
            case FixedSizeGaussian(noise, cohort, population):
                shift = 2 * _by_lot(noise / 2, cohort / population)
            case LocalGaussian(noise):
                shift = _by_lot(noise / 2, 1.0)
            case PoissonGaussian(noise, rate) | CappedPoissonGaussian(noise, rate):
                shift = _by_lot(noise, rate)
            case _:
                shift = _by_lot(event.noise_multiplier, 1.0)
        shifts.append(math.sqrt(times) * shift)
    return gaussian_epsilon(math.hypot(*shifts), delta)


def listed(charges: Iterable[Charge]) -> list[Charge]:
    """Return charges as a list, or refuse what are none, with how they are written."""
    form = "charges must be a list of (event, times), such as [(fm.privacy.Gaussian(1.0), 100)]"
    if not isinstance(charges, Iterable):
        raise SettingsError(f"{form}, but are {charges!r}.")
    found = list(charges)
    for one in found:
        if not (isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], Event)):
            raise SettingsError(f"{form}, but hold {one!r}.")
        event, times = one
        whole = is_number(times) and 0 <= times < math.inf and times == int(times)
        if not whole:
            raise SettingsError(f"{event} cannot have happened {times!r} times.")
    return found


def is_number(value: object) -> bool:
    """Tell whether a value is a real number; True and False are switches."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _by_lot(noise: float, rate: float) -> float:
    inverse = 1 / max(noise, 1e-100)
    return min(rate * math.sqrt(math.expm1(min(inverse * inverse, 600.0))), inverse)


def _merged(charges: Iterable[Charge], delta: float | None = None) -> tuple[Charge, ...]:
    """Add up equal events; refuse neighbours of two kinds, and a delta that they cannot have."""
    found: dict[Event, int] = {}
    for event, times in listed(charges):
        if times:
            plain = _plain(event)
            found[plain] = found.get(plain, 0) + int(times)
    if len({adjacency(event) for event in found}) > 1:
        raise SettingsError(
            "These events hide different things: neighbours differ by one that is added or removed "
            "in some, and by one that is replaced in others, so they have no common epsilon. Keep "
            "them in ledgers of their own."
        )
    merged = tuple(found.items())
    if delta is None:
        return merged
    pure = _all(merged, Laplace, Pure)
    if not is_number(delta) or not (0 < delta < 1 or (delta == 0 and pure)):
        raise SettingsError(
            f"delta must be above 0 and below 1, but is {delta!r}; Gaussian noise never hides "
            "anything for certain, which a delta of 0 asks for."
        )
    return merged


@functools.lru_cache(maxsize=512)
def _epsilon(charges: tuple[Charge, ...], delta: float) -> float:
    if not charges:
        return 0.0
    if _is_open(charges):
        return math.inf
    if delta == 0:
        return _sum_of_pure(charges)
    # Whatever a lot adds, without it the sum would be as private as this.
    least = math.inf
    shift = _shift_without_lot(charges)
    if shift is not None:
        least = gaussian_epsilon(shift, delta)
    elif _all(charges, Laplace, Pure):
        least = _sum_of_pure(charges)
    if _all(charges, Gaussian, LocalGaussian):
        return least
    if _by_divergences_alone(charges):
        return min(least, epsilon_by_divergences(charges, delta))
    found, settled = epsilon_by_losses(charges, delta, min(epsilon_guess(charges, delta), least))
    # Divergences have no grid: they do better for very many rounds, or a very small delta.
    return min(least, found if settled else min(found, epsilon_by_divergences(charges, delta)))


def _plain(event: Event) -> Event:
    """Return the simplest event that is the same: a lot that all win is none."""
    match event:
        case PoissonGaussian(noise, 1):
            return Gaussian(noise)
        case CappedPoissonGaussian(noise, rate, population, cap) if cap >= population:
            return _plain(PoissonGaussian(noise, rate))
    return event


def _is_open(charges: Sequence[Charge]) -> bool:
    """Tell whether something was released as it was, or as good as."""
    return any(
        is_open(event) or getattr(event, "noise_multiplier", 1.0) < _NONE for event, _ in charges
    )


def _all(charges: Sequence[Charge], *kinds: type) -> bool:
    return all(isinstance(event, kinds) for event, _ in charges)


def _by_divergences_alone(charges: Sequence[Charge]) -> bool:
    """Tell whether something is there of which no privacy loss distribution is known here."""
    return any(adjacency(event) == REPLACE or isinstance(event, Skellam) for event, _ in charges)


def _sum_of_pure(charges: Sequence[Charge]) -> float:
    return math.fsum(times * _pure(event) for event, times in charges)


def _pure(event: Event) -> float:
    """Return the epsilon of an event for delta 0."""
    if isinstance(event, Pure):
        return event.epsilon
    return 1 / event.noise_multiplier if isinstance(event, Laplace) else math.inf


def _shift_without_lot(charges: Sequence[Charge]) -> float | None:
    """Return the sensitivity of all Gaussian noise together, over its deviation; None for other."""
    shifts = []
    for event, times in charges:
        if isinstance(event, Laplace | Pure | Skellam):
            return None
        # One who joins a full cohort takes another's place; alone, one's own is replaced.
        twice = isinstance(event, FixedSizeGaussian | CappedPoissonGaussian | LocalGaussian)
        shifts.append(math.sqrt(times) * (2 if twice else 1) / event.noise_multiplier)
    return math.hypot(*shifts)
