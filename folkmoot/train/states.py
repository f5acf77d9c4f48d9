"""Private states of clients, between rounds: a mapping that a new round does not write into."""

from collections.abc import Iterator, Mapping

from folkmoot.core.engine import ClientId
from folkmoot.core.tree import Tree


class ClientStates(Mapping[ClientId, Tree]):
    """What each client that took part keeps for itself; `updated` makes the next round's."""

    def __init__(self, states: Mapping[ClientId, Tree] | None = None) -> None:
        self._states = dict(states or {})

    def updated(self, new: Mapping[ClientId, Tree]) -> "ClientStates":
        """Return these states with new ones put in place of, or beside, the old."""
        return ClientStates({**self._states, **new})

    def __getitem__(self, client: ClientId) -> Tree:
        return self._states[client]

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)
