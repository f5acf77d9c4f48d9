"""A round's clients: drawn by lot, or as the clock says; and what each of them has moved."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from folkmoot.core.engine import ClientId, Cohort, LeftOut
from folkmoot.train.gathering import Part
from folkmoot.train.link import Link
from folkmoot.train.loop import RoundReport, Snapshot, begun
from folkmoot.train.policy import Policy
from folkmoot.train.sampling import Sampling, draw_cohort
from folkmoot.train.tally import Tally
from folkmoot.train.timeline import Flight, Turn

_HELD = "down held"
"""Under which a snapshot keeps the round whose broadcast each client holds; 0 for none."""


class Asked(NamedTuple):
    """Whom a round asks, as an engine understands it."""

    cohort: Cohort
    """Those who were given the present model."""
    link: Link
    places: list[int]
    """Who is asked in this round."""
    downloads: list[int] | None
    """Bytes down to each, where the clock knows them."""
    number: int
    """How many were asked."""
    reason: str | None
    """Why the round has no result."""
    row: dict[str, Any]
    """What the clock says of the round."""
    spans: dict[str, Any]
    """When each device received, trained and answered."""
    vain: list[int] = []  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """Whose answers arrived and do not count: too late, too stale, or too few."""

    @property
    def absent(self) -> set[ClientId]:
        """Who was asked and did not answer, of all parts."""
        return set(self.cohort.absent).union(*(part.cohort.absent for part in self.link.late))


def next_asked(program: Any, number: int, lot: int) -> Asked:
    """Return whom the next round asks.

    Args:
        program: A `Program`.
        number: Of the round.
        lot: What cohorts are drawn from.
    """
    ids, sampling = program.clients.ids, program.sampling
    if program.clock is None:
        cohort = draw_cohort(sampling, ids, number, lot)
        places = program.places.of(cohort.clients)
        link = Link(program.down)
        return Asked(cohort, link, places, None, len(places), None, {}, {})
    turn, policy = program.clock.turn(), program.policy
    cohort, late = parts_of(turn, policy, ids, sampling)
    return Asked(
        cohort,
        Link(
            program.down,
            late,
            turn.live if policy.carries else None,
            1 if policy.carries else policy.least(len(turn.asked)),
        ),
        [place for place, _ in turn.asked],
        [size for _, size in turn.asked],
        len(turn.answers) + len(turn.lost),
        turn.reason,
        _row(turn, policy),
        {"spans": _spans(turn, ids)},
        _in_vain(turn),
    )


def parts_of(
    turn: Turn, policy: Policy, ids: Sequence[ClientId], sampling: Sampling
) -> tuple[Cohort, tuple[Part, ...]]:
    """Return who answers in a turn, or does not: about the present model, and about older ones.

    Who is lost needs no model, so it stands beside those who were given the present one; who is
    lost and asked again within one turn, in a part of its own.
    """
    present = turn.round - 1
    groups: dict[int, list[Flight]] = {present: []}
    for flight in turn.answers:
        groups.setdefault(flight.base, []).append(flight)
    layers, times = [groups[present]], Counter(flight.place for flight in groups[present])
    for flight in turn.lost:
        if times[flight.place] == len(layers):
            layers.append([])
        layers[times[flight.place]].append(flight)
        times[flight.place] += 1
    expected = float(policy.buffer or sampling.expected(len(ids)))
    cohorts = {base: _cohort(base + 1, flights, ids, expected) for base, flights in groups.items()}
    late = [
        Part(cohorts[base], base, policy.staleness.weight(present - base))
        for base in sorted(groups)
        if base != present and policy.staleness is not None
    ]
    again = [Part(_cohort(turn.round, flights, ids, expected)) for flights in layers[1:]]
    return cohorts[present], (*late, *again)


def skipped(program: Any, snapshot: Snapshot, asked: Asked) -> tuple[Snapshot, RoundReport]:
    """Return what a round leaves that has too few answers: everything as it was but its number, and
    what devices have heard."""
    round = asked.cohort.round
    steps = begun(program.algorithm, snapshot.state)
    heard = asked.link.delivered(next(steps), snapshot.codecs, asked.cohort, program.seed)[1]
    steps.close()
    left_out = [LeftOut(client, round, reason) for client, reason in asked.cohort.absent.items()]
    report = RoundReport(round, asked.number, 0, left_out, 0.0, 0, 0, skipped=asked.reason)
    return snapshot._replace(round=round, codecs=heard), report


def tallied(
    program: Any, tally: Tally, asked: Asked, report: RoundReport, down: Sequence[int]
) -> Tally:
    """Return the tally after a round, with the bytes down to each who was asked."""
    places = program.places.of(report.uploads)
    sizes = list(report.uploads.values())
    tally.add([], [], asked.vain, wasted(program, asked), counts=False)
    return tally.add(asked.places, down, places, sizes, counts=report.skipped is None)


def wasted(program: Any, asked: Asked) -> list[int]:
    """Return the bytes of each answer that has arrived in vain, as the clock knows them."""
    return [program.clock.costs.upload_bytes] * len(asked.vain) if asked.vain else []


def downloaded(
    program: Any, snapshot: Snapshot, asked: Asked, report: RoundReport
) -> tuple[list[int], Snapshot]:
    """Return the bytes down to each who was asked, and a snapshot that knows what they now hold."""
    if asked.downloads is not None:
        return asked.downloads, snapshot
    whole, difference = report.download_bytes // max(len(asked.places), 1), program.difference_bytes
    if difference is None:
        return [whole] * len(asked.places), snapshot
    held = snapshot.codecs.get(_HELD)
    held = (
        torch.zeros(len(program.clients.ids), dtype=torch.int64) if held is None else held.clone()
    )
    last = held[asked.places].tolist()
    held[asked.places] = round = asked.cohort.round
    needed = [min(whole, (round - at) * difference) if at else whole for at in last]
    return needed, snapshot._replace(codecs={**snapshot.codecs, _HELD: held})


def _cohort(round: int, flights: list[Flight], ids: Sequence[ClientId], expected: float) -> Cohort:
    named = [(ids[one.place], one) for one in sorted(flights, key=lambda one: one.place)]
    return Cohort(
        round,
        tuple(client for client, _ in named),
        len(ids),
        expected,
        steps={client: one.steps for client, one in named if one.steps is not None},
        absent={client: one.reason for client, one in named if one.reason is not None},
    )


def _in_vain(turn: Turn) -> list[int]:
    """Return whose answers had arrived by the end of a turn, and did not count."""
    arrived = [
        flight
        for flight in turn.lost
        if flight.attempt.reason is None and flight.attempt.ended_s <= turn.ended_s
    ]
    # Devices without the time for a single step have sent nothing.
    sent = [flight for flight in arrived if flight.steps != 0]
    return [flight.place for flight in [*sent, *(turn.answers if turn.reason else [])]]


def _row(turn: Turn, policy: Policy) -> dict[str, Any]:
    row: dict[str, Any] = {
        "asked": len(turn.asked),
        "virtual_s": turn.ended_s,
        "round_s": turn.ended_s - turn.began_s,
    }
    if policy.carries:
        stale = Counter(turn.round - 1 - flight.base for flight in turn.answers)
        row["staleness"] = [[staleness, stale[staleness]] for staleness in sorted(stale)]
    return row


def _spans(turn: Turn, ids: Sequence[ClientId]) -> list[list[Any]]:
    """Return when each device was asked, had the model, had trained, ended, and why for nothing."""
    return [
        [ids[flight.place], *flight.attempt[:3], flight.ended_s, flight.reason]
        for flight in [*turn.answers, *turn.lost]
    ]
