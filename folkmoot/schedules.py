"""Schedules: learning rates as functions of the round, for `lr=` of local work and of servers.

    work = fm.local.sgd(objective, lr=fm.schedules.cosine(0.2, rounds=200))

Rounds are counted from 1; one that no client answers changes nothing and is not counted. A schedule
is a pure function whose numbers are noted with the run, so a stored run does not go on with another
one. Any function from a round to a rate is one too.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from folkmoot.core.errors import SettingsError, not_negative, positive

Schedule = Callable[[int], float]
"""`schedule(round)` -> the learning rate of that round; the first round is 1."""


def exponential(lr: float, decay: float, *, every: int = 1) -> Schedule:
    """Multiply the rate by `decay` after each `every` rounds: lr * decay^((round - 1) // every).

    Args:
        lr: Rate of the first round, at least 0.
        decay: Factor, above 0 and at most 1.
        every: Rounds that share a rate, at least 1.

    Raises:
        SettingsError: If a number is out of range.
    """
    not_negative(lr=lr)
    _positive_share(decay=decay)
    _whole(every=every)

    def rate(round: int) -> float:
        return lr * decay ** ((round - 1) // every)

    return rate


def cosine(lr: float, rounds: int, *, floor: float = 0.0) -> Schedule:
    """Let the rate fall from `lr` to `floor` along half a cosine.

    Loshchilov and Hutter, "SGDR", ICLR 2017, arXiv:1608.03983, equation 5, without restarts: floor
    + (lr - floor) * (1 + cos(pi * (round - 1) / rounds)) / 2.

    Args:
        lr: Rate of the first round, at least 0.
        rounds: Rounds until the floor is reached, at least 1; the last of them is just above it,
            all that follow are on it.
        floor: Smallest rate, at least 0 and at most `lr`.

    Raises:
        SettingsError: If a number is out of range.
    """
    not_negative(lr=lr, floor=floor)
    _whole(rounds=rounds)
    if floor > lr:
        raise SettingsError(f"floor must be at most lr={lr!r}, but is {floor!r}.")

    def rate(round: int) -> float:
        passed = min(1.0, (round - 1) / rounds)
        return floor + (lr - floor) * (1 + math.cos(math.pi * passed)) / 2

    return rate


def warmup(lr: float | Schedule, rounds: int) -> Schedule:
    """Let the rate rise evenly in the first rounds: times round / rounds, until that is 1.

    Args:
        lr: Rate after the warm-up, at least 0, or a schedule; a schedule counts its rounds from the
            first one, not from the end of the warm-up.
        rounds: Rounds of warm-up, at least 1; the last of them has the whole rate.

    Raises:
        SettingsError: If a number is out of range.
    """
    if not callable(lr):
        not_negative(lr=lr)
    _whole(rounds=rounds)

    def rate(round: int) -> float:
        whole = lr(round) if callable(lr) else lr
        return whole * min(1.0, round / rounds)

    return rate


def piecewise(lr: float, factors: Mapping[int, float]) -> Schedule:
    """Multiply the rate by a factor from a given round on; later factors come on top.

    Args:
        lr: Rate of the first round, at least 0.
        factors: Round -> factor, at least 0: `{100: 0.1, 150: 0.1}` is lr before round 100, a tenth
            from there on, a hundredth from round 150 on.

    Raises:
        SettingsError: If a number is out of range, or there is no factor.
    """
    not_negative(lr=lr)
    if not isinstance(factors, Mapping) or not factors:
        raise SettingsError(
            f"piecewise() needs factors by round, such as {{100: 0.1, 150: 0.1}}, but was given "
            f"{factors!r}."
        )
    for start, factor in factors.items():
        _whole(**{"a round of factors": start})
        not_negative(**{f"factors[{start}]": factor})
    steps = dict(sorted(factors.items()))

    def rate(round: int) -> float:
        return lr * math.prod(factor for start, factor in steps.items() if start <= round)

    return rate


def _positive_share(**values: float) -> None:
    positive(**values)
    for name, value in values.items():
        if value > 1:
            raise SettingsError(f"{name} must be at most 1, but is {value!r}.")


def _whole(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SettingsError(f"{name} must be a whole number of at least 1, but is {value!r}.")
