"""The loop of events: who is asked when, whose answer counts in which round, and when rounds end.

Rounds that begin and end together, and buffers that never stop, are two settings of it. A virtual
clock jumps from one event to the next; equal times go by the order in which devices were asked.
Nothing here trains: what comes out follows from devices, policy, sizes and the seed alone, so it is
the same for any number of workers, and a run that is resumed plays it again up to where it stood.
"""

import heapq
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from folkmoot.core import rng
from folkmoot.core.errors import QuorumError
from folkmoot.engines.roster import Attempt, Roster
from folkmoot.train.policy import Policy

_TRIES = 32
"""Devices that are picked blindly before all are looked at: cheap where many are there."""
_GLANCE_S = 300.0
"""Time after which all devices are looked at again."""
_PAUSE_S = 60.0
"""What a round lasts that asks nobody."""
_PATIENCE_S = 30 * 86_400.0
"""Time after which a round that nobody joins is given up."""
_FAILURES = 100
"""Answers that are lost in a round for each device and each answer that is wanted, until then."""

Draw = Callable[[np.ndarray, int], np.ndarray]
"""`draw(there, round)`: places of the cohort among devices that are `there`, ascending."""


class Costs(NamedTuple):
    """What a client's part of a round takes, whoever it is."""

    download_bytes: int
    """Of a whole broadcast."""
    difference_bytes: int | None
    """Of what brings a client from one broadcast to the next; None where all are sent whole."""
    upload_bytes: int
    examples: Callable[[int], tuple[int, int]]
    """From a client's place to the examples that it trains, counted in each pass, and its steps."""
    within: Callable[[int, int], tuple[int, int]]
    """`within(place, room)`: the first examples and steps for which there is time of `room`."""

    def download(self, missed: int | None) -> int:
        """Return the bytes down to a client that has missed so many broadcasts; None: all."""
        if missed is None or self.difference_bytes is None:
            return self.download_bytes
        return min(self.download_bytes, missed * self.difference_bytes)


class Flight(NamedTuple):
    """One device at work."""

    ended_s: float
    order: int
    """Which request of the run it is."""
    place: int
    base: int
    """Rounds that the model had seen which it was given."""
    steps: int | None
    """Steps for which it has the time; None for all."""
    attempt: Attempt
    reason: str | None = None
    """Why its answer does not count."""


class Turn(NamedTuple):
    """One round on the virtual clock."""

    round: int
    began_s: float
    ended_s: float
    asked: list[tuple[int, int]]
    """Places that were asked, and the bytes down to each, in order of asking."""
    answers: list[Flight]
    """In order of arrival."""
    lost: list[Flight]
    live: frozenset[int]
    """Models that are still worked on, by the rounds that each had seen."""
    reason: str | None = None
    """Why the round has no result."""


class Timeline:
    """The virtual clock of one run; `turn` gives one round after another."""

    def __init__(
        self,
        roster: Roster,
        policy: Policy,
        costs: Costs,
        draw: Draw,
        in_flight: int,
        seed: int,
        least_there: int = 1,
    ) -> None:
        self.roster, self.policy, self.costs = roster, policy, costs
        self._draw, self._in_flight, self._least_there = draw, in_flight, least_there
        self._seed, self._round, self._order = seed, 0, 0
        self.now_s, self._begin_s, self._looked_s = 0.0, 0.0, -math.inf
        self._flights: list[Flight] = []
        self._busy: set[int] = set()
        self._requests = np.zeros(len(roster), dtype=np.int32)
        self._held = np.full(len(roster), -1, dtype=np.int32)

    def turn(self) -> Turn:
        """Play one round.

        Raises:
            QuorumError: If no device will ever be there again.
        """
        began = max(self.now_s, self._begin_s)
        self._round += 1
        self.now_s, self._begin_s = began, began + self.policy.pace_s
        return self._buffered(began) if self.policy.carries else self._together(began)

    def skip(self, rounds: int) -> None:
        """Play rounds that a stored run has done."""
        for _ in range(rounds):
            self.turn()

    def _together(self, began: float) -> Turn:
        """Ask a cohort at once; close with enough answers, when all have ended, or in time."""
        places = self._cohort()
        began, limit = self.now_s, self.now_s + self.policy.deadline_s
        asked = [self._ask(int(place), limit) for place in places]
        goal = max(1, round(len(asked) / self.policy.over_select))
        answers: list[Flight] = []
        lost: list[Flight] = []
        while self._flights and len(answers) < goal and self._flights[0].ended_s <= limit:
            flight = self._land()
            (answers if flight.reason is None else lost).append(flight)
        if self._flights and len(answers) < goal:
            self.now_s, late = limit, f"it was not done at the deadline of {limit:,.0f} s"
        else:
            late = f"the round had closed at {self.now_s:,.0f} s with answer {len(answers)}"
        lost += [flight._replace(reason=late) for flight in sorted(self._flights)]
        self._flights, self._busy = [], set()
        if self.policy.hides:
            self.now_s = limit
        elif not asked:
            # Whom the lot chose is not there: some time later somebody may be.
            self.now_s = min(limit, self.now_s + _PAUSE_S)
        least = self.policy.least(len(asked))
        reason = None
        if len(answers) < least:
            reason = (
                f"Round {self._round} had {len(answers)} answers of {len(asked)} devices when it "
                f"closed at {self.now_s:,.0f} s, and its quorum is {least}."
            )
        return Turn(self._round, began, self.now_s, asked, answers, lost, frozenset(), reason)

    def _buffered(self, began: float) -> Turn:
        """Keep devices at work until a buffer of answers is full."""
        if began >= self._looked_s + _GLANCE_S:
            # Windows of all at once: one by one they take far longer.
            self._looked_s = began
            self.roster.available(began)
        answers: list[Flight] = []
        lost: list[Flight] = []
        given: set[int] = set()
        asked = self._refill(given)
        version = self._round - 1
        assert self.policy.buffer is not None and self.policy.staleness is not None
        while len(answers) < self.policy.buffer:
            if self._comes_first():
                self._wait(began)
                asked += self._refill(given)
                continue
            flight = self._land()
            endless = len(lost) > _FAILURES * (len(self.roster) + self.policy.buffer)
            self._refuse_patience(began, math.inf if endless else self.now_s)
            stale = version - flight.base
            if flight.reason is None and stale > self.policy.staleness.at_most:
                flight = flight._replace(
                    reason=f"its model was {stale} rounds old, and at most "
                    f"{self.policy.staleness.at_most} count"
                )
            (answers if flight.reason is None else lost).append(flight)
            if flight.reason is None:
                given.add(flight.place)
            if len(answers) < self.policy.buffer:
                asked += self._refill(given)
        most = self.policy.staleness.at_most
        live = frozenset(one.base for one in self._flights if self._round - one.base <= most)
        return Turn(self._round, began, self.now_s, asked, answers, lost, live)

    def _cohort(self) -> np.ndarray:
        """Draw among the devices that are there, or wait until some are."""
        begun = self.now_s
        while True:
            there = self.roster.available(self.now_s) & self.roster.fits
            if np.count_nonzero(there) >= self._least_there:
                # The lot may choose nobody, or none of those who are there.
                return self._draw(there, self._round)
            self._wait(begun)

    def _wait(self, since: float) -> None:
        """Let the clock go to the next moment at which a device comes."""
        coming = self.roster.coming(self.now_s)
        if not math.isfinite(coming):
            raise QuorumError(
                f"After {self.now_s:,.0f} s no other device will ever come, so round "
                f"{self._round} cannot end. Use a trace that is longer or repeats, or a smaller "
                "buffer= than there are devices."
            )
        self._refuse_patience(since, coming)
        self.now_s = coming

    def _refuse_patience(self, since: float, until: float) -> None:
        if until > since + _PATIENCE_S:
            raise QuorumError(
                f"Round {self._round} began at {since:,.0f} s and has no result yet: "
                "too few devices come, or stay for long enough to answer. Ask for less work in a "
                "round, a smaller buffer=, or use other devices."
            )

    def _comes_first(self) -> bool:
        """Tell whether one more device is wanted, and comes before anybody at work has ended."""
        if not self._flights:
            return True
        wanted = len(self._flights) < self._in_flight
        return wanted and self.roster.coming(self.now_s) < self._flights[0].ended_s

    def _refill(self, given: set[int]) -> list[tuple[int, int]]:
        """Ask devices until as many are at work as should be, or none is left."""
        asked: list[tuple[int, int]] = []
        while len(self._flights) < self._in_flight:
            place = self._pick(given)
            if place is None:
                break
            asked.append(self._ask(place, self.now_s + self.policy.deadline_s))
        return asked

    def _pick(self, given: set[int]) -> int | None:
        """Return a device that is there, idle, and has not answered in this buffer."""
        key = rng.derive(self._seed, round=self._order, purpose="next device")
        for attempt in range(_TRIES):
            place = rng.mix(key ^ attempt) * len(self.roster) >> 64
            if self._is_free(place, given) and self.roster.is_available(place, self.now_s):
                return place
        there = self.roster.available(self.now_s) & self.roster.fits
        there[[*self._busy, *given]] = False
        left = np.flatnonzero(there)
        return int(left[rng.mix(key ^ _TRIES) * len(left) >> 64]) if len(left) else None

    def _is_free(self, place: int, given: set[int]) -> bool:
        return place not in self._busy and place not in given and bool(self.roster.fits[place])

    def _ask(self, place: int, limit: float) -> tuple[int, int]:
        """Send one device on its way; its answer is lost at the limit, or is a part by then."""
        version, held = self._round - 1, int(self._held[place])
        down = self.costs.download(None if held < 0 else version - held)
        examples, _ = self.costs.examples(place)
        up, steps = self.costs.upload_bytes, None
        if self.policy.partial:
            room = self.roster.examples_until(place, self.now_s, limit, down, up)
            if room < examples:
                examples, steps = self.costs.within(place, room)
        attempt = self.roster.attempt(
            place,
            self.now_s,
            number=int(self._requests[place]),
            examples=examples,
            down_bytes=down,
            up_bytes=up,
        )
        ended, reason = attempt.ended_s, attempt.reason
        if steps == 0:
            reason = reason or "it has no time for a single step before the deadline"
        if self.policy.carries and ended > limit:
            ended, reason = limit, f"it was not done after {self.policy.deadline_s:,.0f} s"
        flight = Flight(ended, self._order, place, version, steps, attempt, reason)
        heapq.heappush(self._flights, flight)
        self._busy.add(place)
        self._requests[place] += 1
        if math.isfinite(attempt.received_s):
            self._held[place] = version
        self._order += 1
        return place, down

    def _land(self) -> Flight:
        flight = heapq.heappop(self._flights)
        self._busy.discard(flight.place)
        self.now_s = max(self.now_s, flight.ended_s)
        return flight
