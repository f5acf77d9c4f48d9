"""Windows: all that is said of them agrees, whatever draws them, and however one asks."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.engines.availability import Nightly, Sessions, Upkeep
from folkmoot.engines.devices import Device
from folkmoot.engines.fleet import Fleet

DATA = Path(__file__).parent / "data"
DEVICE = Device(examples_per_s=1.0)
KINDS = {
    "always": Fleet(devices=DEVICE),
    "nightly": Fleet(Nightly(chance=0.1), devices=DEVICE),
    "sessions": Fleet(Sessions(slot_s=600.0, median_s=200.0), devices=DEVICE),
    "upkeep": Fleet(Upkeep(slot_s=86400.0, away_s=7200.0), devices=DEVICE),
    "trace": Fleet(DATA / "windows.csv", devices=DEVICE),
    "trace, once": Fleet(DATA / "windows.csv", devices=DEVICE, repeat_s=math.inf),
    "trace, odd period": Fleet(DATA / "windows.csv", devices=DEVICE, repeat_s=400.1),
}
POPULATION = 8


def roster(kind, seed=0):
    return KINDS[kind].roster(range(POPULATION), seed=seed, flops_per_example=None, model_bytes=1.0)


def before(t):
    return math.nextafter(t, -math.inf)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    t=st.floats(0.0, 3e6) | st.integers(0, 5000).map(float),
    place=st.integers(0, POPULATION - 1),
)
def test_what_is_said_of_windows_agrees(kind, seed, t, place):
    devices = roster(kind, seed)
    there = devices.is_available(place, t)
    until, start = devices.until(place, t), devices.next_start(place, t)

    assert there == devices.available(t)[place] == roster(kind, seed).available(t)[place]
    # Asked again, now that the windows at t are known; and of one that knows later ones.
    assert (until, start) == (devices.until(place, t), devices.next_start(place, t))
    devices.available(t + 1e6)
    assert (until, start) == (devices.until(place, t), devices.next_start(place, t))

    assert until > t if there else until == t
    assert start >= until or start == t
    if there and until < math.inf:
        assert devices.is_available(place, before(until))
        assert not devices.is_available(place, until)
    if start < math.inf:
        assert devices.is_available(place, start)
        assert not devices.is_available(place, before(start))
        # Nobody is there in between, either.
        gap = np.linspace(until, before(start), 20) if start > t else []
        assert not any(devices.is_available(place, moment) for moment in gap)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), t=st.floats(0.0, 3e6))
def test_the_next_to_come_is_the_earliest_of_those_who_are_not_there(kind, seed, t):
    devices = roster(kind, seed)

    coming = devices.coming(t)

    away = np.flatnonzero(~devices.available(t))
    assert coming == min((devices.next_start(place, t) for place in away), default=math.inf)
    assert coming > t


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_trace_says_what_its_lines_say_over_and_over(tmp_path_factory, data):
    cuts = data.draw(st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(sorted))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    period = data.draw(st.integers(pairs[-1][1], 45))
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text("device,start_s,end_s\n" + "".join(f"x,{a},{b}\n" for a, b in pairs))

    fleet = Fleet(path, devices=DEVICE, repeat_s=float(period))
    devices = fleet.roster([0], seed=0, flops_per_example=None, model_bytes=1.0)

    times = data.draw(st.permutations(np.arange(0, 3 * 45, 0.5).tolist()))
    for t in times:
        expected = any(a <= t % period < b for a, b in pairs)
        assert devices.available(t)[0] == expected == devices.is_available(0, t)


def test_windows_of_a_trace_by_hand():
    fleet = Fleet(DATA / "windows.csv", devices=DEVICE)
    devices = fleet.roster(["kitchen", "cellar"], seed=0, flops_per_example=None, model_bytes=1.0)

    # The kitchen: 100 to 250 and 300 to 400 of every 400. The cellar: 350 to 450 and so on.
    assert devices.until(0, 120) == 250 and devices.next_start(0, 120) == 300
    assert devices.until(0, 960) == 1050 and devices.next_start(0, 1060) == 1100
    assert devices.until(1, 0) == 50 and devices.until(1, 370) == 450
    assert devices.next_start(1, 370) == 750
    assert devices.available(50).tolist() == [False, False]
    assert devices.available(800).tolist() == [False, True]


@pytest.mark.parametrize("period", [400.1, 7e3 / 9, 1e4 / 3])
def test_rounding_does_not_choose_another_window(period):
    fleet = Fleet(DATA / "windows.csv", devices=DEVICE, repeat_s=period)
    devices = fleet.roster(["kitchen"], seed=0, flops_per_example=None, model_bytes=1.0)
    t = 0.0

    for _ in range(1000):  # 100 to 250 and 300 to 400 of every period.
        t = devices.next_start(0, t)
        assert devices.is_available(0, t) and not devices.is_available(0, before(t))
        t = devices.until(0, t)
        assert devices.is_available(0, before(t)) and not devices.is_available(0, t)
    assert t == pytest.approx(499 * period + 400)


@pytest.mark.parametrize("kind", [Sessions(slot_s=60.0, chance=1.0), Upkeep(60.0, 20.0)])
def test_no_window_lies_within_a_second_of_its_slots_edge(kind):
    fleet = Fleet(kind, devices=DEVICE)
    devices = fleet.roster(range(10_000), seed=0, flops_per_example=None, model_bytes=1.0)

    opens, closes = devices.presence.at(0.0)

    assert ((opens - devices.presence.own) % 60 > 1 - 1e-9).all()
    assert ((closes - devices.presence.own) % 60 < 59 + 1e-9).all()


def test_a_trace_that_ends_is_never_there_again():
    fleet = Fleet(DATA / "windows.csv", devices=DEVICE, repeat_s=math.inf)
    devices = fleet.roster(["cellar"], seed=0, flops_per_example=None, model_bytes=1.0)

    assert devices.next_start(0, 60) == 350
    assert devices.next_start(0, 360) == devices.coming(400) == math.inf
    assert not devices.is_available(0, 1e9)


def test_who_is_always_there_has_no_next_window():
    devices = roster("always")

    assert devices.available(5.0).all()
    assert devices.until(0, 5.0) == devices.next_start(0, 5.0) == math.inf
