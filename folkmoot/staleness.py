"""Staleness: how much a late answer counts, and when it counts no more, for `staleness=` of a run.

    result = fm.run(..., buffer=10, staleness=fm.staleness.polynomial(0.5, at_most=20))

The staleness of an answer is the number of new models since the one that its client was given; 0 is
the present one. A late answer is multiplied by a weight of at most 1, and what a buffer adds up to
is divided as if all counted whole (the rule of FedBuff): stale answers make steps shorter.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", 2019, arXiv:1903.03934, section 5.
Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022,
arXiv:2106.06639.
"""

from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

from folkmoot.core.errors import SettingsError, not_negative


class Staleness(NamedTuple):
    """A rule of staleness; a function of your own may take the place of the weight."""

    name: str
    weight: Callable[[int], float]
    """From a staleness of at least 0 to a weight above 0 and at most 1."""
    at_most: int
    """Staleness up to which an answer counts; later ones are left out, by name."""


def polynomial(exponent: float = 0.5, *, at_most: int = 100) -> Staleness:
    """Weigh by (1 + staleness)^-exponent; FedBuff's 1 / sqrt(1 + staleness) by default.

    Args:
        exponent: At least 0; 0 weighs all alike.
        at_most: Staleness up to which an answer counts.

    Raises:
        SettingsError: If a number is out of range.
    """
    not_negative(exponent=exponent)
    name = f"(1 + staleness)^-{exponent:g}"
    return Staleness(name, lambda staleness: (1 + staleness) ** -exponent, _bound(at_most))


def hinge(slope: float = 10.0, free: int = 4, *, at_most: int = 100) -> Staleness:
    """Weigh by 1 up to a staleness of `free`, then by 1 / (slope * (staleness - free) + 1).

    Args:
        slope: Above which answers fade; at least 0.
        free: Staleness without a loss, at least 0.
        at_most: Staleness up to which an answer counts.

    Raises:
        SettingsError: If a number is out of range.
    """
    not_negative(slope=slope, free=free)

    def weight(staleness: int) -> float:
        return 1.0 if staleness <= free else 1 / (slope * (staleness - free) + 1)

    return Staleness(f"hinge({slope:g}, {free})", weight, _bound(at_most))


def as_staleness(given: Staleness | Callable[[int], float] | None) -> Staleness:
    """Return a rule: the one that is given, one around a function, or `polynomial()`.

    Raises:
        SettingsError: If it is none, or weighs outside of (0, 1].
    """
    if given is None:
        return polynomial()
    rule = given
    if not isinstance(rule, Staleness):
        if not callable(rule):
            raise SettingsError(
                "staleness must be a rule such as fm.staleness.polynomial(0.5), or a function of "
                f"the staleness, but is {given!r}."
            )
        rule = Staleness(getattr(rule, "__name__", "function"), rule, 100)
    for staleness in range(min(rule.at_most, 1_000) + 1):
        weight = rule.weight(staleness)
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < weight <= 1:
            raise SettingsError(
                f"An answer of staleness {staleness} would weigh {weight!r} by {rule.name}. A "
                "weight lies above 0 and is at most 1, so that no late answer outweighs a fresh "
                "one."
            )
    return rule


def _bound(at_most: int) -> int:
    if isinstance(at_most, bool) or not isinstance(at_most, int) or at_most < 0:
        raise SettingsError(f"at_most must be a whole number of at least 0, but is {at_most!r}.")
    return at_most
