"""The server's half of a secure sum: it passes messages on, adds up, and takes the masks off.

Bonawitz et al., CCS 2017, ePrint 2017/281, figure 4; Bell et al., CCS 2020, ePrint 2020/704.

Masked vectors go into a running sum as they come, so that memory is one vector whatever the cohort.
Between them the masks of pairs cancel. What is left in the sum are the own masks of those who are
in it, whose seeds, and the masks that they share with peers who then dropped out, whose keys are
rebuilt from shares. Nothing is rebuilt if too few answered.

A client that answers what it must not, or not at all, counts as dropped; its peers do without it.
So does one that complains of a peer, whom it cannot prove wrong: the peer is named, and stays.
"""

import functools
from collections.abc import Generator, Iterable, Mapping

import numpy as np

from folkmoot.core.errors import SecureError
from folkmoot.secagg import messages
from folkmoot.secagg.book import Answers, Ask, Book, Opened
from folkmoot.secagg.checks import Roster, attempts
from folkmoot.secagg.keys import SEALED_BYTES, advert_text, complaint_text, survivors_text
from folkmoot.secagg.masks import zeros
from folkmoot.secagg.messages import (
    MASK,
    SEED,
    Advert,
    Adverts,
    Complaint,
    Delivery,
    Masked,
    Reveal,
    ServerMessage,
    Shares,
    Signatures,
    Signed,
    Survivors,
)
from folkmoot.secagg.primitives import full_order, signed
from folkmoot.secagg.rebuild import Pile, Rebuilt, is_secret_of, rebuild, take_masks_off
from folkmoot.secagg.shamir import PRIME
from folkmoot.secagg.terms import Terms


def server(terms: Terms, roster: Roster | None = None) -> Generator[Ask, Answers, Opened]:
    """Lead one secure sum: yields what is to be asked, is sent who answered what.

    Args:
        terms: Of the sum.
        roster: Everybody's public signing keys, 32 bytes each, against an active server: by them
            it leaves out whoever signs wrongly, over whom all others would leave.

    Yields:
        For each phase what clients are to hear, and how many answers it takes. Whoever drives it
        decides how long to wait, and sends messages, or their bytes, by client or as pairs.

    Returns:
        The sum, who is in it, and who was lost when.

    Raises:
        QuorumError: If too few answered, or somebody's secret cannot be rebuilt; the message names
            whose. Nothing was opened.
    """
    book = Book(terms, roster or {})
    asked = book.ask("advertise", dict.fromkeys(range(len(terms.clients))))
    met = _advertised(book, asked, (yield asked))
    mail = {position: dict[int, bytes]() for position in met}
    asked = book.ask("share", {p: _adverts(book, p, met) for p in met})
    shared = _shared(book, asked, (yield asked), mail)
    asked = book.ask("mask", {p: _delivery(book, p, shared, mail) for p in shared})
    del mail
    total = zeros(terms.vectors)
    alive = _summed(book, asked, (yield asked), total)
    told: Mapping[int, ServerMessage] = dict.fromkeys(
        sorted(alive), Survivors(messages.as_bitmap(alive, terms))
    )
    if terms.threat == "active":
        asked = book.ask("consistency", told)
        told = _signatures(book, asked, (yield asked))
    asked = book.ask("unmask", told)
    pile = _revealed(book, asked, (yield asked), shared, alive)
    seeds = _rebuilt(book, pile, sorted(alive), SEED)
    keys = _rebuilt(book, pile, sorted(shared - alive), MASK)
    take_masks_off(total, terms.digest, book.adverts, seeds, keys, lambda p: book.peers(p, alive))
    names = tuple(terms.clients[position] for position in sorted(alive))
    return Opened(tuple(total), names, book.dropped, book.faults)


def _advertised(book: Book, asked: Ask, answers: Answers) -> set[int]:
    """Note usable keys; return who advertised them."""
    known: set[bytes] = set()

    def accept(position: int, advert: Advert) -> None:
        keys = {advert.channel, advert.mask}
        if not all(map(full_order, keys)) or len(advert.commitment) != len(advert.mask):
            raise SecureError("its keys are no keys, or points of low order.")
        if len(keys) < 2 or keys & known:
            raise SecureError("its keys are not its own alone.")
        if book.terms.threat == "active":
            *parts, signature = advert
            public = book.roster.get(book.terms.clients[position], b"")
            if not signed(public, signature, advert_text(book.terms.digest, position, *parts)):
                raise SecureError("its keys are not signed by the key of the roster.")
        known.update(keys)
        book.adverts[position] = advert

    return book.viable(book.collect(asked, answers, (Advert,), accept), asked)


def _adverts(book: Book, position: int, met: set[int]) -> Adverts:
    return Adverts({peer: book.adverts[peer] for peer in book.peers(position, met)})


def _shared(
    book: Book, asked: Ask, answers: Answers, mail: dict[int, dict[int, bytes]]
) -> set[int]:
    """Sort sealed shares by who they are for; return who dealt them."""

    def accept(position: int, shares: Shares) -> None:
        sizes = {len(sealed) for sealed in shares.by_peer.values()}
        if sorted(shares.by_peer) != book.peers(position, mail) or sizes - {SEALED_BYTES}:
            raise SecureError("it dealt not one share of each secret to each of its peers.")
        for peer, sealed in shares.by_peer.items():
            mail[peer][position] = sealed

    return book.viable(book.collect(asked, answers, (Shares,), accept), asked)


def _delivery(
    book: Book, position: int, shared: set[int], mail: Mapping[int, Mapping[int, bytes]]
) -> Delivery:
    return Delivery({peer: mail[position][peer] for peer in book.peers(position, shared)})


def _summed(book: Book, asked: Ask, answers: Answers, total: list[np.ndarray]) -> set[int]:
    """Add masked vectors up; return whose."""
    wanted = [(vector.dtype, vector.shape) for vector in total]

    def accept(position: int, said: Masked | Complaint) -> None:
        if isinstance(said, Complaint):
            _note(book, asked, position, said)
            return
        found = [(vector.dtype, vector.shape) for vector in said.vectors]
        if found != wanted:
            raise SecureError(f"its vectors are {found}, and not {wanted}.")
        for running, vector in zip(total, said.vectors, strict=True):
            running += vector

    kinds: tuple[type[Masked | Complaint], ...] = (Masked, Complaint)
    return book.collect(asked, answers, kinds, accept)


def _note(book: Book, asked: Ask, position: int, complaint: Complaint) -> None:
    """Note of whom a client complains, if it may."""
    name, peers = book.terms.clients[position], complaint.peers
    told = asked.messages[name]
    assert isinstance(told, Delivery)
    if not peers or len(set(peers)) < len(peers) or set(peers) - told.by_peer.keys():
        raise SecureError("it complains of nobody, or of shares that it was not sent.")
    if book.terms.threat == "active":
        attempted = attempts(book.terms, book.adverts)[position]
        text = complaint_text(book.terms.digest, attempted, position, peers)
        if not signed(book.roster.get(name, b""), complaint.signature, text):
            raise SecureError("its complaint is not signed by the key of the roster.")
    book.accuse(peers, position)


def _signatures(book: Book, asked: Ask, answers: Answers) -> dict[int, ServerMessage]:
    """Return for each client what its peers signed."""
    found: dict[int, bytes] = {}
    seen = attempts(book.terms, book.adverts)

    def accept(position: int, said: Signed) -> None:
        name = book.terms.clients[position]
        told = asked.messages[name]
        assert isinstance(told, Survivors)
        text = survivors_text(book.terms.digest, seen[position], told.bitmap)
        if not signed(book.roster.get(name, b""), said.signature, text):
            raise SecureError("its signature over the survivors is not by the key of the roster.")
        found[position] = said.signature

    book.collect(asked, answers, (Signed,), accept)
    return {p: Signatures({peer: found[peer] for peer in book.peers(p, found)}) for p in found}


def _revealed(book: Book, asked: Ask, answers: Answers, shared: set[int], alive: set[int]) -> Pile:
    """Return the shares that were shown of each client who dealt some."""
    pile = Pile(sorted(shared))

    def accept(position: int, reveal: Reveal) -> None:
        kept = book.peers(position, shared) + [position] * book.terms.complete
        due = {peer: SEED if peer in alive else MASK for peer in kept}
        kinds = {peer: kind for peer, (kind, _) in reveal.by_peer.items()}
        if kinds != due or not all(0 <= share < PRIME for _, share in reveal.by_peer.values()):
            raise SecureError("it showed not one share, of the kind that was due, of each peer.")
        for peer, (_, share) in reveal.by_peer.items():
            pile.of[peer][position + 1] = share

    book.collect(asked, answers, (Reveal,), accept)
    for position, came in pile.sizes().items():
        if came < book.terms.threshold:
            name = book.terms.clients[position]
            raise book.failure(
                f"{came} shares of a secret of client {name!r} came, of {book.terms.threshold}."
            )
    return pile


def _rebuilt(book: Book, pile: Pile, positions: Iterable[int], kind: int) -> dict[int, Rebuilt]:
    """Return a secret of one kind of some clients."""
    terms, found = book.terms, dict[int, Rebuilt]()
    for position in positions:
        name, advert = terms.clients[position], book.adverts[position]
        right = functools.partial(is_secret_of, kind, terms.digest, position, advert)
        rebuilt = rebuild(pile, position, terms.threshold, right, book.suspicions)
        if rebuilt is None:
            raise book.failure(
                f"a secret of client {name!r} cannot be rebuilt from {pile.sizes()[position]} "
                "shares: some are wrong, or it dealt wrong ones."
            )
        for point in rebuilt.wrong:
            book.suspicions[point] += 1
            reason = f"its share of a secret of client {name!r} is wrong."
            book.fault(terms.clients[point - 1], "unmask", reason)
        found[position] = rebuilt
    return found
