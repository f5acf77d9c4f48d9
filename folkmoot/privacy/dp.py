"""What a run promises: whose privacy, how much of it, and how the noise is made.

    fm.run(..., privacy=fm.DP(epsilon=8, delta=1e-5, clip=1.0))

Nothing is typed twice: the noise follows from the budget, the rounds, the cohort, the population
and the sampling, and the clip norm stands in the chain of codecs alone.
"""

import os
from dataclasses import dataclass
from typing import Any

from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.privacy.accountants import is_number
from folkmoot.privacy.ledger import Ledger


@dataclass(frozen=True)
class Tree:
    """Noise at the nodes of a binary tree over rounds: sums of many rounds need few nodes.

    Kairouz et al., "Practical and Private (Deep) Learning without Sampling or Shuffling", ICML
    2021, arXiv:2103.00039.
    """

    restart: int
    """Rounds of one tree. A client takes part at most once in each: the sampling sees to it."""

    def __post_init__(self) -> None:
        _whole(restart=self.restart)

    @property
    def separation(self) -> int:
        """Rounds from one participation of a client to its next, at least."""
        return self.restart


@dataclass(frozen=True)
class Banded:
    """Noise of which each round takes back a part in the next ones, so that sums carry less.

    Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", NeurIPS 2023,
    arXiv:2306.08153. The matrix is Toeplitz and optimal for the sums over all rounds.
    """

    bands: int
    """Rounds in which one round's noise is felt; the server keeps as many vectors."""

    def __post_init__(self) -> None:
        _whole(bands=self.bands)

    @property
    def separation(self) -> int:
        """Rounds from one participation of a client to its next, at least."""
        return self.bands


UNITS = ("client", "example")
TRUSTS = ("central", "local")


@dataclass(frozen=True, kw_only=True)
class DP:
    """Differential privacy for a run: a budget, from which the noise is solved.

    Raises:
        SettingsError: If a number is out of range, or two parts contradict each other.
    """

    epsilon: float | None = None
    """The budget of all rounds together; None where `noise_multiplier` is given."""
    delta: float = 1e-5
    """The chance with which epsilon may fail; below 1 / population."""
    clip: Any = 1.0
    """Largest L2 norm of one client's update (one example's gradient), in units of the parameters;
    or a clipping codec, such as `fm.codecs.adaptive_clip()`."""
    noise_multiplier: float | None = None
    """Standard deviation of the noise over the clip norm, where it is not solved from a budget."""
    unit: str = "client"
    """Whose presence is hidden: a "client" with all it holds, or one "example" of a client."""
    trust: str = "central"
    """Who adds noise: the server, which then sees each sum ("central"), or each client, which then
    need trust nobody ("local")."""
    mechanism: Tree | Banded | None = None
    """Noise that is correlated over rounds, for cohorts that are not drawn by lot; None draws it
    anew each round."""
    population: int | None = None
    """Clients of a larger federation that this run stands for, with `cohort`; a simulation."""
    cohort: int | None = None
    """That federation's expected cohort: noise is scaled to be, beside this run's smaller cohort,
    what it would be there."""
    client_tests: bool = False
    """Whether clients' own tests may be looked at although nothing hides them; the result then
    names them as not private."""
    ledger: Ledger | None = None
    """A `fm.privacy.Ledger` of the same unit that every exchange is charged to as well, such as a
    data set's own over many runs; not for simulations, which hide nobody."""
    simulation: bool = False
    """Whether noise may come from the run's seed, so that it can be repeated; such a result must
    not be released."""

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise SettingsError(
                f"DP() needs a budget or a noise multiplier, one of them, but epsilon is "
                f"{self.epsilon!r} and noise_multiplier {self.noise_multiplier!r}."
            )
        self._refuse_numbers()
        _refuse_clip(self.clip)
        if self.unit not in UNITS:
            raise SettingsError(f'unit must be "client" or "example", but is {self.unit!r}.')
        if self.trust not in TRUSTS:
            raise SettingsError(f'trust must be "central" or "local", but is {self.trust!r}.')
        if (self.population is None) != (self.cohort is None):
            raise SettingsError(
                "population= and cohort= describe a larger federation together, but population is "
                f"{self.population!r} and cohort {self.cohort!r}."
            )
        if self.population is not None and self.cohort is not None:
            _whole(population=self.population, cohort=self.cohort)
            if self.cohort > self.population:
                raise SettingsError(
                    f"A cohort of {self.cohort} was stated of a population of {self.population}."
                )
        self._refuse_together()
        self._refuse_ledger()

    def _refuse_numbers(self) -> None:
        """Refuse numbers out of range and switches that are neither on nor off."""
        if self.epsilon is not None:
            positive(epsilon=self.epsilon)
        if self.noise_multiplier is not None:
            not_negative(noise_multiplier=self.noise_multiplier)
        if not is_number(self.delta) or not 0 < self.delta < 1:
            raise SettingsError(f"delta must be a number between 0 and 1, but is {self.delta!r}.")
        for name in ("epsilon", "noise_multiplier", "delta", "clip"):
            value = getattr(self, name)
            if is_number(value) and not isinstance(value, int | float):
                # Those of numpy could not be written down with a run.
                object.__setattr__(self, name, float(value))
        for name in ("client_tests", "simulation"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise SettingsError(f"{name} must be True or False, but is {value!r}.")

    def _refuse_together(self) -> None:
        """Refuse parts that have no meaning beside each other."""
        special = {
            "mechanism=": self.mechanism is not None,
            "population=": self.population is not None,
            'trust="local"': self.trust == "local",
            'unit="example"': self.unit == "example",
        }
        named = [name for name, given in special.items() if given]
        if len(named) > 1:
            raise SettingsError(
                f"DP() cannot have both {named[0]} and {named[1]}: correlated noise, a larger "
                "federation, noise at the clients, and examples as the unit are accounted each in "
                "its own way. Leave one out."
            )
        if self.mechanism is not None and not isinstance(self.mechanism, Tree | Banded):
            raise SettingsError(
                "mechanism must be fm.privacy.Tree(restart=...) or fm.privacy.Banded(bands=...), "
                f"but is {self.mechanism!r}."
            )

    def _refuse_ledger(self) -> None:
        """Refuse a ledger that is not open, or counts something else."""
        if self.ledger is None:
            return
        if not isinstance(self.ledger, Ledger):
            path = os.fspath(self.ledger) if isinstance(self.ledger, os.PathLike) else self.ledger
            path = path if isinstance(path, str) else "people.jsonl"
            raise SettingsError(
                f"ledger must be a ledger, but is {self.ledger!r}. Open it first: "
                f"fm.privacy.Ledger({path!r}, unit={self.unit!r}, delta={self.delta:g})."
            )
        if self.ledger.unit != self.unit:
            raise SettingsError(
                f"The ledger counts the privacy of each {self.ledger.unit}, but unit is "
                f"{self.unit!r}. Open another ledger, with unit={self.unit!r}, for these runs."
            )
        if self.simulated:
            raise SettingsError(
                f"{'simulation=True' if self.simulation else 'population='} makes a simulation, "
                "which hides nobody for what it is charged, so a ledger would count too little. "
                "Leave ledger= out."
            )

    @property
    def simulated(self) -> bool:
        """Whether the run only stands for a private one."""
        return self.simulation or self.population is not None


def _refuse_clip(clip: Any) -> None:
    """Refuse what is neither a number above 0 nor, by its parts, a codec."""
    if isinstance(clip, bool) or is_number(clip):
        positive(clip=clip)
    elif callable(clip):
        raise SettingsError(
            f"clip is the function {getattr(clip, '__name__', clip)!r} itself. Build the codec, "
            "with (), such as clip=fm.codecs.adaptive_clip()."
        )
    elif not (hasattr(clip, "encode") and hasattr(clip, "pack")):
        raise SettingsError(
            "clip must be a finite number above 0, or a clipping codec such as "
            f"fm.codecs.adaptive_clip(), but is {clip!r}."
        )


def _whole(**values: Any) -> None:
    """Refuse, by name and value, what is no whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SettingsError(f"{name} must be a whole number of at least 1, but is {value!r}.")
