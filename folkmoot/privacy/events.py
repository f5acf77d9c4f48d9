"""What an exchange has done to privacy, as data: the mechanism that ran, and by what lot.

Recorded is what really happened, never a bare (noise, rate, rounds): fixed cohorts reported with
the amplification of Poisson sampling are the field's commonest lie.
"""

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from folkmoot.core.errors import SettingsError, not_negative, positive


@dataclass(frozen=True)
class Gaussian:
    """Gaussian noise on a sum in which anyone may take part: nothing is gained by a lot."""

    noise_multiplier: float
    """Standard deviation of the noise in the sum over the largest L2 norm of one contribution; 0
    hides nothing."""

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)


@dataclass(frozen=True)
class PoissonGaussian:
    """Gaussian noise on the sum of those whom a coin of their own has put into the cohort."""

    noise_multiplier: float
    rate: float
    """Chance of each to be in, in (0, 1]."""

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)
        _share(rate=self.rate)


@dataclass(frozen=True)
class CappedPoissonGaussian:
    """As `PoissonGaussian`, but of more than `cap` a random `cap` stay in.

    A cap is no detail: one member more may push another out of the cohort, and then moves the sum
    by up to twice the norm.
    """

    noise_multiplier: float
    rate: float
    population: int
    cap: int

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)
        _share(rate=self.rate)
        _whole(population=self.population, cap=self.cap)


@dataclass(frozen=True)
class FixedSizeGaussian:
    """Gaussian noise on the sum of a cohort of fixed size, drawn without replacement.

    Neighbours differ in one member's data, so a sum moves by up to twice the largest norm.
    """

    noise_multiplier: float
    cohort: int
    population: int

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)
        _whole(cohort=self.cohort, population=self.population)
        if self.cohort > self.population:
            raise SettingsError(
                f"A cohort of {self.cohort} was asked of a population of {self.population}. Ask "
                f"for at most {self.population}."
            )


@dataclass(frozen=True)
class LocalGaussian:
    """Gaussian noise that each client adds to what it sends, with nobody beside it in a sum.

    Neighbours differ in one client's data, so what it sends moves by up to twice the largest norm.
    """

    noise_multiplier: float
    """Standard deviation of one client's own noise over the largest L2 norm of what it sends."""

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)


@dataclass(frozen=True)
class Skellam:
    """Skellam noise on a sum of whole numbers in which anyone may take part."""

    noise_multiplier: float
    """Standard deviation of the noise in the sum over `reach`; 0 hides nothing."""
    reach: float
    """Largest L2 norm of one contribution, in the whole numbers that are added."""
    size: int
    """Coordinates, which bound the L1 norm."""

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)
        positive(reach=self.reach)
        _whole(size=self.size)


@dataclass(frozen=True)
class Laplace:
    """Laplace noise on a sum in which anyone may take part."""

    noise_multiplier: float
    """Scale of the noise over the largest L1 norm of one contribution; 0 hides nothing."""

    def __post_init__(self) -> None:
        not_negative(noise_multiplier=self.noise_multiplier)


@dataclass(frozen=True)
class Pure:
    """Any mechanism that is `epsilon`-differentially private, such as randomized response."""

    epsilon: float

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon)


Event = (
    Gaussian
    | PoissonGaussian
    | CappedPoissonGaussian
    | FixedSizeGaussian
    | LocalGaussian
    | Skellam
    | Laplace
    | Pure
)
Charge = tuple[Event, int]
"""An event, and how often it happened."""

ADD_OR_REMOVE, REPLACE = "add-or-remove-one", "replace-one"
ZERO_OUT = "zero-out-one"
"""One's data are blank on one side, and who is asked stays the same: what holds of noise on a sum
whatever lot draws the cohort. An event that hides adding or removing one hides this too."""
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in Event.__args__}


def adjacency(event: Event) -> str:
    """Return what neighbouring data sets of an event differ in."""
    return REPLACE if isinstance(event, FixedSizeGaussian | LocalGaussian) else ADD_OR_REMOVE


def is_open(event: Event) -> bool:
    """Tell whether an event releases something as it is, without noise."""
    return not isinstance(event, Pure) and event.noise_multiplier == 0


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as plain JSON; numbers of numpy become Python's."""
    fields = dataclasses.asdict(event).items()
    plain = {name: int(n) if isinstance(n, Integral) else float(n) for name, n in fields}
    return {"event": type(event).__name__, **plain}


def from_json(data: dict[str, Any]) -> Event:
    """Read back what `as_json` has made.

    Raises:
        SettingsError: If it is no event.
    """
    rest = {name: value for name, value in data.items() if name != "event"}
    try:
        made: Event = _KINDS[data["event"]](**rest)
    except (LookupError, TypeError) as error:
        raise SettingsError(
            f"{data!r} is no privacy event: {error!r}. Known: {', '.join(sorted(_KINDS))}."
        ) from error
    return made


def _share(**values: float) -> None:
    """Refuse, by name and value, what is no share of a whole."""
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 < value <= 1:
            raise SettingsError(f"{name} must be above 0 and at most 1, but is {value!r}.")


def _whole(**values: int) -> None:
    """Refuse, by name and value, what is no whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, Integral) or value < 1:
            raise SettingsError(f"{name} must be a whole number of at least 1, but is {value!r}.")
