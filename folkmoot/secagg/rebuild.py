"""Secrets put together again from shares, checked, and the masks that follow from them taken off.

A rebuilt seed has to hash to what its owner committed to, a rebuilt mask key to have the public key
that was advertised. Shares that give anything else are tried without one, then without two of them;
the secret itself then tells which were wrong. Nobody can tell a holder who lies from an owner who
dealt it a wrong share.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from folkmoot.secagg import shamir
from folkmoot.secagg.keys import commitment, own_mask, pair_key
from folkmoot.secagg.masks import add_masks
from folkmoot.secagg.messages import SEED, Advert
from folkmoot.secagg.primitives import X25519PrivateKey, public

_TRIES = 1000
"""Sets of shares that are tried for one secret: about a second."""


class Rebuilt(NamedTuple):
    """A secret, and who held shares that do not belong to it."""

    secret: bytes
    wrong: list[int]


def rebuild(
    shares: Mapping[int, int], threshold: int, right: Callable[[bytes], bool]
) -> Rebuilt | None:
    """Return a secret; None if no set of shares that was tried gives it.

    Args:
        shares: By point, at least as many as the threshold; the most trusted first.
        threshold: Shares that it takes.
        right: Whether a secret is the one.
    """
    for points in itertools.islice(_choices(tuple(shares), threshold), _TRIES):
        used = {point: shares[point] for point in points}
        secret = shamir.join(list(used.values()), _weights(points))
        if secret is not None and right(secret):
            if points == tuple(shares)[:threshold]:
                return Rebuilt(secret, [])
            wrong = [p for p, share in shares.items() if shamir.value_at(p, used) != share]
            return Rebuilt(secret, wrong)
    return None


def is_secret_of(kind: int, digest: bytes, position: int, advert: Advert, secret: bytes) -> bool:
    """Whether this is what a client fixed when it advertised."""
    if kind == SEED:
        return commitment(digest, position, secret) == advert.commitment
    return public(X25519PrivateKey.from_private_bytes(secret)) == advert.mask


def take_masks_off(
    total: Sequence[np.ndarray],
    digest: bytes,
    adverts: Mapping[int, Advert],
    secrets: Mapping[int, tuple[int, bytes]],
    peers: Callable[[int], Sequence[int]],
) -> None:
    """Subtract from a sum, in place, every mask that is left in it.

    Args:
        total: (length,) each; the sum of masked vectors.
        digest: Of the terms.
        adverts: Of everybody whose masks are in it.
        secrets: Kind and secret of all who dealt shares.
        peers: From a dropped client to its peers who are in the sum.
    """
    added: list[bytes] = []
    subtracted: list[bytes] = []
    for position, (kind, secret) in secrets.items():
        if kind == SEED:
            added.append(own_mask(digest, position, secret))
            continue
        key = X25519PrivateKey.from_private_bytes(secret)
        for peer in peers(position):
            ends = {at: adverts[at].mask for at in (position, peer)}
            mask = pair_key(b"mask", digest, key, ends, peer)
            # The lower position of a pair adds its mask, the higher subtracts it.
            (added if peer < position else subtracted).append(mask)
    add_masks(total, subtracted, added)


def _choices(points: tuple[int, ...], threshold: int) -> Iterator[tuple[int, ...]]:
    """Return sets of points: the first ones; then, with spare ones, without one or two of them."""
    yield points[:threshold]
    for fewer in range(1, min(2, len(points) - threshold) + 1):
        for out in itertools.combinations(points[:threshold], fewer):
            yield tuple(point for point in points if point not in out)[:threshold]


# Who answered is the same for all secrets of a complete graph, and the weights with it.
_weights = functools.lru_cache(maxsize=256)(shamir.weights)
