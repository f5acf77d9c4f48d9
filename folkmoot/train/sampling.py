"""Who is asked in a round.

A sampling is a function `(clients, round, rng) -> list of ids`, so a user's own function is one
too. The builders here name themselves and state the cohort that they ask on average.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from folkmoot.core import rng
from folkmoot.core.engine import ClientId, Cohort
from folkmoot.core.errors import SettingsError, positive
from folkmoot.core.fold import ascending
from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    Event,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
)

Draw = Callable[[Sequence[ClientId], int, np.random.Generator], Sequence[ClientId]]


class Sampling(NamedTuple):
    """A rule with its name and the number of clients that it asks on average."""

    name: str
    draw: Draw
    expected: Callable[[int], float]
    """From the population to the cohort's average size."""
    event: Callable[[float, int], Event] | None = None
    """`event(noise multiplier, population)`: what a round costs in privacy, thanks to the lot; None
    where nothing is proved of the lot, and every round may ask anyone."""
    separation: int = 1
    """Rounds from one participation of a client to its next, at least."""
    tiers: int = 1
    """Groups of devices of like speed, of which a round asks one; 1 mixes all."""


def uniform(cohort: int | float | None = None) -> Sampling:
    """Draw without replacement, everyone alike.

    Args:
        cohort: Clients a round as a whole number, or a share of the population in (0, 1] as a
            float; None is everyone.
    """
    _check_cohort(cohort)

    def size(population: int) -> int:
        if cohort is None:
            return population
        if isinstance(cohort, float):
            return max(1, round(cohort * population))
        if cohort > population:
            raise SettingsError(
                f"A cohort of {cohort} clients was asked of a population of {population}. Ask for "
                f"at most {population}."
            )
        return cohort

    def draw(clients: Sequence[ClientId], round: int, rng: np.random.Generator) -> list[ClientId]:
        wanted = size(len(clients))
        if wanted == len(clients):
            return list(clients)
        return [
            clients[place] for place in rng.choice(len(clients), wanted, replace=False).tolist()
        ]

    def event(noise_multiplier: float, population: int) -> Event:
        if size(population) == population:
            return Gaussian(noise_multiplier)
        return FixedSizeGaussian(noise_multiplier, size(population), population)

    name = "everyone" if cohort is None else "uniform without replacement"
    return Sampling(name, draw, size, event)


def poisson(cohort: int | float, *, at_most: int | None = None) -> Sampling:
    """Let each client take part by itself with one probability; the cohort varies, may be empty.

    Args:
        cohort: The expected number of clients, or the probability in (0, 1] as a float.
        at_most: Clients that can be asked in a round; of more, so many are drawn. None is any
            number.
    """
    if cohort is None:
        raise SettingsError("poisson() needs the expected number of clients, or a share in (0, 1].")
    _check_cohort(cohort)

    def rate(population: int) -> float:
        if isinstance(cohort, int) and cohort > population:
            raise SettingsError(
                f"An expected cohort of {cohort} was asked of a population of {population}."
            )
        return cohort if isinstance(cohort, float) else cohort / population

    def draw(clients: Sequence[ClientId], round: int, rng: np.random.Generator) -> list[ClientId]:
        # The number that takes part is binomial; given the number, every set is alike.
        taken = rng.binomial(len(clients), rate(len(clients)))
        if at_most is not None:
            taken = min(taken, at_most)
        return [clients[place] for place in rng.choice(len(clients), taken, replace=False).tolist()]

    def event(noise_multiplier: float, population: int) -> Event:
        chance = rate(population)
        if chance == 1:
            return Gaussian(noise_multiplier)
        if at_most is not None and at_most < population:
            return CappedPoissonGaussian(noise_multiplier, chance, population, at_most)
        return PoissonGaussian(noise_multiplier, chance)

    name = "poisson" if at_most is None else f"poisson, at most {at_most}"
    return Sampling(name, draw, lambda population: rate(population) * population, event)


def separated(cohort: int | float | None, rounds: int) -> Sampling:
    """Ask nobody again before `rounds` rounds have passed, as correlated noise needs.

    Clients are dealt into as many groups by their place, which take turns; the cohort is drawn from
    the group whose turn it is.

    Args:
        cohort: Clients a round, a share of the population, or None for the whole group.
        rounds: Rounds from one participation of a client to its next, at least 1.
    """
    _check_cohort(cohort)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise SettingsError(f"rounds must be a whole number of at least 1, but is {rounds!r}.")

    def size(population: int) -> int:
        # The smallest group's, so that every round asks as many.
        most = population // rounds
        wanted = round(cohort * population) if isinstance(cohort, float) else cohort
        if not most:
            raise SettingsError(
                f"To ask nobody again before {rounds} rounds have passed takes {rounds} clients, "
                f"but here are {population}. Use at most {population} rounds: a tree's restart of "
                f"at most {population}, or as many bands."
            )
        if wanted is not None and wanted > most:
            raise SettingsError(
                f"{wanted} clients a round, none of them again before {rounds} rounds have passed, "
                f"need a population of {wanted * rounds}, but here are {population}. Ask for at "
                f"most {most}, or for fewer rounds apart."
            )
        return most if wanted is None else max(1, wanted)

    def draw(clients: Sequence[ClientId], round: int, rng: np.random.Generator) -> list[ClientId]:
        group = clients[(round - 1) % rounds :: rounds]
        chosen = rng.choice(len(group), size(len(clients)), replace=False)
        return [group[place] for place in chosen.tolist()]

    return Sampling(f"at least {rounds} rounds apart", draw, size, separation=rounds)


def tiered(cohort: int | float, *, tiers: int = 5) -> Sampling:
    """Ask devices of like speed together, so that none waits for one of another speed.

    Args:
        cohort: Clients a round, or a share of the population in (0, 1].
        tiers: Groups into which a fleet's devices are cut by how long they take, at least 2.

    Source: Chai et al., "TiFL", HPDC 2020, arXiv:2001.09249, with tiers drawn in proportion to the
    devices that are there.
    """
    _check_cohort(cohort)
    if isinstance(tiers, bool) or not isinstance(tiers, int) or tiers < 2:
        raise SettingsError(f"tiers must be a whole number of at least 2, but is {tiers!r}.")

    def refuse(clients: Sequence[ClientId], round: int, rng: np.random.Generator) -> list[ClientId]:
        raise SettingsError(
            "sampling.tiered() ranks devices by their speed, which is not known here. Say who they "
            "are: fleet=fm.fleets.phones()."
        )

    found = uniform(cohort)
    return Sampling(f"uniform in one of {tiers} tiers", refuse, found.expected, tiers=tiers)


def by_arrival(buffer: int) -> Sampling:
    """Return what a buffered run is to those who ask how cohorts are drawn: of nothing by lot."""

    def refuse(clients: Sequence[ClientId], round: int, rng: np.random.Generator) -> list[ClientId]:
        raise SettingsError("Buffers are filled as answers arrive, which takes a fleet=.")

    return Sampling("as answers arrive", refuse, lambda population: buffer)


def weighted(cohort: int, weights: Mapping[ClientId, float]) -> Sampling:
    """Draw without replacement, with chances in proportion to weights.

    Args:
        cohort: Clients a round.
        weights: A number of at least 0 for every client.
    """
    if isinstance(cohort, bool) or not isinstance(cohort, int) or cohort < 1:
        raise SettingsError(f"cohort must be a whole number of at least 1, but is {cohort!r}.")

    def draw(clients: Sequence[ClientId], round: int, rng: np.random.Generator) -> list[ClientId]:
        missing = [client for client in clients if client not in weights]
        if missing:
            raise SettingsError(
                f"Sampling has no weight for client {missing[0]!r} and {len(missing) - 1} others."
            )
        chances = np.array([weights[client] for client in clients], dtype=np.float64)
        if not (
            np.isfinite(chances).all() and (chances >= 0).all() and (chances > 0).sum() >= cohort
        ):
            raise SettingsError(
                f"Weights must be finite, not negative, and above 0 for at least the {cohort} "
                "clients of a cohort."
            )
        places = rng.choice(len(clients), cohort, replace=False, p=chances / chances.sum())
        return [clients[place] for place in places.tolist()]

    return Sampling("weighted", draw, lambda population: cohort)


def fixed(clients: Sequence[ClientId]) -> Sampling:
    """Ask the same clients in every round.

    Args:
        clients: Their ids.
    """
    chosen = list(clients)
    return Sampling("fixed", lambda known, round, rng: chosen, lambda population: len(chosen))


def as_sampling(sampling: Sampling | Draw | None, cohort: int | float | None) -> Sampling:
    """Return what `run` draws with: a given sampling, a user's function, or a uniform cohort."""
    if sampling is None:
        return uniform(cohort)
    if isinstance(sampling, Sampling):
        if cohort is not None:
            raise SettingsError(
                f"Both cohort={cohort} and sampling={sampling.name!r} say how many clients to ask. "
                "Give one of them."
            )
        return sampling
    if not callable(sampling):
        raise SettingsError(
            "sampling must come from fm.sampling or be a function (clients, round, rng) -> list, "
            f"but is {sampling!r}."
        )
    name = getattr(sampling, "__name__", "function")
    return Sampling(f"function {name}", sampling, uniform(cohort).expected)


def draw_cohort(
    sampling: Sampling, clients: Sequence[ClientId], round: int, seed: int, part: str = "train"
) -> Cohort:
    """Draw the cohort of a round from its own stream.

    Raises:
        SettingsError: If a user's function returns an unknown id, or one twice.
    """
    generator = rng.generator(rng.derive(seed, round=round, purpose="cohort"))
    drawn = sampling.draw(clients, round, generator)
    if not isinstance(drawn, list | tuple | np.ndarray):
        raise SettingsError(
            f"The sampling {sampling.name!r} must return a list of client ids, but returned "
            f"{type(drawn).__name__}."
        )
    ids = ascending(_plain(client) for client in drawn)
    known = clients if isinstance(clients, range) else set(clients)
    for client in ids:
        if client not in known:
            raise SettingsError(
                f"The sampling {sampling.name!r} chose client {client!r} in round {round}, who is "
                "unknown."
            )
    return Cohort(round, ids, len(clients), sampling.expected(len(clients)), part)


def _plain(client: Any) -> ClientId:
    """Turn numpy's integers into Python's."""
    return client.item() if isinstance(client, np.generic) else client


def _check_cohort(cohort: int | float | None) -> None:
    if cohort is None:
        return
    if isinstance(cohort, bool) or not isinstance(cohort, int | float):
        raise SettingsError(
            "cohort must be a whole number of clients, a share in (0, 1], or None for everyone, "
            f"but is {cohort!r}."
        )
    positive(cohort=cohort)
    if isinstance(cohort, float) and (cohort > 1 or math.isnan(cohort)):
        raise SettingsError(
            f"cohort={cohort} is a float, so a share of the population, which is at most 1. For a "
            f"number of clients write {int(cohort)}."
        )
