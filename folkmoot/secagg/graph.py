"""Who masks with whom: a k-regular graph over the cohort, and how many shares open a secret.

Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020, ePrint 2020/704: their graphs, and their parameters for both servers.

With n clients, of whom a share gamma colludes with the server and a share delta drops out, degree
and threshold are such that, but for a probability of 2^-40, no client has as many corrupt
neighbours as the threshold and the honest survivors stay connected; and, but for 2^-20, every
client keeps as many neighbours as the threshold. Against a server that tells clients different
things the threshold is higher: both secrets of a client would take twice as many shares, and all
its neighbours, of whom the honest show one kind each, have fewer.
"""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from folkmoot.core.errors import SettingsError
from folkmoot.secagg.primitives import stream

SECURITY_BITS = 40
CORRECTNESS_BITS = 20
SMALLEST_THRESHOLD = 2
"""Shares that open a secret, at the least: a single one would be the secret."""


class Window(NamedTuple):
    """What the threshold of a graph may be."""

    least: int
    """Below this, colluders could open a client's secret; 0 if no threshold makes it safe."""
    most: int
    """Above this, dropouts could leave too few shares."""


def degree_and_threshold(n: int, corrupt: float, dropped: float, threat: str) -> tuple[int, int]:
    """Return the least even degree for which some threshold is safe and live, and that threshold.

    Args:
        n: Clients in the cohort, at least 2.
        corrupt: Share of them who collude with the server, in [0, 1).
        dropped: Share of them who may drop out, in [0, 1).
        threat: "honest" (the server follows the protocol, and looks) or "active" (it follows the
            protocol while keys are advertised and does afterwards what it likes; the paper's
            semi-malicious server).

    Returns:
        Degree and threshold, as the paper's formula gives them.

    Raises:
        SettingsError: If no graph of so few clients will do.
    """
    for degree in range(2, n, 2):
        window = thresholds(n, degree, corrupt, dropped, threat)
        if 0 < window.least <= window.most:
            return degree, max(window.least, SMALLEST_THRESHOLD)
    raise SettingsError(
        f"No regular graph of {n} clients is safe with {corrupt:g} of them corrupt and live with "
        f"{dropped:g} dropped. Ask more clients, assume fewer of either, or take the complete "
        "graph: degree=n - 1."
    )


@functools.lru_cache(maxsize=4096)
def thresholds(n: int, degree: int, corrupt: float, dropped: float, threat: str) -> Window:
    """Return which thresholds a k-regular graph may have.

    Args:
        n: Clients in the cohort.
        degree: Neighbours of each, even, below n.
        corrupt: Share who collude.
        dropped: Share who drop out.
        threat: "honest" or "active".
    """
    bad, gone = part(n, corrupt), part(n, dropped)
    if not _connected(n, degree, bad + gone):
        return Window(0, 0)
    # The corrupt and the surviving among a client's neighbours, drawn without replacement.
    above = _upper_tails(_law(n, bad, degree))
    below = _lower_tails(_law(n, n - gone, degree))
    most_bad = int(np.flatnonzero(above <= 2.0 ** -(SECURITY_BITS + 1) / n)[0])
    least_left = int(np.flatnonzero(below <= 2.0**-CORRECTNESS_BITS / n)[-1])
    if threat == "active":
        # Corrupt neighbours answer for both secrets and honest ones for one: fewer than 2t shares.
        most_bad = math.ceil((most_bad + degree - 1.25) / 2)
    return Window(most_bad + 1, least_left)


def complete_threshold(n: int, corrupt: float, threat: str) -> int:
    """Return the least safe threshold where all clients share with all.

    Bonawitz et al., CCS 2017, section 6: t > corrupt. Against an active server 2t > n + corrupt,
    or honest clients who were told different things would, with the corrupt, show both secrets of
    somebody.
    """
    bad = part(n, corrupt)
    least = bad + 1 if threat == "honest" else (n + bad) // 2 + 1
    return max(least, SMALLEST_THRESHOLD)


@functools.lru_cache(maxsize=4)
def neighbours(n: int, degree: int, seed: bytes) -> np.ndarray:
    """Return everybody's neighbours: a Harary ring over clients in a random order.

    Args:
        n: Clients, at their positions 0 to n - 1.
        degree: Neighbours of each: n - 1, or even and below n.
        seed: 32 public bytes, drawn by nobody who profits.

    Returns:
        (n, degree), int64, each row ascending; read-only. The graph is regular and symmetric, and
        nobody is a neighbour of itself.

    Raises:
        SettingsError: If there is no such ring.
    """
    if degree == n - 1:
        found = np.tile(np.arange(n), (n, 1))[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    elif degree % 2 or not 0 < degree < n:
        raise SettingsError(
            f"A ring of {n} clients has an even degree below {n}, but degree is {degree}. Take "
            "the next even number, or n - 1 for the complete graph."
        )
    else:
        order, _ = _ring(n, seed)
        around = [np.roll(order, -step) for step in _steps(degree)]
        found = np.empty((n, degree), dtype=np.int64)
        found[order] = np.sort(np.stack(around, axis=1), axis=1)
    found.flags.writeable = False
    return found


def neighbours_of(position: int, n: int, degree: int, seed: bytes) -> list[int]:
    """Return one client's row of `neighbours`, ascending: all that a client needs of the graph."""
    if degree == n - 1:
        return [peer for peer in range(n) if peer != position]
    order, places = _ring(n, seed)
    found: list[int] = np.sort(order[(places[position] + _steps(degree)) % n]).tolist()
    return found


def part(n: int, share: float) -> int:
    """Return floor(share n), with the share read as the simple fraction that it stands for."""
    return math.floor(Fraction(share).limit_denominator(1_000_000) * n)


@functools.lru_cache(maxsize=4)
def _ring(n: int, seed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return clients in the ring's order, and each client's place in it."""
    # Sorting 64-bit words gives every order with equal probability, but for n^2 / 2^65.
    order = np.argsort(np.frombuffer(stream(seed, 8 * n), dtype="<u8"), kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(n)
    return order, places


def _steps(degree: int) -> np.ndarray:
    """Return how far around the ring each neighbour is."""
    half = degree // 2
    return np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)])


def _connected(n: int, degree: int, bad: int) -> bool:
    """Whether the honest survivors stay connected, but for a probability of 2^-41.

    The graph falls apart only if some two gaps of degree / 2 in the ring are all bad: there are
    n (n - k - 1) / 2 such pairs, each with probability C(n - k, bad - k) / C(n, bad).
    """
    if degree > bad or degree >= n - 1:
        return True
    log = _log_factorials(n)
    one = log[bad] - log[bad - degree] + log[n - degree] - log[n]
    pairs = math.log(n * (n - degree - 1) / 2)
    return bool(pairs + one < -(SECURITY_BITS + 1) * math.log(2))


def _law(n: int, marked: int, drawn: int) -> np.ndarray:
    """Return the hypergeometric law: P[i marked among `drawn` of n], for i from 0 to `drawn`."""
    log, found = _log_factorials(n), np.zeros(drawn + 1)
    i = np.arange(max(0, drawn + marked - n), min(marked, drawn) + 1)
    rest = n - marked
    hits = log[marked] - log[i] - log[marked - i]
    misses = log[rest] - log[drawn - i] - log[rest - drawn + i]
    found[i] = np.exp(hits + misses - log[n] + log[drawn] + log[n - drawn])
    return found


def _upper_tails(law: np.ndarray) -> np.ndarray:
    """Return P[more than i] for each i, added up from the far end, where the small terms are."""
    return np.append(np.cumsum(law[::-1])[::-1][1:], 0.0)


def _lower_tails(law: np.ndarray) -> np.ndarray:
    """Return P[fewer than i] for each i, added up from the near end, where the small terms are."""
    return np.insert(np.cumsum(law)[:-1], 0, 0.0)


@functools.lru_cache(maxsize=2)
def _log_factorials(n: int) -> np.ndarray:
    """Return ln i! for i from 0 to n; for n to 10^6 each is right to 2 * 10^-9."""
    return np.array([math.lgamma(i + 1) for i in range(n + 1)])
