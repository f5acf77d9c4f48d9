"""Client-level privacy on mnist_writers: the setting, which Flower's script shares, and the noise.

Everything that is chosen is chosen for the flat clip by `chosen`, on digits that nobody trains on,
that are not the test set, and with a seed that is not reported.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

import folkmoot as fm
from chapters.flamby import pooled
from chapters.jobs import CORES, run, side_by_side
from folkmoot.privacy import Gaussian, PoissonGaussian, noise_for
from folkmoot.privacy.events import Event

ROUNDS, COHORT, BATCH = 60, 40, 20
"""Rounds, clients a round on average, and examples a batch of the one local epoch."""
EPSILON = 8.0
TUNING_SEED = 100


class Federation(NamedTuple):
    """A federation that a run stands for."""

    population: int
    cohort: int
    """Clients a round, of whom the run asks `COHORT`."""
    delta: float

    @property
    def rate(self) -> float:
        """Chance of a client to be asked in a round."""
        return self.cohort / self.population

    def __str__(self) -> str:
        return f"{self.cohort:,} of {self.population:,}"


LARGE = Federation(1_000_000, 10_000, 1e-7)
SMALL = Federation(10_000, 100, 1e-5)
OWN = Federation(539, COHORT, 1e-4)
"""The writers themselves."""
FEDERATIONS = (LARGE, SMALL, OWN)


class Size(NamedTuple):
    """How much is run."""

    seeds: Sequence[int] = range(3)
    epsilons: Sequence[float] = (1.0, 2.0, 4.0, 8.0)
    rates: Sequence[float] = (0.1, 0.2)
    clips: Sequence[float] = (0.5, 1.0, 2.0)
    rounds: int = ROUNDS
    cohort: int = COHORT
    rows: int | None = None
    """Test digits; None is all."""
    cores: int = CORES


FULL = Size()
QUICK = Size((0,), (8.0,), (0.2,), (1.0,), 2, 5, 200, 1)


class Data(NamedTuple):
    """Who trains, and what judges."""

    clients: Any
    unused: fm.Tree
    """The clients' held-out digits, for choosing."""
    test: fm.Tree


class Chosen(NamedTuple):
    """What was chosen for a federation, and out of what."""

    rate: float
    clip: float
    scores: dict[tuple[float, float], float]


class Found(NamedTuple):
    """What one run gives."""

    accuracy: float
    epsilon: float
    noise_to_signal: float


def data(rows: int | None = None) -> Data:
    """Load the writers."""
    clients, test = fm.data.load("mnist_writers")
    unused = pooled([clients[writer].test for writer in clients])
    cut = [{name: leaf[:rows] for name, leaf in part.items()} for part in (unused, test)]
    return Data(clients, *cut)


def network(seed: int) -> nn.Module:
    """Return a perceptron 784-64-10 (50,890 parameters) as a seed begins it."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def work(rate: float, seed: int) -> fm.LocalWork:
    """Return one local epoch."""
    return fm.local.sgd(fm.classifier(network(seed)), lr=rate, epochs=1, batch_size=BATCH)


@functools.cache
def noise(federation: Federation, epsilon: float, rounds: int, lot: bool = True) -> float:
    """Solve the noise multiplier; without a lot, a client takes part once and anyone may know."""

    def charges(z: float) -> list[tuple[Event, int]]:
        return [(PoissonGaussian(z, federation.rate), rounds)] if lot else [(Gaussian(z), 1)]

    return noise_for(epsilon, federation.delta, charges)


def private(
    size: Size, data: Data, federation: Federation, z: float, rate: float, clip: Any, seed: int
) -> Found:
    """Train with client-level privacy and return what came of it on the test set."""
    stated = federation.population > len(data.clients)
    budget = fm.DP(
        noise_multiplier=z,
        delta=federation.delta,
        clip=clip,
        population=federation.population if stated else None,
        cohort=federation.cohort if stated else None,
        simulation=True,
    )
    with warnings.catch_warnings():
        # Of more noise than signal: the table has a column for it.
        warnings.simplefilter("ignore")
        result = run(
            fm.fedavg(work(rate, seed)),
            data.clients,
            rounds=size.rounds,
            cohort=size.cohort,
            privacy=budget,
            test=data.test,
            seed=seed,
            evaluate_every=size.rounds,
        )
    spent = result.privacy
    return Found(result.metrics["test_accuracy"], spent.epsilon, spent.noise_to_signal)


def open_run(size: Size, data: Data, aggregator: Any, rate: float, seed: int) -> float:
    """Train without a promise, by a rule that is given; return the accuracy on the test set."""
    result = run(
        fm.fedavg(work(rate, seed), aggregator=aggregator),
        data.clients,
        rounds=size.rounds,
        sampling=fm.sampling.poisson(size.cohort),
        test=data.test,
        seed=seed,
        evaluate_every=size.rounds,
        client_tests=False,
    )
    return float(result.metrics["test_accuracy"])


def chosen(size: Size, data: Data, federation: Federation) -> Chosen:
    """Choose rate and clip norm for the flat clip, by digits and a seed that are not reported."""
    grid = [(rate, clip) for rate in size.rates for clip in size.clips]
    z = noise(federation, EPSILON, size.rounds)
    unseen = data._replace(test=data.unused)

    def job(rate: float, clip: float) -> Callable[[], float]:
        return lambda: private(size, unseen, federation, z, rate, clip, TUNING_SEED).accuracy

    scores = side_by_side([job(rate, clip) for rate, clip in grid], size.cores)
    best = max(range(len(grid)), key=scores.__getitem__)
    return Chosen(*grid[best], dict(zip(grid, scores, strict=True)))


def told(choice: Chosen) -> str:
    """Say what was chosen, and out of what."""
    scores = ", ".join(
        f"{rate:g} and {clip:g} ({score:.3f})" for (rate, clip), score in choice.scores.items()
    )
    return f"rate {choice.rate:g} and clip norm {choice.clip:g}, out of {scores}"
