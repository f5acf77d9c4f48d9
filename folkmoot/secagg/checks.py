"""What a client knows in one round, and what it checks of all that a server tells it."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from folkmoot.core.errors import SecureError, SettingsError
from folkmoot.secagg import messages
from folkmoot.secagg.keys import Hidden, Keys, advert_text, attempt, survivors_text
from folkmoot.secagg.messages import Advert, ServerMessage, Signatures, Survivors
from folkmoot.secagg.primitives import full_order, signed
from folkmoot.secagg.terms import ClientId, Terms

Vectors = Sequence[np.ndarray]
Roster = Mapping[ClientId, bytes]
Said = TypeVar("Said", bound=ServerMessage)


class Own(Hidden):
    """What one client knows in one round."""

    def __init__(self, terms: Terms, me: ClientId) -> None:
        self.terms, self.me, self.position = terms, me, terms.positions[me]
        self.peers = terms.peers(self.position)
        self.keys = Keys()
        self.advert = Advert(b"", b"", b"", b"")
        """Its own."""
        self.adverts: dict[int, Advert] = {}
        """Of peers that advertised (U1 in the paper)."""
        self.channels: dict[int, bytes] = {}
        self.pair_masks: dict[int, bytes] = {}
        self.held: dict[int, tuple[int, int]] = {}
        """Shares of seed and mask key, of peers that dealt them (U2), and of the client itself."""
        self.survivors = np.zeros(len(terms.clients), dtype=bool)
        """Whose vectors are in the sum (U3), by position."""
        self.bitmap = b""
        self.revealed: dict[int, int] = {}
        """The kind of share that was shown of each."""

    def forget(self) -> None:
        """Drop all secrets, and what others dealt."""
        for secrets in (self.channels, self.pair_masks, self.held):
            secrets.clear()
        del self.keys

    def refusal(self, rule: str, reason: str) -> SecureError:
        """Return the error with which this client leaves."""
        return SecureError(
            f"Client {self.me!r} leaves sum {self.terms.exchange} of round {self.terms.round}, "
            f"by the rule of {rule}: {reason}"
        )


def expected(own: Own, message: ServerMessage | bytes | None, kind: type[Said]) -> Said:
    """Return a message of the kind that is due."""
    try:
        if isinstance(message, bytes):
            message = messages.decode(message, own.terms)  # type: ignore[assignment]
        if isinstance(message, kind):
            messages.check_types(message)
            return message
    except SecureError as error:
        raise own.refusal("these terms", str(error)) from None
    name = type(message).__name__
    raise own.refusal("phases", f"{kind.__name__} was due, but the server sent {name}.")


def check_order(own: Own, peer: int, advert: Advert) -> None:
    """Turn down public keys with which everybody agrees on the same few secrets."""
    if not all(full_order(key) for key in (advert.channel, advert.mask)):
        name = own.terms.clients[peer]
        raise own.refusal(
            "keys of full order", f"a key of {name!r} is none, or a point of low order."
        )


def check_signed(own: Own, peer: int, advert: Advert, roster: Roster) -> None:
    """Turn down keys that their owner did not sign for this round."""
    *parts, signature = advert
    name = own.terms.clients[peer]
    text = advert_text(own.terms.digest, peer, *parts)
    if name not in roster or not signed(roster[name], signature, text):
        raise own.refusal("signed keys", f"the keys of {name!r} are not signed by its own key.")


def believe(own: Own, survivors: Survivors) -> None:
    """Check who is said to have survived, as far as this client can."""
    try:
        alive = messages.from_bitmap(survivors.bitmap, own.terms)
    except SecureError as error:
        raise own.refusal("survivors", str(error)) from None
    if not alive[own.position]:
        raise own.refusal("own survival", "it answered, and is said to have dropped out.")
    if unheard := {peer for peer in own.peers if alive[peer] and peer not in own.held}:
        who = names(own, unheard)
        raise own.refusal("survivors", f"{who} dealt no shares, and are said to have survived.")
    if (count := int(alive.sum())) < own.terms.quorum:
        raise own.refusal("quorum", f"{count} survived, of at least {own.terms.quorum}.")
    own.survivors, own.bitmap = alive, survivors.bitmap


def attempts(terms: Terms, adverts: Mapping[int, Advert]) -> dict[int, bytes]:
    """Return by signer how it names the attempt at a sum that it signs in.

    On the complete graph, by all keys, for there all see the same ones: signatures are over one
    list of survivors each of whom has dealt shares to all signers, under one and the same key. Its
    mask key then stays hidden, so that no smaller sum opens, even where a server weaves attempts
    into each other. On another graph clients see their own peers' keys alone, and a signer names
    its own fresh ones: its attempts differ, and none are woven together by a server that is honest
    while keys are advertised (see `Terms.threat`).
    """
    if terms.complete:
        return dict.fromkeys(adverts, attempt(terms.digest, adverts))
    return {at: attempt(terms.digest, {at: advert}) for at, advert in adverts.items()}


def own_attempts(own: Own) -> dict[int, bytes]:
    """Return the same as one client saw it."""
    return attempts(own.terms, own.adverts | {own.position: own.advert})


def check_signatures(own: Own, signatures: Signatures, roster: Roster) -> None:
    """See to it that enough others were told of the same survivors in the same attempt."""
    seen, least = own_attempts(own), own.terms.threshold
    count = int(own.terms.complete)  # By its own, which counts where it holds a share of its own.
    for peer, signature in signatures.by_peer.items():
        if peer in own.held and own.survivors[peer] and peer != own.position:
            text = survivors_text(own.terms.digest, seen[peer], own.bitmap)
            count += signed(roster.get(own.terms.clients[peer], b""), signature, text)
        if count >= least:
            return
    raise own.refusal(
        "consistent survivors", f"{count} signed the survivors it was told of, of at least {least}."
    )


def enough(own: Own, peers: int, what: str) -> None:
    """Leave where too few are left, as far as this client hears of them."""
    least = own.terms.quorum if own.terms.complete else own.terms.threshold
    count = peers + own.terms.complete
    if count < least:
        raise own.refusal("enough peers", f"{count} {what}, of at least {least}.")


def check_vectors(own: Own, vectors: Vectors) -> None:
    """Refuse vectors that are not as agreed."""
    wanted = [(f"uint{bits}", (length,)) for length, bits in own.terms.vectors]
    found = [(vector.dtype.name, vector.shape) for vector in vectors]
    if found != wanted:
        raise SettingsError(f"Client {own.me!r} brings {found}, but agreed on {wanted}.")


def names(own: Own, positions: set[int]) -> str:
    """Return some clients' ids; whoever is not in the cohort has a position only."""
    known = dict(enumerate(own.terms.clients))
    return ", ".join(repr(known.get(at, f"position {at}")) for at in sorted(positions)[:5])
