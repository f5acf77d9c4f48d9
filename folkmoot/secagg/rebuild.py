"""Secrets put together again from shares, checked, and the masks that follow from them taken off.

A rebuilt seed has to hash to what its owner committed to, a rebuilt mask key to have the public key
that was advertised. Shares that give anything else are tried without one, then without two of them;
the secret itself then tells which were wrong. Nobody can tell a holder who lies from an owner who
dealt it a wrong share.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from folkmoot.secagg import shamir
from folkmoot.secagg.keys import Hidden, commitment, own_mask, pair_key
from folkmoot.secagg.masks import add_masks
from folkmoot.secagg.messages import SEED, Advert
from folkmoot.secagg.primitives import X25519PrivateKey, public

_TRIES = 1000
"""Sets of shares that are tried for one secret: about a second."""


class Pile(Hidden):
    """Shares that were shown: of whom, and by the points of their holders."""

    def __init__(self, positions: Iterable[int]) -> None:
        self.of: dict[int, dict[int, int]] = {position: {} for position in positions}

    def sizes(self) -> dict[int, int]:
        """Return how many shares came of each client's secret."""
        return {position: len(shown) for position, shown in self.of.items()}


class Rebuilt(Hidden):
    """A client's secret, and the points whose shares do not belong to it."""

    __slots__ = ("secret", "wrong")

    def __init__(self, secret: bytes, wrong: list[int]) -> None:
        self.secret, self.wrong = secret, wrong


def rebuild(
    pile: Pile,
    position: int,
    threshold: int,
    right: Callable[[bytes], bool],
    suspicions: Mapping[int, int],
) -> Rebuilt | None:
    """Return a client's secret; None if no set of shares that was tried gives it.

    Args:
        pile: With at least as many of its shares as the threshold.
        position: Whose secret.
        threshold: Shares that it takes.
        right: Whether a secret is the one.
        suspicions: How often the share at a point was wrong before; such come last.
    """
    shown = pile.of[position]
    points = tuple(sorted(shown, key=lambda point: (suspicions.get(point, 0), point)))
    for chosen in itertools.islice(_choices(points, threshold), _TRIES):
        used = {point: shown[point] for point in chosen}
        secret = shamir.join(list(used.values()), _weights(chosen))
        if secret is not None and right(secret):
            # Shares beyond those that are needed are looked at only where one was wrong.
            others = () if chosen == points[:threshold] else points
            wrong = [p for p in others if shamir.value_at(p, used) != shown[p]]
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
    seeds: Mapping[int, Rebuilt],
    keys: Mapping[int, Rebuilt],
    peers: Callable[[int], Sequence[int]],
) -> None:
    """Subtract from a sum, in place, every mask that is left in it.

    Args:
        total: (length,) each; the sum of masked vectors.
        digest: Of the terms.
        adverts: Of everybody whose masks are in it.
        seeds: Of those who are in the sum.
        keys: Mask keys of those who dealt shares and are not.
        peers: From a dropped client to its peers who are in the sum.
    """
    subtracted: list[bytes] = []
    added = [own_mask(digest, at, rebuilt.secret) for at, rebuilt in seeds.items()]
    for position, rebuilt in keys.items():
        key = X25519PrivateKey.from_private_bytes(rebuilt.secret)
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
