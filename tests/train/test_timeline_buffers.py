"""The virtual clock of buffers: who is at work, whose answer is too old, and when it gives up."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.errors import QuorumError
from folkmoot.engines.availability import uniform
from folkmoot.engines.devices import Device
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.traces import intervals
from folkmoot.staleness import polynomial
from folkmoot.train.policy import Policy
from folkmoot.train.timeline import Costs, Timeline

SPEEDS = (10.0, 5.0, 2.0, 1.0)  # Examples a second: the 10 examples of each take 1, 2, 5 and 10 s.
EXAMPLES = 10


def nobody(there, round):
    """Buffers draw no cohort."""
    raise AssertionError


def devices_of(*speeds, **more):
    return {place: Device(examples_per_s=speed, **more) for place, speed in enumerate(speeds)}


def clock_of(policy, devices, *, in_flight=2, windows=None):
    """A clock of devices that all train 10 examples, in 5 steps, and send nothing that takes time.

    `windows` are [(start, end), ...] of each device by place; None is always.
    """
    trace = None
    if windows is not None:
        trace = intervals((f"{at}", pairs, math.inf) for at, pairs in windows.items())
    roster = Fleet(trace, devices=devices).roster(
        range(len(devices)), seed=0, flops_per_example=None, model_bytes=1.0
    )
    work = Costs(0, None, 0, lambda place: (EXAMPLES, 5), lambda place, room: (0, 0))
    return Timeline(roster, policy, work, nobody, in_flight, 0)


def buffered(buffer, *, at_most=100, **options):
    return Policy(buffer=buffer, staleness=polynomial(at_most=at_most), **options)


def places(flights):
    return [flight.place for flight in flights]


def test_a_buffer_ends_with_its_last_answer_and_others_go_on():
    clock = clock_of(buffered(2), devices_of(1.0, 0.5, 0.25), in_flight=3)

    turns = [clock.turn() for _ in range(3)]

    # 10, 20 and 40 s. At 20 s device 0, which has answered, waits; both are asked again, of version
    # 1, and answer at 30 and 40 s, where device 2 of version 0 was asked first.
    assert [turn.ended_s for turn in turns] == [20, 40, 50]
    assert [[(f.place, f.base) for f in turn.answers] for turn in turns] == [
        [(0, 0), (1, 0)],
        [(0, 1), (2, 0)],
        [(1, 1), (0, 2)],
    ]
    assert [turn.live for turn in turns] == [{0}, {1}, {2}]


@given(
    speeds=st.lists(st.floats(0.1, 10), min_size=4, max_size=9, unique=True),
    dropout=st.sampled_from([0.0, 0.3]),
    in_flight=st.integers(1, 4),
    buffer=st.integers(1, 4),
    deadline_s=st.sampled_from([math.inf, 30.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_buffer_holds_each_client_once_and_as_many_work_as_should(
    speeds, dropout, in_flight, buffer, deadline_s
):
    policy = buffered(buffer, at_most=3, deadline_s=deadline_s)
    speeds = [max(speed, 0.5) for speed in speeds] if deadline_s < math.inf else speeds
    clock = clock_of(policy, devices_of(*speeds, dropout=dropout), in_flight=in_flight)

    turns = [clock.turn() for _ in range(6)]

    spans = []
    for number, turn in enumerate(turns, 1):
        assert len(set(places(turn.answers))) == len(turn.answers) == buffer
        assert all(0 <= number - 1 - flight.base <= 3 for flight in turn.answers)
        ends = [flight.ended_s for flight in turn.answers]
        assert ends == sorted(ends) and ends[-1] == turn.ended_s
        spans += [(f.attempt.asked_s, f.ended_s) for f in [*turn.answers, *turn.lost]]
        assert max(turn.live, default=0) <= number
    for asked_s, _ in spans:
        assert sum(begin <= asked_s < end for begin, end in spans) <= in_flight


def test_an_answer_that_is_too_old_is_left_out_by_name():
    clock = clock_of(buffered(1, at_most=2), devices_of(1.0, 0.11), in_flight=2)

    turns = [clock.turn() for _ in range(12)]

    # Device 0 makes a model every 10 s, so that device 1 is 9 models late after 90.9 s.
    lost = [flight for turn in turns for flight in turn.lost]
    assert [(f.place, f.reason) for f in lost] == [
        (1, "its model was 9 rounds old, and at most 2 count")
    ]
    # Nothing is kept for an answer that cannot count.
    assert [turn.live for turn in turns[:5]] == [{0}, {0}, set(), set(), set()]


def test_the_deadline_of_a_buffered_run_gives_up_an_answer_and_frees_its_place():
    clock = clock_of(buffered(1, deadline_s=15.0), devices_of(1.0, 0.1), in_flight=2)

    turns = [clock.turn() for _ in range(4)]

    assert [turn.ended_s for turn in turns] == [10, 20, 30, 40]
    lost = [flight for turn in turns for flight in turn.lost]
    assert [(f.place, f.ended_s, f.reason) for f in lost] == [
        (1, 15.0, "it was not done after 15 s"),
        (1, 30.0, "it was not done after 15 s"),
    ]


def test_a_device_that_comes_is_asked_at_once_where_one_more_is_wanted():
    windows = {0: [(0, 1000.0)], 1: [(5.0, 1000.0)], 2: [(6.0, 1000.0)]}

    turn = clock_of(buffered(2), devices_of(0.1, 1.0, 1.0), windows=windows).turn()

    # Device 0 is at work until 100 s; device 1 comes at 5 s, and device 2 takes its place at 15 s.
    assert [(f.place, f.attempt.asked_s, f.ended_s) for f in turn.answers] == [
        (1, 5.0, 15.0),
        (2, 15.0, 25.0),
    ]


def test_a_buffer_that_only_those_could_fill_who_have_answered_waits_for_others():
    windows = {0: [(0, 1000.0)], 1: [(300.0, 1000.0)]}

    turn = clock_of(buffered(2), devices_of(10.0, 10.0), windows=windows).turn()

    assert [(f.place, f.ended_s) for f in turn.answers] == [(0, 1.0), (1, 301.0)]


def test_devices_that_never_answer_do_not_keep_a_buffered_run_for_ever():
    clock = clock_of(buffered(2), devices_of(*SPEEDS, dropout=1.0))

    with pytest.raises(QuorumError, match="has no result yet: too few devices come, or stay"):
        clock.turn()


def test_a_roster_drops_devices_out_by_the_hash_of_whole_arrays():
    roster = Fleet(devices=Device(examples_per_s=1.0, dropout=0.5)).roster(
        range(20), seed=3, flops_per_example=None, model_bytes=1.0
    )
    work = {"examples": 10, "down_bytes": 0, "up_bytes": 0}

    for number in (0, 1, 77):
        drops = uniform(roster.keys, "drops out", number) < 0.5
        at = 10 * uniform(roster.keys, "drops out at", number)
        for place in range(20):
            attempt = roster.attempt(place, 0.0, number=number, **work)
            assert attempt.ended_s == (at[place] if drops[place] else 10.0)
