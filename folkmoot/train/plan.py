"""What a private run is made of, whoever is hidden; guards, reports and checks read it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregate, State
from folkmoot.core.algorithm import Algorithm, Task
from folkmoot.core.errors import SettingsError
from folkmoot.engines.tasks import example
from folkmoot.privacy.calibrate import noise_for
from folkmoot.privacy.dp import DP
from folkmoot.privacy.events import Charge
from folkmoot.secagg.secure import Secure
from folkmoot.train.loop import begun, check_task
from folkmoot.train.sampling import Sampling


class Private(NamedTuple):
    """A run's plan under a promise."""

    dp: DP
    algorithm: Algorithm
    sampling: Sampling
    """How cohorts are drawn."""
    noise_multiplier: float
    charges: list[Charge]
    """What the whole run costs."""
    price: Callable[[int, Task, float], Charge]
    """From an exchange, what it asks and the noise that its chain states to an event, and how often
    it is."""
    key: Callable[[int, int], tuple[Any, ...]]
    """From round and exchange to what is paid for at once."""
    exchanges: int
    """Exchanges a round."""
    lot: str
    """How those are drawn among whom one hides."""
    adjacency: str
    """What neighbouring data differ in."""
    population: int
    """Of how many they are drawn: clients of the federation that is stated, or one's examples."""
    cohort: float
    """How many are drawn on average."""
    expected: float
    """How many this run draws, where it stands for a larger federation."""
    size: int
    """Numbers that noise is added to at once, the most."""
    loudness: Callable[[State], float] | None = None
    """From an exchange's state to the L2 norm that its mean's noise has on average; None where that
    is not known."""
    secure: Secure | None = None
    """The secure sums in which clients add the noise; None where a server, or each alone, does."""

    @property
    def noise_to_signal(self) -> float:
        """L2 norm of the noise over the largest norm that what it is added to can have."""
        more = 1.0
        if self.secure is not None:
            # All who are asked add their shares, of which fewer would do.
            asked = round(self.expected)
            more = math.sqrt(asked / self.secure.providers(asked))
        return more * self.noise_multiplier * math.sqrt(self.size) / self.cohort


def solved(dp: DP, charges_of: Callable[[float], list[Charge]], rounds: int | None) -> float:
    """Return the noise that is given, or the least with which a run stays within its budget.

    Raises:
        SettingsError: If it is to be solved for an unknown number of rounds.
    """
    if dp.noise_multiplier is not None:
        return dp.noise_multiplier
    assert dp.epsilon is not None
    if rounds is None:
        raise SettingsError(
            "The noise is solved for a number of rounds: pass rounds=, or state the noise, "
            "DP(noise_multiplier=...)."
        )
    return noise_for(dp.epsilon, dp.delta, charges_of)


def asked_in_a_round(algorithm: Algorithm, population: int) -> list[tuple[Task, int]]:
    """Return what the first round asks for, and how many numbers it receives for each.

    It is driven with aggregates of zeros; no client is asked.
    """
    steps = begun(algorithm, algorithm.init())
    found: list[tuple[Task, int]] = []
    # A generator begins with None.
    answer: Any = None
    while True:
        try:
            task = check_task(algorithm, steps.send(answer))
        except StopIteration:
            return found
        update = example(task)
        found.append((task, sum(leaf.numel() for leaf in trees.leaves(update.value))))
        zeros = trees.zeros_like(update.value)
        answer = Aggregate(zeros, population, population, update.counts)
