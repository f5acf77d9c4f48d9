"""A whole secure sum in one process: what a simulation runs, and what audits look at."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.secagg.book import PHASES, Ask, Opened
from folkmoot.secagg.checks import Vectors
from folkmoot.secagg.client import client
from folkmoot.secagg.messages import ClientMessage
from folkmoot.secagg.primitives import Ed25519PrivateKey, public, signing_key
from folkmoot.secagg.server import server
from folkmoot.secagg.terms import ClientId, Terms


class Seen(NamedTuple):
    """One message that the server got."""

    phase: str
    client: ClientId
    message: ClientMessage


def together(
    terms: Terms,
    vectors: Mapping[ClientId, Vectors | Callable[[], Vectors]],
    *,
    drops: Mapping[ClientId, str] | None = None,
    identities: Mapping[ClientId, Ed25519PrivateKey] | None = None,
    record: list[Seen] | None = None,
) -> Opened:
    """Play all parties of one secure sum, by the protocol that runs over a network.

    Memory is one sum and one masked vector, where clients bring functions; and all masked vectors
    where they are recorded.

    Args:
        terms: Of the sum.
        vectors: By client: its vectors, or a function that returns them when they are due. One
            that raises ClientError has the client drop out.
        drops: Clients that vanish, and before which answer: a name of `PHASES`.
        identities: Signing keys against an active server; fresh ones unless given.
        record: Takes all that the server sees of clients.

    Returns:
        The sum, who is in it, and who was lost when.

    Raises:
        QuorumError: If too few are left; nothing was opened.
        SettingsError: If a phase has another name, or vectors are not as agreed.
    """
    drops = drops or {}
    if unknown := set(drops.values()) - set(PHASES):
        raise SettingsError(f"Clients drop out in a phase of {PHASES}, but found {unknown}.")
    if terms.threat == "active":
        identities = identities or {name: signing_key() for name in terms.clients}
    keys = identities or {}
    roster = {name: public(key) for name, key in keys.items()}
    clients = {
        name: client(terms, name, vectors[name], identity=keys.get(name), roster=roster)
        for name in terms.clients
    }

    def answers(asked: Ask) -> Iterator[tuple[ClientId, ClientMessage]]:
        for name, message in asked.messages.items():
            if drops.get(name) == asked.phase:
                clients[name].close()
                continue
            try:
                answer = clients[name].send(message)
            except ClientError:
                continue
            if record is not None:
                record.append(Seen(asked.phase, name, answer))
            yield name, answer

    lead = server(terms, roster)
    asked = next(lead)
    while True:
        try:
            asked = lead.send(answers(asked))
        except StopIteration as done:
            opened: Opened = done.value
            return opened
