"""What the server notes of a sum: who was asked, who answered, who was lost, what was wrong."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from folkmoot.core.errors import QuorumError, SecureError
from folkmoot.secagg import graph, messages
from folkmoot.secagg.checks import Roster
from folkmoot.secagg.messages import Advert, ClientMessage, ServerMessage
from folkmoot.secagg.terms import ClientId, Terms

PHASES = ("advertise", "share", "mask", "consistency", "unmask")
"""In their order; "consistency" is against an active server only."""

Answer = ClientMessage | bytes
Answers = Mapping[ClientId, Answer] | Iterable[tuple[ClientId, Answer]]
"""By client; or pairs one at a time, of which none is kept: masked vectors then need no memory."""
Said = TypeVar("Said", bound=ClientMessage)


class Ask(NamedTuple):
    """What the server wants asked."""

    phase: str
    """One of `PHASES`."""
    messages: dict[ClientId, ServerMessage | None]
    """What each client that is asked is to hear; nothing at first."""
    least: int
    """Answers without which the sum fails."""


class Opened(NamedTuple):
    """A secure sum."""

    vectors: tuple[np.ndarray, ...]
    """(length,) each, uint16, uint32 or uint64: sums modulo 2^bits."""
    survivors: tuple[ClientId, ...]
    """Whose vectors are in it."""
    dropped: dict[ClientId, str]
    """In which phase the others were lost; who was lost later than "mask" is in the sum."""
    faults: dict[ClientId, str]
    """What was wrong with what a client sent, in a sentence; or what others say was, and who."""


class Book:
    """The server's notes; nothing in them is secret."""

    def __init__(self, terms: Terms, roster: Roster) -> None:
        self.terms, self.roster = terms, roster
        self.rows = graph.neighbours(len(terms.clients), terms.degree, terms.seed)
        self.adverts: dict[int, Advert] = {}
        self.dropped: dict[ClientId, str] = {}
        self.faults: dict[ClientId, str] = {}
        self.suspicions: Counter[int] = Counter()
        """How often the share at a point was wrong."""
        self.accusers: dict[ClientId, list[ClientId]] = {}
        """Who says that it cannot open what a client dealt it."""
        self.left: set[int] = set()
        """Who said so and left."""

    def ask(self, phase: str, told: Mapping[int, ServerMessage | None]) -> Ask:
        """Return what clients at some positions are asked."""
        named = {self.terms.clients[position]: message for position, message in told.items()}
        late = phase in ("consistency", "unmask")
        return Ask(phase, named, self.terms.threshold if late else self.terms.quorum)

    def peers(self, position: int, among: Collection[int]) -> list[int]:
        """Return those of a client's peers, ascending."""
        return [peer for peer in self.rows[position].tolist() if peer in among]

    def collect(
        self,
        asked: Ask,
        answers: Answers,
        kinds: tuple[type[Said], ...],
        accept: Callable[[int, Said], None],
    ) -> set[int]:
        """Take answers as they come.

        Args:
            asked: What was asked.
            answers: By client, or pairs.
            kinds: Of messages one of which is due.
            accept: Told position and message; raises SecureError for one that must not be used.

        Returns:
            Positions of those whose answer was accepted, and who stay.

        Raises:
            QuorumError: If they are too few.
        """
        came: set[int] = set()
        for name, answer in answers.items() if isinstance(answers, Mapping) else answers:
            if name not in asked.messages:
                self.fault(name, asked.phase, "it was not asked.")
            elif (position := self.terms.positions[name]) in came:
                self.fault(name, asked.phase, "it answered twice; the first answer counts.")
            else:
                try:
                    accept(position, self._read(answer, kinds))
                except SecureError as error:
                    # Something late or foreign; a good answer may still come.
                    self.fault(name, asked.phase, str(error))
                else:
                    came.add(position)
        came -= self.left
        everybody = {self.terms.positions[name] for name in asked.messages}
        self.lose(everybody - came, asked.phase)
        self.enough(came, asked)
        return came

    def viable(self, left: set[int], asked: Ask) -> set[int]:
        """Return who of those left can be unmasked: enough who hold its shares are left as well."""
        alive = np.zeros(len(self.rows), dtype=bool)
        alive[list(left)] = True
        while True:
            holders = alive[self.rows].sum(axis=1) + self.terms.complete
            lonely = alive & (holders < self.terms.threshold)
            if not lonely.any():
                return self.enough({int(position) for position in np.flatnonzero(alive)}, asked)
            alive &= ~lonely
            # Without its shares nobody could take off what it would share with others.
            alone = {int(position) for position in np.flatnonzero(lonely)}
            self.lose(alone, asked.phase)
            for position in alone:
                self.fault(
                    self.terms.clients[position], asked.phase, "too few of its peers are left."
                )

    def enough(self, came: set[int], asked: Ask) -> set[int]:
        """Return who came, if there are enough."""
        if len(came) < asked.least:
            raise self.failure(
                f'{len(came)} of {len(asked.messages)} answered in the phase "{asked.phase}", of '
                f"at least {asked.least}."
            )
        return came

    def lose(self, positions: Iterable[int], phase: str) -> None:
        """Note who was lost."""
        for position in sorted(positions):
            self.dropped[self.terms.clients[position]] = phase

    def fault(self, name: ClientId, phase: str, reason: str) -> None:
        """Note what was wrong; of each client the first fault."""
        self.faults.setdefault(name, f'Client {name!r} in the phase "{phase}": {reason}')

    def accuse(self, peers: Iterable[int], by: int) -> None:
        """Note that a client leaves, as it says that what some peers dealt it does not open.

        That stands before what else was wrong with them, so that no lesser fault hides it. It is a
        claim, and nothing that the server sees tells who lies; but how many claim it may.
        """
        self.left.add(by)
        for name in (self.terms.clients[peer] for peer in peers):
            others = self.accusers.setdefault(name, [])
            others.append(self.terms.clients[by])
            said = f"what it dealt client {others[0]!r} does not open, says client {others[0]!r}."
            if len(others) > 1:
                some = ", ".join(map(repr, others[:5])) + ", ..." * (len(others) > 5)
                said = f"what it dealt {len(others)} clients does not open, say {some}."
            self.faults[name] = f'Client {name!r} in the phase "share": {said}'

    def failure(self, reason: str) -> QuorumError:
        """Return the error with which the sum is given up."""
        # Those of whom many complain first: one who lies could name as many as it likes.
        worst = sorted(self.faults, key=lambda name: -len(self.accusers.get(name, ())))[:3]
        faults = "".join(f" {self.faults[name]}" for name in worst)
        whom = "without those of whom most complain" if self.accusers else "those who stay"
        return QuorumError(
            f"Sum {self.terms.exchange} of round {self.terms.round} is given up, and nothing of it "
            f"was opened: {reason}{faults} Ask again, with fresh keys, {whom}."
        )

    def _read(self, answer: Answer, kinds: tuple[type[Said], ...]) -> Said:
        message = messages.decode(answer, self.terms) if isinstance(answer, bytes) else answer
        if not isinstance(message, kinds):
            found = type(message).__name__
            raise SecureError(f"{kinds[0].__name__} was due, but found {found}.")
        messages.check_types(message)
        return message
