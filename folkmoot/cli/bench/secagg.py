"""What a secure sum costs its clients and its server: processor time and bytes, beside bars.

All parties take turns in one process, and talk in bytes: reading what one hears and writing what
one says count for whoever does it. The collector of cycles rests meanwhile, for it would look
through the objects of all.

100 clients are played with whole vectors, and their sum is compared with a plain one. Of larger
cohorts everything but the vectors is played, with every client, key and share, and with vectors of
a few numbers; the sum of those is compared too. What long vectors add is measured where as many
clients as one has neighbours, and itself, sum them among each other, once with long vectors and
once with short ones: what the difference is for a client's masked input, for a vector that the
server adds, and for a mask that it takes off. Each phase adds as many of those as the cohort has.
"""

import gc
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import process_time
from typing import Any

import numpy as np

from folkmoot.cli.bench import secagg_parts
from folkmoot.cli.bench.machine import moment, others
from folkmoot.secagg import PHASES, Ask, Opened, Terms, client, encode, server
from folkmoot.secagg import terms as agree
from folkmoot.secagg.primitives import entropy
from folkmoot.secagg.terms import ClientId

_SEED = 2026
_SHORT = 64
_SHARE = 0.05
"""Of a large cohort: assumed corrupt, assumed to drop out, and dropped."""
_ELSE_BAR = 0.02
_WHOLE = "whole vectors of all clients"
_SAMPLED = "all clients, and vectors from a sample, extrapolated by phase"
Vectors = dict[ClientId, list[np.ndarray]]
Costs = dict[str, float]
"""By phase, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """One line of the table."""

    clients: int
    dropped: int
    """Who vanish before they send their masked input, the costliest moment for the server."""
    bits: int = 32
    numbers: int = 1_000_000
    sampled: bool = False
    """Whether what vectors cost is measured on a sample; else all clients have whole ones, and the
    graph is complete."""
    client_ms: float | None = None
    """Bar: processor time of one client."""
    server_s: float | None = None
    """Bar: processor time of the server."""
    rounds: int = 3
    samples: int = 5

    def cut(self) -> "Cohort":
        """Return a cohort of few clients with few numbers, to see that it works."""
        clients = 150 if self.sampled else 10
        return replace(self, clients=clients, dropped=1, numbers=10_000, rounds=1, samples=1)

    def terms(self, numbers: int) -> Terms:
        """Agree on a fresh sum."""
        vectors = [(numbers, self.bits)]
        if self.sampled:
            return agree(self.clients, vectors, corrupt=_SHARE, dropped=_SHARE)
        return agree(self.clients, vectors)


COHORTS = {
    "100": Cohort(clients=100, dropped=5, client_ms=60, server_s=0.5),
    "100, 16 bits": Cohort(clients=100, dropped=5, bits=16),
    "1,000": Cohort(clients=1_000, dropped=50, sampled=True, client_ms=30, server_s=2),
    "10,000": Cohort(
        clients=10_000, dropped=500, sampled=True, client_ms=30, server_s=22, rounds=1
    ),
}


@dataclass
class Played:
    """What one sum took."""

    exact: bool = False
    """Whether it is the plain sum, modulo 2^bits, over those who did not vanish."""
    clients: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By phase: each client's seconds."""
    server: Costs = field(default_factory=lambda: defaultdict(float))
    """By phase: seconds."""
    additions: list[float] = field(default_factory=list)
    """Seconds in which the server took each masked vector."""
    bytes: Counter[str] = field(default_factory=Counter)
    """Of all clients, "up" and "down"; of "masked" messages alone, and of the "vectors" in them."""

    def client(self) -> Costs:
        """Return the median client's seconds."""
        return {phase: statistics.median(found) for phase, found in self.clients.items()}


def secagg(quick: bool = False, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure secure sums and return their figures, as plain JSON.

    Args:
        quick: Few clients with few numbers, to see that it works.
        tell: Is given a line when a cohort is done.
    """
    found: dict[str, Any] = {}
    for name, cohort in COHORTS.items():
        found[name] = figures(cohort.cut() if quick else cohort)
        client_ms, server_s = found[name]["client_ms"], found[name]["server_s"]
        tell(f"{name} clients: {client_ms:.1f} ms a client, {server_s:.2f} s for the server")
    numbers = 10_000 if quick else 1_000_000
    found["parts"] = secagg_parts.parts(numbers, 1 if quick else 9)
    return found


def figures(cohort: Cohort) -> dict[str, Any]:
    """Play sums of one cohort; return what they cost, the bars, and whether those hold."""
    before = moment()
    agreed = cohort.terms(_SHORT if cohort.sampled else cohort.numbers)
    with _no_collector():
        rounds = [play(agreed, _gone(cohort)) for _ in range(cohort.rounds)]
        mine = _median([one.client() for one in rounds])
        servers = _median([one.server for one in rounds])
        if cohort.sampled:
            _add_long_vectors(mine, servers, cohort, agreed)
        mine["terms"] = _terms_s(agreed)
    size = cohort.numbers * cohort.bits // 8 * (cohort.clients - cohort.dropped)
    said = rounds[0].bytes
    beside = said["up"] + said["down"] - said["vectors"]
    found = {
        "client_ms": 1e3 * sum(mine.values()),
        "server_s": sum(servers.values()),
        "else_share": beside / size,
    }
    stated = {"client_ms": cohort.client_ms, "server_s": cohort.server_s, "else_share": _ELSE_BAR}
    bars = {key: bar for key, bar in stated.items() if bar is not None}
    return {
        **found,
        "bytes_a_number": (size + said["masked"] - said["vectors"]) / size * cohort.bits / 8,
        "exact": all(one.exact for one in rounds),
        "how": _SAMPLED if cohort.sampled else _WHOLE,
        "bars": bars,
        "holds": {key: found[key] <= bar for key, bar in bars.items()},
        "clients": cohort.clients,
        "dropped": cohort.dropped,
        "neighbours": agreed.degree,
        "threshold": agreed.threshold,
        "numbers": cohort.numbers,
        "bits": cohort.bits,
        "client_phases_ms": {phase: 1e3 * seconds for phase, seconds in mine.items()},
        "server_phases_s": dict(servers),
        "others_cores": others(before, moment()),
    }


def play(agreed: Terms, gone: set[ClientId]) -> Played:
    """Play all parties of one sum, with clocks.

    Args:
        agreed: Its terms, with one vector.
        gone: Who vanish before they send their masked input.
    """
    vectors, told = _vectors(agreed), Played()
    parties = {name: client(agreed, name, vectors[name]) for name in agreed.clients}

    def answers(asked: Ask) -> Iterator[tuple[ClientId, bytes]]:
        for name, message in asked.messages.items():
            heard = None if message is None else encode(message, agreed)
            if asked.phase == "mask" and name in gone:
                parties.pop(name).close()
                continue
            begun = process_time()
            said = encode(parties[name].send(heard), agreed)
            told.clients[asked.phase].append(process_time() - begun)
            told.bytes["down"] += len(heard or b"")
            told.bytes["up"] += len(said)
            told.bytes["masked"] += len(said) * (asked.phase == "mask")
            given = process_time()
            yield name, said
            if asked.phase == "mask":
                told.additions.append(process_time() - given)

    opened = _led(agreed, answers, told)
    told.bytes["vectors"] = len(opened.survivors) * opened.vectors[0].nbytes
    plain = np.zeros_like(opened.vectors[0])
    for name in set(agreed.clients) - gone:
        plain += vectors[name][0]
    told.exact = np.array_equal(plain, opened.vectors[0])
    return told


def _led(
    agreed: Terms, answers: Callable[[Ask], Iterator[tuple[ClientId, bytes]]], told: Played
) -> Opened:
    """Play the server. Its time is all that is not a client's."""
    lead, phase, said = server(agreed), PHASES[0], None
    while True:
        begun, already = process_time(), math.fsum(told.clients[phase])
        try:
            asked = next(lead) if said is None else lead.send(said)
        except StopIteration as done:
            opened: Opened = done.value
            return opened
        finally:
            spent = process_time() - begun
            told.server[phase] += spent - (math.fsum(told.clients[phase]) - already)
        phase, said = asked.phase, answers(asked)


def _add_long_vectors(mine: Costs, servers: Costs, cohort: Cohort, agreed: Terms) -> None:
    """Add what vectors of full length cost beyond short ones, phase by phase."""
    few = replace(cohort, clients=agreed.degree + 1, dropped=3, sampled=False)
    gone = _gone(few)
    long, short = few.terms(few.numbers), few.terms(_SHORT)
    pairs = [(play(long, gone), play(short, gone)) for _ in range(cohort.samples)]
    more = _median([_less(a.client(), b.client()) for a, b in pairs])
    mine["mask"] += more["mask"]
    more = _median([_less(a.server, b.server) for a, b in pairs])
    each = statistics.median(
        statistics.median(a.additions) - statistics.median(b.additions) for a, b in pairs
    )
    # What only the first vector costs, memory for the sum, is in the sample's seconds once.
    unseen = cohort.clients - cohort.dropped - (few.clients - few.dropped)
    servers["mask"] += more["mask"] + each * unseen
    servers["unmask"] += more["unmask"] * _masks(agreed, _gone(cohort)) / _masks(long, gone)


def _masks(agreed: Terms, gone: set[ClientId]) -> int:
    """Return how many masks the server takes off: survivors' own, and those shared with the lost.

    Clients are their own positions here.
    """
    lost = sum(peer not in gone for one in gone for peer in agreed.peers(agreed.positions[one]))
    return len(agreed.clients) - len(gone) + lost


def _terms_s(agreed: Terms) -> float:
    """Return the seconds that a client takes to check a round's terms and find its neighbours.

    All parties here share one object of terms; a client of its own has to work it out.
    """
    taken = []
    for _ in range(9):
        begun = process_time()
        fresh = replace(agreed, seed=entropy(len(agreed.seed)))
        fresh.peers(fresh.positions[fresh.clients[0]])
        assert fresh.digest != agreed.digest
        taken.append(process_time() - begun)
    return statistics.median(taken)


def _vectors(agreed: Terms) -> Vectors:
    """Return random vectors; they overlap in memory, each a word behind the one before."""
    ((length, bits),) = agreed.vectors
    size = length + len(agreed.clients)
    words = np.random.default_rng(_SEED).integers(2**bits, size=size, dtype=f"u{bits // 8}")
    return {name: [words[at : at + length]] for at, name in enumerate(agreed.clients)}


def _gone(cohort: Cohort) -> set[ClientId]:
    drawn = np.random.default_rng(_SEED).choice(cohort.clients, cohort.dropped, replace=False)
    return set(drawn.tolist())


def _less(long: Costs, short: Costs) -> Costs:
    return {phase: long[phase] - short[phase] for phase in long}


def _median(found: list[Costs]) -> Costs:
    return {phase: statistics.median(one[phase] for one in found) for phase in found[0]}


@contextmanager
def _no_collector() -> Iterator[None]:
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
