"""Client-level privacy on mnist_writers: ways to clip, budgets, and noise without a lot."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import folkmoot as fm
from chapters.jobs import deviation, mean, over, table
from chapters.pictures import PICTURES, against_epsilon
from chapters.privacy import (
    BATCH,
    EPSILON,
    FEDERATIONS,
    FULL,
    SMALL,
    TUNING_SEED,
    Chosen,
    Data,
    Federation,
    Found,
    Size,
    chosen,
    data,
    noise,
    open_run,
    private,
    told,
)
from folkmoot.codecs.noise import gaussian
from folkmoot.privacy.matrix import errors, optimal_bands, sensitivity, tree_covariance, tree_height

PICTURE = "results-privacy-epsilon.png"
Choices = dict[Federation, Chosen]


class Way(NamedTuple):
    """A row: a way to bound an update."""

    name: str
    clip: Callable[[float], Any]
    """From the norm that was chosen to `DP(clip=)`."""


WAYS = (
    Way("flat clip", lambda norm: norm),
    Way("clip by layer", lambda norm: fm.codecs.clip_by_layer(norm)),
    Way("adaptive clip", lambda norm: fm.codecs.adaptive_clip()),
)


class Mechanism(NamedTuple):
    """A row: how the noise of rounds hangs together."""

    name: str
    sensitivity: float
    """Of what it hides, to a client that takes part once."""
    spread: float
    """Deviation of the noise in the sum of all rounds, for a multiplier of 1."""
    stage: Callable[[float], Any]
    """From a noise multiplier to the codec."""


def section(size: Size = FULL, pictures: Path = PICTURES) -> str:
    """Return the section, and draw its picture."""
    known = data(size.rows)
    choices = {federation: chosen(size, known, federation) for federation in FEDERATIONS}
    plain = _plain(size, known, choices)
    budgets = _budgets(size, known, choices)
    ways = _ways(size, known, choices)
    without = mean(plain["no clip", FEDERATIONS[0]])
    curves = {
        str(federation): [
            (epsilon, _accuracies(budgets[federation, epsilon])) for epsilon in size.epsilons
        ]
        for federation in FEDERATIONS
    }
    against_epsilon(pictures / PICTURE, "accuracy on the test set", curves, without)
    return _text(size, choices, plain, ways, budgets) + _correlated(size, known, choices[SMALL])


def _plain(size: Size, known: Data, choices: Choices) -> dict[tuple[str, Federation], list[float]]:
    """Train without noise: by the rule's own mean, and with the clip that was chosen."""
    rules = {
        "no clip": lambda choice: fm.aggregators.uniform_mean(),
        "clip, no noise": lambda choice: fm.aggregators.uniform_mean(
            fm.codecs.clip(choice.clip), divisor=size.cohort
        ),
    }
    keys = [(name, federation) for name in rules for federation in FEDERATIONS]

    def job(key: tuple[str, Federation], seed: int) -> float:
        name, federation = key
        choice = choices[federation]
        return open_run(size, known, rules[name](choice), choice.rate, seed)

    return dict(zip(keys, over(keys, size.seeds, job, size.cores), strict=True))


def _budgets(
    size: Size, known: Data, choices: Choices
) -> dict[tuple[Federation, float], list[Found]]:
    keys = [(federation, epsilon) for federation in FEDERATIONS for epsilon in size.epsilons]
    for federation, epsilon in keys:
        # Solved here once, not in every forked process.
        noise(federation, epsilon, size.rounds)

    def job(key: tuple[Federation, float], seed: int) -> Found:
        federation, epsilon = key
        choice = choices[federation]
        z = noise(federation, epsilon, size.rounds)
        return private(size, known, federation, z, choice.rate, choice.clip, seed)

    return dict(zip(keys, over(keys, size.seeds, job, size.cores), strict=True))


def _ways(size: Size, known: Data, choices: Choices) -> dict[tuple[str, Federation], list[Found]]:
    keys = [(way, federation) for way in WAYS for federation in FEDERATIONS]

    def job(key: tuple[Way, Federation], seed: int) -> Found:
        way, federation = key
        choice = choices[federation]
        z = noise(federation, EPSILON, size.rounds)
        return private(size, known, federation, z, choice.rate, way.clip(choice.clip), seed)

    found = over(keys, size.seeds, job, size.cores)
    return {
        (way.name, federation): runs for (way, federation), runs in zip(keys, found, strict=True)
    }


def _mechanisms(rounds: int) -> tuple[Mechanism, ...]:
    bands = optimal_bands(rounds, rounds)
    return (
        Mechanism("fresh noise", 1.0, rounds**0.5, lambda z: gaussian(z, simulation=True)),
        Mechanism(
            "tree",
            tree_height(rounds) ** 0.5,
            float(tree_covariance(rounds)[-1, -1]) ** 0.5,
            lambda z: fm.codecs.tree_noise(z, rounds, simulation=True),
        ),
        Mechanism(
            f"{rounds} bands",
            sensitivity(bands, rounds),
            errors(bands, rounds)[0],
            lambda z: fm.codecs.banded_noise(z, bands, simulation=True),
        ),
    )


def _correlated(size: Size, known: Data, choice: Chosen) -> str:
    """Compare noise where no lot hides anybody, and each client takes part once."""
    mechanisms = _mechanisms(size.rounds)
    alone = noise(SMALL, EPSILON, size.rounds, lot=False)
    share = size.cohort / SMALL.cohort

    def job(mechanism: Mechanism, seed: int) -> float:
        stage = mechanism.stage(alone * mechanism.sensitivity * share)
        rule = fm.aggregators.uniform_mean(fm.codecs.clip(choice.clip), stage, divisor=size.cohort)
        return open_run(size, known, rule, choice.rate, seed)

    found = over(mechanisms, size.seeds, job, size.cores)
    rows = [
        [
            mechanism.name,
            f"{mechanism.sensitivity:.2f}",
            f"{alone * mechanism.sensitivity:.2f}",
            f"{alone * mechanism.sensitivity * mechanism.spread:.2f}",
            _shown(runs),
        ]
        for mechanism, runs in zip(mechanisms, found, strict=True)
    ]
    head = ["noise", "sensitivity", "multiplier", "in the sum of all rounds", "accuracy"]
    return f"""
### 3.2 The same without a lot

Where nobody can promise that cohorts are drawn by lot and kept secret, no amplification may be
claimed. In the federation of {SMALL} each client is then asked at most once in {size.rounds}
rounds, and epsilon {EPSILON:g} at delta {SMALL.delta:g} is that of one Gaussian. Rate and clip
norm are those above; noise is drawn by this run's codecs at the stated federation's size.

{table(head, rows)}

Noise is in units of the clip norm; the fourth column is its deviation in the sum of all rounds,
which is what the last model carries. Fresh noise adds up; a tree and bands take back a part of it.
The bands are optimal for {size.rounds} rounds with one participation; {_best(rows)}
"""


def _best(rows: Sequence[Sequence[str]]) -> str:
    best = max(rows, key=lambda row: row[-1])
    return f"the most accurate is {best[0]}."


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _accuracies(runs: Sequence[Found]) -> list[float]:
    return [one.accuracy for one in runs]


def _gap(value: float) -> str:
    # Without a zero's sign.
    return f"{round(value, 3) + 0.0:+.3f}"


def _shown(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({deviation(values):.3f})"


def _text(
    size: Size,
    choices: Choices,
    plain: dict[tuple[str, Federation], list[float]],
    ways: dict[tuple[str, Federation], list[Found]],
    budgets: dict[tuple[Federation, float], list[Found]],
) -> str:
    head = ["", *(str(federation) for federation in FEDERATIONS)]
    rows = [
        [name, *(_shown(plain[name, federation]) for federation in FEDERATIONS)]
        for name in ("no clip", "clip, no noise")
    ]
    rows += [
        [way.name, *(_shown(_accuracies(ways[way.name, one])) for one in FEDERATIONS)]
        for way in WAYS
    ]
    spent = [
        [
            str(federation),
            f"{epsilon:g}",
            f"{noise(federation, epsilon, size.rounds):.3f}",
            f"{runs[0].epsilon:.2f}",
            f"{runs[0].noise_to_signal:.3g}",
            _shown(_accuracies(runs)),
            _gap(mean(_accuracies(runs)) - mean(plain["clip, no noise", federation])),
        ]
        for (federation, epsilon), runs in budgets.items()
    ]
    columns = [
        "federation",
        "budget",
        "noise multiplier",
        "epsilon spent",
        "noise to signal",
        "accuracy",
        "to no noise",
    ]
    picked = "; ".join(f"{federation}: {told(choices[federation])}" for federation in FEDERATIONS)
    return f"""### 3.1 mnist_writers: whole people

Each of 539 writers is a client, hidden with all that it holds. A perceptron 784-64-10 (50,890
parameters), {size.rounds} rounds of one local epoch, batches of {BATCH}, {size.cohort} clients a
round on average by Poisson sampling; accuracy on MNIST's 10,000 test digits, by people who are no
clients; {len(size.seeds)} seeds for first model, cohorts, order and noise. The last
federation is these writers. The others are stated, `DP(population=, cohort=)`: their runs carry the
noise that so large a federation would have beside its mean, and are simulations, which say nothing
of whether more people would teach more. Delta is
{_listed([f"{one.delta:.0e}" for one in FEDERATIONS])}, below 1 / population.

One local rate and one clip norm for all rows of a federation are chosen for the flat clip at
epsilon {EPSILON:g}, by accuracy on the clients' held-out digits, which nobody trains on, with seed
{TUNING_SEED}, which is not reported. {picked}. The search is not charged. The adaptive clip has the
paper's defaults, beginning at 0.1, and no norm that was chosen.

Epsilon {EPSILON:g}, add or remove one:

{table(head, rows)}

Against the budget, with the flat clip:

{table(columns, spent)}

Noise to signal is the L2 norm of a round's noise over the largest norm that the mean can have.

![Accuracy against epsilon in three federations](pictures/{PICTURE})
"""
