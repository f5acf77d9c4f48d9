"""What keys are used for, each bound to one round: to agree in pairs, to seal shares, to sign.

Every derived key, every sealed share and every signature names the digest of the round's terms
(with run, round, exchange, cohort, model) and who it is between; one of another run or round fits
nowhere. Nor does one of another attempt at the same sum: pairs derive from keys that are fresh in
each, and what is signed later names those keys. Only the signature over them does not tell attempts
apart. Keys of an old one are those of a client that can no longer deal.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from folkmoot.secagg.primitives import (
    KEY_BYTES,
    TAG_BYTES,
    X25519PrivateKey,
    agree,
    derive,
    entropy,
    exchange_key,
    public,
    seal,
    unseal,
)
from folkmoot.secagg.shamir import PRIME, SHARE_BYTES

SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES

_LABEL = b"folkmoot secure sum 1, "


class Hidden:
    """Holds secrets; no repr, pickle or copy of it shows them."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, hidden>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds the secrets of one round: it stays here.")


class Keys(Hidden):
    """One client's secrets of one round, drawn afresh."""

    __slots__ = ("channel", "channel_public", "mask", "mask_public", "seed")

    def __init__(self) -> None:
        self.channel = exchange_key()
        """Agrees on the keys under which shares travel; never leaves."""
        self.mask = exchange_key()
        """Agrees on the seeds of pairwise masks; rebuilt by the server if this client drops out."""
        self.seed = entropy(KEY_BYTES)
        """Of the client's own mask; rebuilt by the server if it does not."""
        self.channel_public, self.mask_public = public(self.channel), public(self.mask)


def pair_key(
    purpose: bytes, digest: bytes, mine: X25519PrivateKey, ends: dict[int, bytes], peer: int
) -> bytes:
    """Return what two clients derive for one purpose, and both get alike.

    Args:
        purpose: b"channel" or b"mask".
        digest: Of the round's terms.
        mine: One end's key.
        ends: Public keys of both, by position.
        peer: The other end, whose key is of full order.

    Returns:
        32 bytes.
    """
    shared = agree(mine, ends[peer])
    (low, low_key), (high, high_key) = sorted(ends.items())
    info = _LABEL + purpose + digest + struct.pack("<II", low, high) + low_key + high_key
    return derive(shared, info)


def commitment(digest: bytes, position: int, seed: bytes) -> bytes:
    """Return 32 bytes that fix a client's seed and, as the seed is random, do not show it."""
    return hashlib.sha256(_bound(b"commitment", digest, position) + seed).digest()


def own_mask(digest: bytes, position: int, seed: bytes) -> bytes:
    """Return the seed of the mask that a client shares with nobody."""
    return derive(seed, _bound(b"own mask", digest, position))


def seal_shares(
    key: bytes, digest: bytes, sender: int, receiver: int, shares: tuple[int, int]
) -> bytes:
    """Encrypt the shares of seed and mask key that one client deals another.

    The key is of this pair and round, and used once each way, so that the direction is the nonce.
    """
    text = b"".join(share.to_bytes(SHARE_BYTES, "little") for share in shares)
    return seal(key, _nonce(sender, receiver), text, _bound(b"shares", digest, sender, receiver))


def open_shares(
    key: bytes, digest: bytes, sender: int, receiver: int, sealed: bytes
) -> tuple[int, int] | None:
    """Return the shares again; None unless this sender made them for this receiver and round.

    Nor are numbers shares from the prime on: whoever showed such would be taken for a liar.
    """
    bound = _bound(b"shares", digest, sender, receiver)
    text = unseal(key, _nonce(sender, receiver), sealed, bound)
    if text is None or len(text) != 2 * SHARE_BYTES:
        return None
    seed, mask = (int.from_bytes(t, "little") for t in (text[:SHARE_BYTES], text[SHARE_BYTES:]))
    return (seed, mask) if max(seed, mask) < PRIME else None


def advert_text(digest: bytes, position: int, channel: bytes, mask: bytes, fixed: bytes) -> bytes:
    """Return what a client signs when it advertises its keys and its commitment."""
    return _bound(b"keys", digest, position) + channel + mask + fixed


def attempt(digest: bytes, adverts: Mapping[int, Sequence[bytes]]) -> bytes:
    """Return 32 bytes that tell one attempt at a sum from all others, by keys that are fresh in it.

    Args:
        digest: Of the terms.
        adverts: By position, the fields of `Advert`; the signature does not count.
    """
    found = hashlib.sha256(_bound(b"attempt", digest))
    for position, advert in sorted(adverts.items()):
        # Hashed one by one, so that no advert's end can pass for another's beginning.
        found.update(hashlib.sha256(advert_text(digest, position, *advert[:3])).digest())
    return found.digest()


def survivors_text(digest: bytes, attempted: bytes, bitmap: bytes) -> bytes:
    """Return what a client signs of who survived which attempt."""
    return _bound(b"survivors", digest) + attempted + bitmap


def complaint_text(digest: bytes, attempted: bytes, position: int, peers: Sequence[int]) -> bytes:
    """Return what a client signs of whose shares do not open."""
    return _bound(b"complaint", digest, position, *peers) + attempted


def _nonce(sender: int, receiver: int) -> bytes:
    return bytes(11) + (b"\0" if sender < receiver else b"\1")


def _bound(what: bytes, digest: bytes, *positions: int) -> bytes:
    return _LABEL + what + digest + b"".join(struct.pack("<I", at) for at in positions)
