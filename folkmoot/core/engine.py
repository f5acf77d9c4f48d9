"""Engines: where clients run. An engine puts a task to a cohort and brings back the sum.

The sequential engine is the reference; every other exact engine gives its bits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from folkmoot.core.aggregator import State, Sum, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.tree import Tree

ClientId = int | str


class Cohort(NamedTuple):
    """The clients of one exchange."""

    round: int
    """From 1; 0 is before any training."""
    clients: tuple[ClientId, ...]
    """Ascending ids."""
    population: int
    """Clients that could have been asked."""
    expected: float
    """Clients that the sampling asks on average."""
    part: str = "train"
    """Which examples are used: a client's "train" or "test", or the researcher's "held_out"."""
    exchange: int = 0
    """Which of the round's exchanges this is, from 0; each has random numbers of its own."""
    steps: Mapping[ClientId, int] = MappingProxyType({})
    """Most local steps of each client that has not the time for all of them."""
    absent: Mapping[ClientId, str] = MappingProxyType({})
    """Who was asked and does not answer, and why."""

    def purpose(self, what: str) -> str:
        """Name a stream of random numbers of this exchange."""
        return f"{what} {self.exchange}"


class LeftOut(NamedTuple):
    """A client whose answer did not count, and why."""

    client: ClientId
    round: int
    reason: str


class Collected(NamedTuple):
    """What an engine brings back from one exchange."""

    total: Sum
    own: dict[ClientId, Tree]
    """New private states of the clients that took part; they stay on this machine."""
    left_out: list[LeftOut]
    client_s: float
    """Seconds of client work, added over all streams."""
    uploads: dict[ClientId, int]
    """Bytes in which each counted answer travelled, ascending by client."""


class Setting(NamedTuple):
    """What an engine is opened for."""

    clients: Mapping[ClientId, Any]
    seed: int
    held_out: Sequence[Tree] = ()
    """The researcher's own test set, in shards; asked as part "held_out" by the shard's number."""
    precision: str = "float32"
    """"float32", or "bf16" for autocast around each gradient."""


class Engine(Protocol):
    """Open until closed; holds processes, threads or connections."""

    name: str
    exact: bool
    """Whether it gives the sequential engine's bits."""
    streams: int
    """Clients that are trained at the same time."""

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Train the cohort and return the sum of what it encoded."""
        ...

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield updates, or why one is left out, ascending by id: where each may be seen."""
        ...

    def close(self) -> None:
        """Stop what runs; may be called twice."""
        ...


Opener = Callable[[Setting], Engine]
"""What `engines.sequential()` and its siblings return: opens an engine for a run."""
