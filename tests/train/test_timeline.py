"""The virtual clock: rounds and buffers of devices by hand take what a closed form says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.errors import QuorumError
from folkmoot.engines.devices import Device
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.traces import intervals
from folkmoot.staleness import polynomial
from folkmoot.train.policy import Policy
from folkmoot.train.timeline import Costs, Timeline

SPEEDS = (10.0, 5.0, 2.0, 1.0)  # Examples a second: the 10 examples of each take 1, 2, 5 and 10 s.
EXAMPLES = 10


def everyone(there, round):
    return np.flatnonzero(there)


def devices_of(*speeds, **more):
    return {place: Device(examples_per_s=speed, **more) for place, speed in enumerate(speeds)}


def clock_of(policy=None, devices=None, *, draw=everyone, in_flight=2, windows=None, **costs):
    """A clock of devices that all train 10 examples, in 5 steps, and send nothing that takes time.

    `windows` are [(start, end), ...] of each device by place; None is always.
    """
    devices = devices or devices_of(*SPEEDS)
    trace = None
    if windows is not None:
        trace = intervals((f"{at}", pairs, math.inf) for at, pairs in windows.items())
    roster = Fleet(trace, devices=devices).roster(
        range(len(devices)), seed=0, flops_per_example=None, model_bytes=1.0
    )
    told = {"download_bytes": 0, "difference_bytes": None, "upload_bytes": 0} | costs
    work = Costs(
        **told,
        examples=lambda place: (EXAMPLES, 5),
        within=lambda place, room: (room // 2 * 2, room // 2),
    )
    return Timeline(roster, policy or Policy(), work, draw, in_flight, 0)


def buffered(buffer, *, at_most=100, **options):
    return Policy(buffer=buffer, staleness=polynomial(at_most=at_most), **options)


def places(flights):
    return [flight.place for flight in flights]


def plain(turn):
    """What of a turn can be compared: infinities are equal, and NaN does not occur."""
    return turn._asdict()


def test_a_round_takes_as_long_as_its_slowest_device():
    clock = clock_of()

    first, second = clock.turn(), clock.turn()

    assert (first.began_s, first.ended_s) == (0, 10)
    assert (second.began_s, second.ended_s) == (10, 20)
    assert places(first.answers) == [0, 1, 2, 3] and first.lost == []
    assert first.reason is None and first.live == second.live == frozenset()


def test_latency_and_both_transfers_are_waited_for():
    device = Device(examples_per_s=5.0, latency_s=0.25, down_bytes_per_s=100.0, up_bytes_per_s=50.0)

    turn = clock_of(devices={0: device}, download_bytes=300, upload_bytes=200).turn()

    # 0.25 + 300 / 100, then 10 / 5, then 0.25 + 200 / 50.
    (flight,) = turn.answers
    assert flight.attempt[1:4] == (3.25, 5.25, 9.5)
    assert turn.ended_s == 9.5 and turn.asked == [(0, 300)]


@pytest.mark.parametrize(
    ("over_select", "ends_s", "answered"), [(4.0, 1, 1), (2.0, 2, 2), (4 / 3, 5, 3), (1.0, 10, 4)]
)
def test_over_selection_ends_a_round_with_the_answer_that_is_waited_for(
    over_select, ends_s, answered
):
    turn = clock_of(Policy(over_select=over_select)).turn()

    assert turn.ended_s == ends_s
    assert places(turn.answers) == [0, 1, 2, 3][:answered]
    assert all(
        flight.reason == f"the round had closed at {ends_s} s with answer {answered}"
        for flight in turn.lost
    )


@pytest.mark.parametrize(("deadline_s", "answered"), [(0.5, 0), (4.99, 2), (5.0, 3), (10.0, 4)])
def test_a_deadline_cuts_exactly(deadline_s, answered):
    clock = clock_of(Policy(deadline_s=deadline_s))

    turn = clock.turn()

    assert places(turn.answers) == [0, 1, 2, 3][:answered]
    assert turn.ended_s == deadline_s
    said = f"it was not done at the deadline of {deadline_s:,.0f} s"
    assert all(flight.reason == said for flight in turn.lost)
    assert clock.turn().began_s == deadline_s


def test_a_deadline_that_is_not_reached_costs_no_time():
    assert clock_of(Policy(deadline_s=60.0)).turn().ended_s == 10


@pytest.mark.parametrize(("quorum", "least"), [(3, 3), (0.75, 3), (0.51, 3), (1.0, 4)])
def test_a_round_below_its_quorum_has_a_reason_and_the_clock_goes_on(quorum, least):
    clock = clock_of(Policy(quorum=quorum, deadline_s=4.0))

    turn = clock.turn()

    assert turn.reason == (
        f"Round 1 had 2 answers of 4 devices when it closed at 4 s, and its quorum is {least}."
    )
    assert (clock.turn().began_s, clock.turn().began_s) == (4, 8)


@pytest.mark.parametrize("quorum", [2, 0.5, 0.25])
def test_a_quorum_that_is_reached_gives_no_reason(quorum):
    assert clock_of(Policy(quorum=quorum, deadline_s=4.0)).turn().reason is None


@pytest.mark.parametrize(("pace_s", "begins"), [(30.0, [0, 30, 60]), (3.0, [0, 10, 20])])
def test_pace_is_the_least_from_one_beginning_to_the_next(pace_s, begins):
    clock = clock_of(Policy(pace_s=pace_s))

    assert [clock.turn().began_s for _ in begins] == begins


def test_a_round_of_which_all_are_lost_ends_with_the_last_of_them():
    clock = clock_of(devices=devices_of(*SPEEDS, dropout=1.0))

    turn = clock.turn()

    assert turn.answers == [] and len(turn.lost) == 4
    assert turn.ended_s == max(flight.ended_s for flight in turn.lost)
    assert 0 < turn.ended_s < 10 and turn.reason.startswith("Round 1 had 0 answers of 4 devices")
    assert all("it dropped out at" in flight.reason for flight in turn.lost)


@pytest.mark.parametrize("opens_s", [7.0, 30.0, 500.0])
def test_where_nobody_is_there_a_round_begins_when_the_next_window_opens(opens_s):
    clock = clock_of(devices=devices_of(10.0), windows={0: [(opens_s, opens_s + 20)]})

    turn = clock.turn()

    assert (turn.began_s, turn.ended_s) == (opens_s, opens_s + 1)


def test_a_window_that_closes_takes_the_answer_with_it():
    turn = clock_of(devices=devices_of(1.0, 10.0), windows={0: [(0, 4)], 1: [(0, 9)]}).turn()

    assert places(turn.answers) == [1] and places(turn.lost) == [0]
    assert turn.lost[0].reason == "it went offline at 4 s while it trained"


@pytest.mark.parametrize("policy", [Policy(), buffered(1)], ids=["together", "buffered"])
def test_a_trace_that_ends_ends_the_run_with_a_sentence(policy):
    clock = clock_of(policy, devices_of(10.0), windows={0: [(0, 1.5)]})
    clock.turn()

    with pytest.raises(QuorumError, match=r"no other device will ever come.*Use a trace that is"):
        for _ in range(3):
            clock.turn()


def test_nobody_waits_for_more_than_a_month():
    days = 86_400.0

    clock = clock_of(devices=devices_of(10.0), windows={0: [(31 * days, 32 * days)]})

    with pytest.raises(QuorumError, match="Round 1 began at 0 s and has no result yet"):
        clock.turn()


def test_a_lot_that_chooses_nobody_does_not_stop_the_clock():
    clock = clock_of(draw=lambda there, round: np.zeros(0, dtype=np.int64))

    turns = [clock.turn() for _ in range(3)]

    assert [turn.began_s for turn in turns] == [0, 60, 120]
    assert all(turn.reason and turn.asked == [] for turn in turns)


@pytest.mark.parametrize("draw", [everyone, lambda there, round: np.zeros(0, dtype=np.int64)])
def test_a_round_that_hides_who_takes_part_lasts_to_its_deadline_and_always_has_a_result(draw):
    clock = clock_of(Policy(deadline_s=40.0, hides=True), draw=draw)

    turns = [clock.turn() for _ in range(3)]

    assert [(turn.began_s, turn.ended_s) for turn in turns] == [(0, 40), (40, 80), (80, 120)]
    assert all(turn.reason is None for turn in turns)


def test_equal_times_go_by_the_order_of_asking():
    clock = clock_of(devices=devices_of(*[5.0] * 6), draw=lambda *_: np.array([4, 1, 5, 0, 3, 2]))

    assert places(clock.turn().answers) == [4, 1, 5, 0, 3, 2]


def test_who_has_the_last_broadcast_hears_differences_and_who_missed_many_the_model():
    turns = {1: [0, 1], 2: [0], 3: [0], 4: [0, 1], 5: [0, 1], 6: []}
    clock = clock_of(
        draw=lambda there, round: np.array(turns[round], dtype=np.int64),
        download_bytes=100,
        difference_bytes=40,
    )

    asked = [dict(clock.turn().asked) for _ in turns]

    # Client 1 misses rounds 2 and 3, so that three differences, 120, are more than the model.
    assert asked == [{0: 100, 1: 100}, {0: 40}, {0: 40}, {0: 40, 1: 100}, {0: 40, 1: 40}, {}]


def test_who_drops_out_before_the_broadcast_has_arrived_does_not_hold_it():
    windows = {0: [(0, 2.0), (10.0, 100.0)], 1: [(0, 100.0)]}
    devices = devices_of(10.0, 1.0, down_bytes_per_s=10.0)

    clock = clock_of(devices=devices, windows=windows, download_bytes=40, difference_bytes=10)
    first, second = clock.turn(), clock.turn()

    assert first.lost[0].reason == "it went offline at 2 s while it received the model"
    assert dict(first.asked) == {0: 40, 1: 40} and dict(second.asked) == {0: 40, 1: 10}


def test_partial_work_is_what_there_is_time_for():
    # 10, 5, 2 and 0.3 examples a second; 3 s are enough for 30, 15, 6 and 0 of the 10 examples.
    turn = clock_of(Policy(deadline_s=3.0, partial=True), devices_of(10.0, 5.0, 2.0, 0.3)).turn()

    assert [(f.place, f.steps, f.ended_s) for f in turn.answers] == [
        (0, None, 1.0),
        (1, None, 2.0),
        (2, 3, 3.0),
    ]
    (left,) = turn.lost
    assert left.reason == "it has no time for a single step before the deadline"


@given(
    speeds=st.lists(st.floats(0.01, 100), min_size=1, max_size=12),
    dropout=st.floats(0, 1),
    deadline_s=st.floats(0.01, 100),
    over_select=st.floats(1, 3),
    partial=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_straggler_never_delays_a_round_beyond_its_deadline(
    speeds, dropout, deadline_s, over_select, partial
):
    policy = Policy(deadline_s=deadline_s, over_select=over_select, partial=partial)
    clock = clock_of(policy, devices_of(*speeds, dropout=dropout))

    for _ in range(4):
        turn = clock.turn()

        assert turn.began_s <= turn.ended_s <= turn.began_s + deadline_s
        assert all(flight.ended_s <= turn.ended_s for flight in turn.answers)
        assert sorted(places([*turn.answers, *turn.lost])) == list(range(len(speeds)))
        assert all(flight.reason for flight in turn.lost)
        assert not any(flight.reason for flight in turn.answers)


POLICIES = {
    "together": Policy(deadline_s=4.0, over_select=1.2),
    "partial": Policy(deadline_s=3.0, partial=True, pace_s=5.0),
    "buffered": buffered(2, at_most=2),
    "buffered with a deadline": buffered(3, deadline_s=15.0),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("done", [1, 7])
def test_a_clock_that_is_played_again_stands_where_it_stood(policy, done):
    def fresh():
        devices = devices_of(10.0, 5.0, 2.0, 1.0, 3.0, dropout=0.2)
        return clock_of(policy, devices, in_flight=3, download_bytes=9, difference_bytes=2)

    whole, again = fresh(), fresh()
    for _ in range(done):
        whole.turn()

    again.skip(done)

    assert [plain(again.turn()) for _ in range(4)] == [plain(whole.turn()) for _ in range(4)]
