"""What stands between a round and its releases: the ledger is charged first, and the noisy sum is
stored before anybody uses it."""

import json
import math
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State
from folkmoot.core.algorithm import Task
from folkmoot.core.codec import Bounds
from folkmoot.core.engine import Cohort
from folkmoot.core.errors import CheckpointError, SettingsError
from folkmoot.core.tree import Tree
from folkmoot.privacy.accountants import epsilon_bound
from folkmoot.privacy.dp import Banded
from folkmoot.privacy.events import Charge
from folkmoot.privacy.ledger import Ledger
from folkmoot.train.folders import write_atomically
from folkmoot.train.releases import Releases

_IDENTITY = "private.json"


class Identity(NamedTuple):
    """What a private run is known by; it is drawn once and stays in the run's folder."""

    run: str
    """Under which its exchanges stand in ledgers."""
    cohorts: int
    """What its cohorts are drawn from, beside the seed: lots that anyone can repeat hide nobody."""


class Guard(NamedTuple):
    """Lets an exchange through once it has been paid for."""

    identity: Identity
    ledgers: tuple[Ledger, ...]
    """The run's own, and the data set's where there is one."""
    price: Callable[[int, Task, float], Charge]
    """From an exchange, what it asks and the noise that its chain states to an event, and how often
    it is."""
    key: Callable[[int, int], tuple[Any, ...]]
    """From round and exchange to what is paid for at once: correlated noise covers many rounds."""
    exchanges: int
    """Exchanges a round that the budget was made for."""
    releases: Releases
    loudness: Callable[[State], float] | None = None
    """From an exchange's state to the L2 norm of its mean's noise, on average."""
    asks: int | None = None
    """Clients that each round asks, where the noise is theirs."""
    counts_rounds: bool = False
    """Whether the noise counts the exchanges, so that each round must ask for all of them."""

    def noise_to_signal(self, state: State, released: Tree) -> float | None:
        """Return the noise of a mean over what stands out of it, as the release alone shows it.

        Args:
            state: Of the exchange, before its sum was decoded.
            released: The mean.

        Returns:
            None where nothing stands out, or the noise is not known.
        """
        if self.loudness is None:
            return None
        noise, whole = self.loudness(state), float(trees.norm(released))
        return noise / math.sqrt(whole**2 - noise**2) if whole > noise else None

    def admit(self, cohort: Cohort) -> None:
        """Look at whom an exchange is to ask, before it is laid out.

        Raises:
            SettingsError: If the algorithm asks more often than the noise was made for, or others
                than those whose noise it needs.
        """
        if cohort.exchange >= self.exchanges:
            raise SettingsError(
                f"Round {cohort.round} asks for exchange {cohort.exchange + 1}, but the first "
                f"round had {self.exchanges}, for which the noise was made, so this one is not "
                "paid for. Under privacy= an algorithm must ask as often in every round."
            )
        if self.asks is not None and len(cohort.clients) != self.asks:
            raise SettingsError(
                f"Round {cohort.round} asks {len(cohort.clients)} clients, but their shares of "
                f"noise were made for {self.asks}: with secure= and privacy= every round must ask "
                "as many as cohort= says."
            )

    def charge(self, cohort: Cohort, task: Task, bounds: Bounds) -> None:
        """Pay for an exchange before anyone is asked.

        Raises:
            BudgetError: If it would overspend; nobody has been asked then.
            SettingsError: If it asks for other work than the noise was made for.
        """
        event, times = self.price(cohort.exchange, task, bounds.noise)
        key = (self.identity.run, *self.key(cohort.round, cohort.exchange))
        for ledger in self.ledgers:
            ledger.charge(event, key=key, times=times)

    def end(self, round: int, exchanges: int) -> None:
        """Look at a round that has ended, with how many exchanges it had.

        Raises:
            SettingsError: If correlated noise was not drawn where its matrix has it.
        """
        if self.counts_rounds and exchanges < self.exchanges:
            raise SettingsError(
                f"Round {round} asked for {exchanges} of the first round's {self.exchanges} "
                "exchanges, but correlated noise counts them: clients would take part in one tree, "
                "or band, more often than is paid for. Leave mechanism= out, or ask as often in "
                "every round."
            )

    def charges(self) -> list[Charge]:
        """Return what this run has paid for."""
        return list(self.ledgers[0].charges)

    def meter(self) -> float:
        """Return a quick upper bound on the epsilon that this run has paid for, for a display.

        It is by Rényi divergences, or the budget, over which the ledger grants nothing.
        """
        own = self.ledgers[0]
        return min(epsilon_bound(own.charges, own.delta or 0.0), own.budget or math.inf)

    def close(self) -> None:
        """Close the run's own ledger; a data set's belongs to whoever has opened it."""
        self.ledgers[0].close()


def guarded(plan: Any, folder: Path | None, resume: bool, done: int = 0) -> Guard:
    """Open the guard of a private run, in the folder of its checkpoints.

    Args:
        plan: A `Private`.
        folder: Of the checkpoints; None for nowhere.
        resume: Whether a stored run is gone on with.
        done: Rounds that the stored run has done.

    Raises:
        CheckpointError: If what a stored run has paid is not there: it would be counted as nothing.
    """
    if folder is not None:
        # What lies there undoes the privacy: noise of the past, the lot's seed, clients' states.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    identity = identity_in(folder, resume, plan.dp.simulation)
    path = None if folder is None else folder / f"ledger-{identity.run}.jsonl"
    own = Ledger(path, unit=plan.dp.unit, epsilon=plan.dp.epsilon, delta=plan.dp.delta)
    releases = Releases(folder)
    if not resume:
        releases.forget()
    if (done or releases.any()) and not own.charges:
        own.close()
        raise CheckpointError(
            f"{folder} holds {done} rounds of a private run, but not what they have cost: "
            f"{_IDENTITY} or {path and path.name} is missing or empty. Restore them, or begin a "
            "new run in another folder; what these rounds cost is spent."
        )
    planned = {event for event, _ in plan.charges}
    if isinstance(plan.dp.mechanism, Banded) and {event for event, _ in own.charges} - planned:
        own.close()
        raise SettingsError(
            "Banded noise is made for all rounds of a run at once: this run was begun for another "
            "number of rounds, and cannot go on with this one. Resume it with its own rounds=, or "
            "use fm.privacy.Tree(restart=...)."
        )
    ledgers = (own,) if plan.dp.ledger is None else (own, plan.dp.ledger)
    guard = Guard(
        identity,
        ledgers,
        plan.price,
        plan.key,
        plan.exchanges,
        releases,
        plan.loudness,
        None if plan.secure is None else round(plan.expected),
        counts_rounds=plan.dp.mechanism is not None,
    )
    paid = Counter(dict(guard.charges()))
    left = [(event, times - paid[event]) for event, times in plan.charges if times > paid[event]]
    for ledger in ledgers:
        # One computation for the whole run: a charge within it is only written down.
        ledger.reserve(left)
    return guard


def identity_in(folder: Path | None, resume: bool, simulation: bool) -> Identity:
    """Return the identity that a folder keeps, or draw one and keep it there.

    Args:
        folder: Of the run's checkpoints; None for nowhere.
        resume: Whether a stored one is gone on with.
        simulation: Whether cohorts follow from the run's seed alone.

    Raises:
        CheckpointError: If the stored one cannot be read.
    """
    path = None if folder is None else folder / _IDENTITY
    if path is not None and resume and path.exists():
        try:
            return Identity(**json.loads(path.read_text("utf-8")))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}. Without it the cohorts of this run cannot be "
                "drawn as they were; begin a new run in another folder."
            ) from error
    # From the operating system: whoever knows the seed must not know who was asked.
    found = Identity(secrets.token_hex(8), 0 if simulation else secrets.randbits(63))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found._asdict()).encode())
    return found
