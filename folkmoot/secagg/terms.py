"""What clients and server agree on before a secure sum, and what makes it too weak to take part in.

A client takes no number on trust: `weakness` computes from cohort, threat and assumed shares what
degree, threshold and quorum have to be, and a client that finds less stays away.
"""

import functools
import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from folkmoot.core.errors import SettingsError
from folkmoot.secagg import graph
from folkmoot.secagg.primitives import KEY_BYTES, entropy

ClientId = int | str

LARGEST_COMPLETE = 128
"""Clients up to which, by default, all mask with all: a sparser graph would save little."""
SMALLEST_COHORT = 3
"""Of fewer, the sum and one's own input give away another's."""
LARGEST_COHORT = 1_000_000
WIDTHS = (16, 32, 64)
THREATS = ("honest", "active")


class Demands(NamedTuple):
    """What a client insists on beyond safety by the terms' own numbers."""

    quorum: int = SMALLEST_COHORT
    """Least number of clients in a sum that it helps to open."""
    corrupt: float = 0.0
    """Least share of the cohort that has to be assumed corrupt."""
    threat: str = "honest"
    """"active" turns down sums that trust the server to follow the protocol."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """One secure sum. Build it with `terms(...)`; this checks only that it makes sense."""

    run: bytes
    """Names the run; shares and keys of other runs fit nowhere."""
    round: int
    """From 0."""
    exchange: int
    """Which of the round's sums this is, from 0. A sum that is asked for again after a failure
    needs no number of its own: keys are fresh in each attempt, and what is sealed, or signed of
    survivors, names them (`keys.attempt`). But an active server may call an attempt failed that it
    has opened: of two that differ in a client it then has that client's vector."""
    clients: tuple[ClientId, ...]
    """Ids of the cohort, distinct; a client's place in here is its position in messages."""
    vectors: tuple[tuple[int, int], ...]
    """Length and bits (16, 32 or 64) of each vector that is summed."""
    threat: str
    """"honest": the server follows the protocol, and looks. "active": it may also lie about keys
    and survivors, and clients sign both; on a graph that is not complete it has to follow the
    protocol while keys are advertised and the graph's seed is drawn (the paper's semi-malicious
    server)."""
    corrupt: float
    """Share of the cohort that may collude with the server, in [0, 1)."""
    dropped: float
    """Share of the cohort that may drop out, in [0, 1)."""
    degree: int
    """Neighbours with whom a client masks and shares; n - 1 is the complete graph."""
    threshold: int
    """Shares that open a secret; fewer tell nothing."""
    quorum: int
    """Least number of clients in the sum: each client checks it before it helps to open."""
    model: bytes
    """Digest of what was sent for training: who was sent another model shares nothing."""
    seed: bytes
    """32 public bytes from which the graph follows."""

    def __post_init__(self) -> None:
        n, ids = len(self.clients), set(self.clients)
        _sensible(SMALLEST_COHORT <= n <= LARGEST_COHORT, "clients", n, "3 to 1,000,000 of them")
        named = all(isinstance(client, ClientId) for client in self.clients)
        _sensible(named, "clients", self.clients, "whole numbers or strings")
        _sensible(len(ids) == n, "clients", f"{n - len(ids)} twice", "each of them once")
        _sensible_assumptions(self.threat, self.corrupt, self.dropped)
        ring = self.degree == n - 1 or (self.degree % 2 == 0 and 0 < self.degree < n)
        _sensible(ring, "degree", self.degree, f"{n - 1}, or even and below that")
        holders = n if self.complete else self.degree
        _sensible(0 < self.threshold <= holders, "threshold", self.threshold, f"1 to {holders}")
        _sensible(0 < self.quorum <= n, "quorum", self.quorum, f"1 to {n}")
        _sensible(len(self.seed) == KEY_BYTES, "seed", f"{len(self.seed)} bytes", "32 bytes")
        fits = all(length >= 0 and bits in WIDTHS for length, bits in self.vectors)
        _sensible(fits, "vectors", self.vectors, "pairs of a length and 16, 32 or 64 bits")

    @property
    def complete(self) -> bool:
        """Whether all clients mask and share with all."""
        return self.degree == len(self.clients) - 1

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of every field: what all keys, shares and signatures are bound to."""
        found = hashlib.sha256(b"folkmoot secure sum 1, terms")
        for field in fields(self):
            text = _canonical(getattr(self, field.name))
            found.update(struct.pack("<Q", len(text)) + text)
        return found.digest()

    @functools.cached_property
    def positions(self) -> dict[ClientId, int]:
        """Where each client stands in `clients`."""
        return {client: at for at, client in enumerate(self.clients)}

    def peers(self, position: int) -> list[int]:
        """Return with whom a client masks, ascending."""
        return graph.neighbours_of(position, len(self.clients), self.degree, self.seed)

    def holders(self, position: int) -> list[int]:
        """Return who holds shares of a client's secrets, ascending.

        On the complete graph that is everybody, itself included, as in Bonawitz et al.; else its
        neighbours, as the thresholds of Bell et al. count.
        """
        peers = self.peers(position)
        return sorted([*peers, position]) if self.complete else peers


def terms(
    clients: int | Iterable[ClientId],
    vectors: Sequence[tuple[int, int]],
    *,
    run: bytes = b"",
    round: int = 0,
    exchange: int = 0,
    model: bytes = b"",
    threat: str = "honest",
    corrupt: float = 0.05,
    dropped: float | None = None,
    degree: int | None = None,
    threshold: int | None = None,
    quorum: int | None = None,
    seed: bytes | None = None,
) -> Terms:
    """Agree on a secure sum; every number that is left out is computed.

    Args:
        clients: Ids of the cohort, at least 3; a number n stands for 0 to n - 1.
        vectors: Length and bits (16, 32 or 64) of each vector.
        run: Names the run.
        round: The round's number.
        exchange: Which of the round's sums this is.
        model: Digest of what was broadcast.
        threat: "honest" or "active"; see `Terms`.
        corrupt: Share of the cohort that may collude with the server.
        dropped: Share that may drop out: 1/3 on the complete graph and 0.05 on others unless given.
        degree: Neighbours of each; n - 1, the complete graph, up to 128 clients unless given, and
            beyond what `graph.degree_and_threshold` says.
        threshold: Shares that open a secret: as many as dropouts leave on the complete graph unless
            given, and on others the least that is safe.
        quorum: Least number of clients in the sum: what the dropouts leave, at least 3, unless
            given.
        seed: Of the graph, 32 bytes; fresh ones unless given.

    Raises:
        SettingsError: If a sum on such terms would be unsafe, or could not be opened.
    """
    ids = tuple(range(clients)) if isinstance(clients, int) else tuple(clients)
    n = len(ids)
    _sensible(n >= SMALLEST_COHORT, "clients", n, "3 or more of them")
    _sensible_assumptions(threat, corrupt, dropped or 0.0)
    if degree is None:
        degree, safe = _degree(n, corrupt, dropped, threat)
        threshold = safe if threshold is None else threshold
    complete = degree == n - 1
    dropped = (1 / 3 if complete else 0.05) if dropped is None else dropped
    left = n - graph.part(n, dropped)
    if threshold is None:
        window = graph.thresholds(n, degree, corrupt, dropped, threat)
        threshold = left if complete else max(window.least, graph.SMALLEST_THRESHOLD)
    found = Terms(
        run=run,
        round=round,
        exchange=exchange,
        clients=ids,
        vectors=tuple((int(length), int(bits)) for length, bits in vectors),
        threat=threat,
        corrupt=corrupt,
        dropped=dropped,
        degree=degree,
        threshold=threshold,
        quorum=max(left, SMALLEST_COHORT) if quorum is None else quorum,
        model=model,
        seed=entropy(KEY_BYTES) if seed is None else seed,
    )
    if fault := _never_opens(found) or weakness(found):
        raise SettingsError(fault)
    return found


def weakness(terms: Terms, demands: Demands = Demands()) -> str | None:
    """Return in a sentence why terms are unsafe to take part in; None if they are safe."""
    n, bad = len(terms.clients), graph.part(len(terms.clients), terms.corrupt)
    window = _window(terms)
    # The formula for a ring's degree counts on no more dropouts than were stated.
    quorum = terms.threshold if terms.complete else n - graph.part(n, terms.dropped)
    # With one honest client in it, a sum would show the colluders that client's vector.
    quorum = max(quorum, bad + 2, SMALLEST_COHORT, demands.quorum)
    if terms.corrupt < demands.corrupt or (demands.threat, terms.threat) == ("active", "honest"):
        return (
            f"The sum assumes {terms.corrupt:g} of the clients corrupt and a server that is "
            f"{terms.threat}, but {demands.corrupt:g} and {demands.threat} were demanded. Take "
            "part in sums that assume no less."
        )
    if not window.least:
        return (
            f"{terms.degree} neighbours of {n} clients do not keep the honest ones connected with "
            f"{terms.corrupt:g} corrupt and {terms.dropped:g} dropped. Take a larger degree, or "
            "leave it out to have it computed."
        )
    if terms.threshold < window.least:
        return (
            f"A threshold of {terms.threshold} shares is unsafe for {n} clients of whom {bad} may "
            f"be corrupt, against a server that is {terms.threat}: it has to be at least "
            f"{window.least}. {_cure(terms, window)}"
        )
    if terms.quorum < quorum:
        cure = ". Assume fewer corrupt or dropped, or set the quorum to that."
        if quorum > n:
            fewer = "Assume fewer corrupt, or ask" if bad + 2 > n else "Ask"
            cure = f", more than there are. {fewer} more clients."
        return (
            f"A quorum of {terms.quorum} clients is unsafe: the sum of {n} clients, of whom {bad} "
            f"may be corrupt, has to be of at least {quorum}{cure}"
        )
    return None


def _degree(n: int, corrupt: float, dropped: float | None, threat: str) -> tuple[int, int | None]:
    """Return the default graph's degree, and its threshold where the degree's formula gives it."""
    if n > LARGEST_COMPLETE:
        degree, threshold = graph.degree_and_threshold(
            n, corrupt, 0.05 if dropped is None else dropped, threat
        )
        return degree, threshold if degree < n - 1 else None
    return n - 1, None


def _never_opens(terms: Terms) -> str | None:
    """Return why a sum with the stated dropouts could not be opened; None if it could."""
    n, window = len(terms.clients), _window(terms)
    # Where no threshold is safe at all, `weakness` says so.
    if window.least and terms.threshold > window.most:
        return (
            f"With {graph.part(n, terms.dropped)} of {n} clients dropped, {terms.threshold} shares "
            f"of a secret could not be had: the threshold may be at most {window.most}. "
            f"{_cure(terms, window)}"
        )
    return None


def _window(terms: Terms) -> graph.Window:
    """Return from where a threshold is safe, and up to where enough shares come."""
    n = len(terms.clients)
    if terms.complete:
        least = graph.complete_threshold(n, terms.corrupt, terms.threat)
        return graph.Window(least, n - graph.part(n, terms.dropped))
    window = graph.thresholds(n, terms.degree, terms.corrupt, terms.dropped, terms.threat)
    # The paper's least threshold of two may be one too many for a handful of clients.
    least, most = (max(end, graph.SMALLEST_THRESHOLD) for end in window)
    return graph.Window(least, most) if window.least else window


def _cure(terms: Terms, window: graph.Window) -> str:
    """Return what to do about a threshold outside its window."""
    if window.least <= window.most:
        return (
            f"Set it to {window.least} at least and {window.most} at most, or leave it out to have "
            "it computed."
        )
    return "Assume fewer dropped or corrupt" + (
        "." if terms.complete else ", or take a larger degree."
    )


def _sensible_assumptions(threat: str, corrupt: float, dropped: float) -> None:
    _sensible(threat in THREATS, "threat", threat, '"honest" or "active"')
    _sensible(0 <= corrupt < 1, "corrupt", corrupt, "at least 0 and below 1")
    _sensible(0 <= dropped < 1, "dropped", dropped, "at least 0 and below 1")


def _sensible(holds: bool, name: str, found: object, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"A secure sum's {name} must be {wanted}, but found {found!r}.")


def _canonical(value: object) -> bytes:
    """Return bytes that no other value of the field has."""
    if isinstance(value, tuple):
        parts = [_canonical(part) for part in value]
        return b"".join(struct.pack("<Q", len(part)) + part for part in parts)
    return value if isinstance(value, bytes) else repr(value).encode()
