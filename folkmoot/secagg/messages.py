"""What clients and server say to each other, and its exact form in bytes.

Clients are named by their positions in the terms. The bytes of a message begin with its kind and
with the digest of the terms, so that one of another round, run or model is refused as a whole.
Every length is known beforehand, and what is not exactly as long is not read.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from folkmoot.core.errors import SecureError
from folkmoot.secagg.keys import SEALED_BYTES
from folkmoot.secagg.primitives import KEY_BYTES, SIGNATURE_BYTES
from folkmoot.secagg.shamir import SHARE_BYTES
from folkmoot.secagg.terms import Terms


class Advert(NamedTuple):
    """Client to server: public keys for one round."""

    channel: bytes
    """32 bytes, for the shares that others seal."""
    mask: bytes
    """32 bytes, for the masks of pairs."""
    commitment: bytes
    """32 bytes that fix the seed of the client's own mask."""
    signature: bytes
    """64 bytes over the rest, against an active server; else none."""


class Adverts(NamedTuple):
    """Server to client: what its peers advertised."""

    by_peer: dict[int, Advert]


class Shares(NamedTuple):
    """Client to server: shares of its secrets, sealed for each peer."""

    by_peer: dict[int, bytes]


class Delivery(NamedTuple):
    """Server to client: the shares that its peers sealed for it."""

    by_peer: dict[int, bytes]


class Masked(NamedTuple):
    """Client to server: its vectors under all its masks."""

    vectors: tuple[np.ndarray, ...]
    """(length,) each, uint16, uint32 or uint64."""


class Survivors(NamedTuple):
    """Server to client: whose vectors are in the sum."""

    bitmap: bytes
    """Bit p % 8 of byte p // 8 is the client at position p."""


class Signed(NamedTuple):
    """Client to server, against an active one: a signature over the survivors it was told of."""

    signature: bytes


class Signatures(NamedTuple):
    """Server to client: those of its peers."""

    by_peer: dict[int, bytes]


class Reveal(NamedTuple):
    """Client to server: of each peer one share, and of one kind."""

    by_peer: dict[int, tuple[int, int]]
    """Kind (`SEED` or `MASK`) and share."""

    def __repr__(self) -> str:
        return f"Reveal(<shares of {len(self.by_peer)}, hidden>)"


class Complaint(NamedTuple):
    """Client to server, in place of its masked vectors: whose shares do not open; then it leaves.

    A claim, which proves nothing: either may lie, and so may a server that carried the shares.
    """

    peers: tuple[int, ...]
    """Positions, ascending."""
    signature: bytes
    """64 bytes over the rest, against an active server; else none."""


ClientMessage = Advert | Shares | Masked | Signed | Reveal | Complaint
ServerMessage = Adverts | Delivery | Survivors | Signatures
Message = ClientMessage | ServerMessage

SEED, MASK = 0, 1
"""Kinds of share: of a survivor's own seed, of a dropped client's mask key."""

_MAGIC = b"secagg1"
"""With the kind's byte and the digest, it keeps the words of masked vectors aligned."""

_KINDS: tuple[type[Message], ...] = (
    Advert,
    Adverts,
    Shares,
    Delivery,
    Masked,
    Survivors,
    Signed,
    Signatures,
    Reveal,
    Complaint,
)


def encode(message: Message, terms: Terms) -> bytes:
    """Return a message's bytes."""
    head = _MAGIC + bytes([_KINDS.index(type(message))]) + terms.digest
    match message:
        case Advert():
            return head + b"".join(message)
        case Adverts(by_peer):
            return head + _entries((peer, b"".join(advert)) for peer, advert in by_peer.items())
        case Shares(by_peer) | Delivery(by_peer) | Signatures(by_peer):
            return head + _entries(by_peer.items())
        case Masked(vectors):
            parts = [v.astype(v.dtype.newbyteorder("<"), copy=False).data for v in vectors]
            return b"".join([head, *parts])
        case Reveal(by_peer):
            return head + _entries((peer, _share(*kept)) for peer, kept in by_peer.items())
        case Survivors(text) | Signed(text):
            return head + text
        case Complaint(peers, signature):
            return head + signature + _entries((peer, b"") for peer in peers)


def decode(data: bytes, terms: Terms) -> Message:
    """Return the message again.

    A masked vector is read where it lies, and not copied.

    Raises:
        SecureError: If these are not the bytes of a message under these terms.
    """
    kind, body = _opened(data, terms)
    signature = SIGNATURE_BYTES * (terms.threat == "active")
    name, advert = kind.__name__, 3 * KEY_BYTES + signature
    if kind is Masked:
        return Masked(_vectors(body, terms))
    if kind is Advert:
        return _advert(_exactly(body, advert, name))
    if kind is Signed:
        return Signed(_exactly(body, SIGNATURE_BYTES, name))
    if kind is Survivors:
        return Survivors(_exactly(body, bitmap_bytes(terms), name))
    if kind is Signatures:
        return Signatures(_read_entries(body, SIGNATURE_BYTES, terms, name))
    if kind is Adverts:
        entries = _read_entries(body, advert, terms, name)
        return Adverts({peer: _advert(text) for peer, text in entries.items()})
    if kind is Complaint:
        peers = _read_entries(body[signature:], 0, terms, name)
        return Complaint(tuple(peers), _exactly(body[:signature], signature, name))
    if kind is Reveal:
        entries = _read_entries(body, 1 + SHARE_BYTES, terms, name)
        return Reveal({peer: _read_share(text) for peer, text in entries.items()})
    entries = _read_entries(body, SEALED_BYTES, terms, name)
    return Shares(entries) if kind is Shares else Delivery(entries)


def check_types(message: Message) -> None:
    """Refuse a message that came as an object and holds what none from bytes does.

    Raises:
        SecureError: If a part is of another type.
    """
    match message:
        case Advert() | Signed() | Survivors():
            fits = _all(message, bytes)
        case Complaint(peers, signature):
            fits = isinstance(peers, tuple) and _all(peers, int) and isinstance(signature, bytes)
        case Masked(vectors):
            fits = isinstance(vectors, tuple) and _all(vectors, np.ndarray)
        case Adverts(by_peer) | Reveal(by_peer):
            kind, part = (Advert, bytes) if isinstance(message, Adverts) else (tuple, int)
            fits = _by_peer(by_peer, kind) and all(_all(v, part) for v in by_peer.values())
            fits = fits and all(len(v) == 2 for v in by_peer.values() if kind is tuple)
        case Shares(by_peer) | Delivery(by_peer) | Signatures(by_peer):
            fits = _by_peer(by_peer, bytes)
    if not fits:
        raise SecureError(f"{type(message).__name__} is none: its parts are not of its types.")


def bitmap_bytes(terms: Terms) -> int:
    """Return how many bytes name some of the cohort."""
    return (len(terms.clients) + 7) // 8


def as_bitmap(positions: Iterable[int], terms: Terms) -> bytes:
    """Return positions as bits."""
    found = np.zeros(8 * bitmap_bytes(terms), dtype=np.uint8)
    found[list(positions)] = 1
    return np.packbits(found, bitorder="little").tobytes()


def from_bitmap(bitmap: bytes, terms: Terms) -> np.ndarray:
    """Return whether each position's bit is set: (number of clients,), bool.

    Raises:
        SecureError: If there are too few bits, or one stands for nobody.
    """
    n = len(terms.clients)
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
    if len(bitmap) != bitmap_bytes(terms) or bits[n:].any():
        raise SecureError(
            f"Survivors are {n} bits for as many clients, but found {len(bitmap)} bytes with bits "
            f"up to {max(np.flatnonzero(bits), default=0)}."
        )
    return bits[:n].astype(bool)


def _all(parts: Iterable[object], kind: type) -> bool:
    return all(isinstance(part, kind) for part in parts)


def _by_peer(found: object, kind: type) -> bool:
    return isinstance(found, dict) and _all(found, int) and _all(found.values(), kind)


def _opened(data: bytes, terms: Terms) -> tuple[type[Message], memoryview]:
    """Return a message's kind and what follows its head."""
    start, end = len(_MAGIC), len(_MAGIC) + 1 + len(terms.digest)
    if len(data) < end or data[:start] != _MAGIC or data[start] >= len(_KINDS):
        raise SecureError(f"{len(data)} bytes that begin with {bytes(data[:8])!r} are no message.")
    kind = _KINDS[data[start]]
    if data[start + 1 : end] != terms.digest:
        raise SecureError(
            f"{kind.__name__} is of other terms: another round, run, cohort, model or number."
        )
    return kind, memoryview(data)[end:]


def _exactly(body: memoryview, size: int, what: str) -> bytes:
    if len(body) != size:
        raise SecureError(f"{what} is {size} bytes long here, but found {len(body)}.")
    return bytes(body)


def _entries(items: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<I", peer) + text for peer, text in sorted(items))


def _read_entries(body: memoryview, size: int, terms: Terms, what: str) -> dict[int, bytes]:
    """Return equally long texts by position: ascending, each once, all of the cohort."""
    step = 4 + size
    if len(body) % step:
        raise SecureError(f"{what} has {step} bytes for each client, but found {len(body)}.")
    starts = range(0, len(body), step)
    peers = [struct.unpack_from("<I", body, at)[0] for at in starts]
    if peers != sorted(set(peers)) or (peers and peers[-1] >= len(terms.clients)):
        raise SecureError(f"{what} names a client twice, out of order, or one that is not there.")
    return {peer: bytes(body[at + 4 : at + step]) for peer, at in zip(peers, starts, strict=True)}


def _advert(text: bytes) -> Advert:
    a, b, c = KEY_BYTES, 2 * KEY_BYTES, 3 * KEY_BYTES
    return Advert(text[:a], text[a:b], text[b:c], text[c:])


def _share(kind: int, share: int) -> bytes:
    return bytes([kind]) + share.to_bytes(SHARE_BYTES, "little")


def _read_share(text: bytes) -> tuple[int, int]:
    return text[0], int.from_bytes(text[1:], "little")


def _vectors(body: memoryview, terms: Terms) -> tuple[np.ndarray, ...]:
    size = sum(length * bits // 8 for length, bits in terms.vectors)
    if len(body) != size:
        raise SecureError(f"Masked is {size} bytes long here, but found {len(body)}.")
    found, at = [], 0
    for length, bits in terms.vectors:
        words = np.frombuffer(body, f"<u{bits // 8}", length, at)
        found.append(words.astype(f"u{bits // 8}", copy=False))
        at += words.nbytes
    return tuple(found)
