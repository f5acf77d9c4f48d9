"""A run in which canaries take part, and all that it releases is looked at.

Canaries answer in the engine, behind the work and before the chain of codecs: what they send goes
through the clip, the sum and the noise that everybody's update goes through. What is looked at is
what a round receives, which is what the ledger was charged for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folkmoot.audit.directions import Directions, directions
from folkmoot.core import fold, rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregate, State, Sum, Update
from folkmoot.core.algorithm import Algorithm, Task
from folkmoot.core.engine import ClientId, Cohort, Collected, Engine, LeftOut, Opener, Setting
from folkmoot.core.tree import Tree
from folkmoot.engines.tasks import example
from folkmoot.train.driven import driven

Numbers = NDArray[np.float64]

HEAVY = 1e6
"""What a canary says that it weighs, and adds to each count: under privacy nothing may heed it."""


class Seats(NamedTuple):
    """Places in a federation that are taken, or not, each by a coin of its own."""

    ids: tuple[ClientId, ...]
    coins: NDArray[np.bool_]
    """(canaries,): whose seats are taken."""
    norm: float
    """L2 norm of a canary's update."""
    bound: float
    """L2 norm of what is left of it behind the clip."""
    weight: float
    opposed: bool
    """Whether a seat that is not taken answers with the opposite update, where neighbours differ
    in what one client says; else nobody is there."""
    seed: int
    blank: bool = False
    """Whether a seat that is not taken answers with zeros, as a secure sum needs answers."""

    def sign(self, place: int) -> int:
        """Return 1, -1 for the opposite update, or 0 for silence."""
        if self.coins[place]:
            return 1
        return -1 if self.opposed else 0


class Sighting(NamedTuple):
    """What one exchange has shown."""

    exchange: int
    noise: float
    """Standard deviation of the noise in the sum over the clip norm, as the chain states it."""
    drawn: NDArray[np.bool_]
    """(canaries,): whose seats were in the cohort, whatever their coins."""
    pull: Numbers
    """(canaries,), released sum along each direction, less what others have put there."""


class Watch:
    """What has been seen of a run so far."""

    def __init__(self, seats: Seats, local: bool = False, knows_others: bool = False) -> None:
        self.seats = seats
        self.local = local
        """Whether the server sees each client's message, and not only their sum."""
        self.knows_others = knows_others
        """Whether the auditor knows what all others have sent, as privacy allows, and subtracts
        it."""
        self.seen: list[Sighting] = []
        self._asked: tuple[Sighting, State, Directions, Numbers] | None = None
        self._known: dict[tuple[int, int], Directions] = {}

    def directions(self, exchange: int, size: int) -> Directions:
        """Return an exchange's directions; they are the same in every round."""
        if (exchange, size) not in self._known:
            found = directions(size, len(self.seats.ids), self.seats.seed, exchange)
            self._known[exchange, size] = found
        return self._known[exchange, size]

    def asked(self, sighting: Sighting, state: State, along: Directions, others: Numbers) -> None:
        """Note who was asked, and how others pull; what comes of it is seen next."""
        self._asked = (sighting, state, along, others)

    def released(self, answer: Aggregate) -> None:
        """Note what a round receives of what it has asked clients."""
        # Rounds are also driven without clients, to see what they will ask.
        if self._asked is None:
            return
        (sighting, state, along, others), self._asked = self._asked, None
        if not self.local:
            total = state.layout.pack(answer.value) * answer.count
            sighting = sighting._replace(pull=along.along(total) - others)
        self.seen.append(sighting)


def observed(algorithm: Algorithm, watch: Watch) -> Algorithm:
    """Return an algorithm that shows every aggregate that it receives."""
    return driven(algorithm, hear=lambda task, answer: watch.released(answer))


def with_canaries(opener: Opener, watch: Watch) -> Opener:
    """Return an engine in whose cohorts canaries answer for themselves."""
    return lambda setting: Occupied(opener, setting, watch)


class Occupied:
    """The open engine, around another one."""

    def __init__(self, opener: Callable[[Setting], Engine], setting: Setting, watch: Watch) -> None:
        self._inner = opener(setting)
        self._watch = watch
        self._places = {client: place for place, client in enumerate(watch.seats.ids)}
        self._seed = setting.seed
        self.name = f"{self._inner.name} with {len(self._places)} canaries"
        self.exact = self._inner.exact
        self.streams = self._inner.streams

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Train who is no canary, and add what canaries send."""
        if cohort.part != "train":
            return self._inner.ask(task, state, cohort, own)
        places = [self._places[client] for client in cohort.clients if client in self._places]
        collected = self._inner.ask(task, state, self._others(cohort), own)
        along = self._watch.directions(cohort.exchange, state.layout.size)
        sighting = self._unseen(cohort, state)
        base = rng.derive(self._seed, round=cohort.round, purpose=cohort.purpose("encode"))
        like, total = example(task), collected.total
        others = np.zeros(len(self._places))
        if self._watch.knows_others:
            others = self._others_pull(task, state, along, total, like)
        for place in places:
            sighting.drawn[place] = True
            update = self._update(place, along, state, like)
            if update is None:
                continue
            key = rng.of_client(base, self._watch.seats.ids[place])
            encoded = task.aggregator.encode(state, update, key)
            total = fold.add(total, encoded)
            if self._watch.local:
                sighting.pull[place] = along.along(_alone(task, state, encoded))[place]
        self._watch.asked(sighting, state, along, others)
        return collected._replace(total=total)

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield updates, the canaries' last."""
        yield from self._inner.stream(task, self._others(cohort), own)
        like = example(task)
        state = task.aggregator.init(like, max(1, len(cohort.clients)))
        along = self._watch.directions(cohort.exchange, state.layout.size)
        sighting = self._unseen(cohort, state)
        for client in cohort.clients:
            if client in self._places:
                place = self._places[client]
                sighting.drawn[place] = True
                update = self._update(place, along, state, like)
                if update is not None:
                    yield client, update
        self._watch.asked(sighting, state, along, np.zeros(len(self._places)))

    def close(self) -> None:
        """Close the engine inside."""
        self._inner.close()

    def _others(self, cohort: Cohort) -> Cohort:
        clients = tuple(client for client in cohort.clients if client not in self._places)
        return cohort._replace(clients=clients)

    def _unseen(self, cohort: Cohort, state: State) -> Sighting:
        canaries = len(self._places)
        nothing = np.zeros(canaries, dtype=bool), np.zeros(canaries)
        return Sighting(cohort.exchange, state.bounds.noise, *nothing)

    def _others_pull(
        self, task: Task, state: State, along: Directions, total: Sum, like: Update
    ) -> Numbers:
        """Return how the others' sum pulls along each direction, as it will be when decoded.

        The sum is measured by what one canary is when encoded, and when clipped.
        """
        size, seats = state.layout.size, self._watch.seats
        value = state.layout.unpack(along.of(0) * seats.norm)
        sent = task.aggregator.encode(state, Update(value, 1.0, like.counts), 0)
        one, every = (_flat(part, state, size) for part in (sent.value, total.value))
        if one is None or every is None:
            return np.zeros(len(self._places))
        unit = along.along(one)[0]
        return along.along(every) * (seats.bound / unit if unit else 1.0)

    def _update(self, place: int, along: Directions, state: State, like: Update) -> Update | None:
        """Return what a canary sends, or None for nothing."""
        seats = self._watch.seats
        sign = seats.sign(place)
        if not sign or not along.speaks(place):
            if not seats.blank:
                return None
            sign = 0
        value = state.layout.unpack(along.of(place) * (sign * seats.norm))
        counts = trees.map(lambda leaf: counted(leaf, seats.weight), like.counts)
        return Update(value, seats.weight, counts)


def _flat(value: Tree, state: State, size: int) -> Tensor | None:
    """Return an encoded value as coordinates of the model, or None where they are others."""
    vector = value.get("vector")
    if not isinstance(vector, Tensor):
        return state.layout.pack(value)
    return vector[:size] if len(vector) >= size else None


def counted(leaf: Tensor, more: float) -> Tensor:
    """Return a count that is larger, within its dtype; truth values as they are."""
    if leaf.dtype == torch.bool:
        return leaf
    return leaf + min(int(more), torch.iinfo(leaf.dtype).max // 2)


def _alone(task: Task, state: State, encoded: Update) -> Tensor:
    """Return what one client's message says to a server that sees it."""
    single: Sum = fold.add(fold.zero(encoded), encoded)
    value, _, _ = task.aggregator.decode(state, single, 0)
    return state.layout.pack(value) * (task.aggregator.divisor or 1.0)


def of_seats(clients: Any, ids: tuple[ClientId, ...]) -> Callable[[ClientId], Tree]:
    """Return how examples are read in a federation with seats, which hold the first client's.

    Nobody trains on those: canaries have no work to do.
    """
    first, known = clients.ids[0], set(ids)
    return lambda client: clients[first if client in known else client].train
