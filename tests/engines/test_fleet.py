"""A roster: how long attempts take, where they end, and that nothing depends on the asking."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.errors import SettingsError
from folkmoot.engines import fleets
from folkmoot.engines.availability import Nightly, Sessions, Upkeep
from folkmoot.engines.devices import Device
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.roster import UNBOUNDED, Attempt

DATA = Path(__file__).parent / "data"
SLOW = Device(
    flops=1e6, down_bytes_per_s=1000.0, up_bytes_per_s=500.0, latency_s=0.5, memory_bytes=4000.0
)
ASK = {"number": 1, "examples": 30, "down_bytes": 2000, "up_bytes": 3000}
# Latency 0.5 and 2,000 B / 1,000; 30 examples of 1e5 at 1e6 a second; latency 0.5 and 3,000 / 500.
RECEIVED, TRAINED, ENDED = 2.5, 5.5, 12.0


def bound(fleet, ids=(0,), *, seed=0, flops_per_example=1e5, model_bytes=1000.0):
    return fleet.roster(
        ids, seed=seed, flops_per_example=flops_per_example, model_bytes=model_bytes
    )


def windows(tmp_path, *pairs, device=SLOW):
    """A fleet of one device, number 0, that is there from start to end."""
    path = tmp_path / "trace.csv"
    path.write_text("device,start_s,end_s\n" + "".join(f"0,{a},{b}\n" for a, b in pairs))
    return Fleet(path, devices=device, repeat_s=math.inf)


def test_an_attempt_is_a_download_training_and_an_upload():
    attempt = bound(Fleet(devices=SLOW)).attempt(0, 100.0, **ASK)

    assert attempt == Attempt(100.0, 100 + RECEIVED, 100 + TRAINED, 100 + ENDED, None)


def test_speed_in_examples_needs_no_count_of_operations():
    roster = bound(Fleet(devices=Device(examples_per_s=4.0)), flops_per_example=None)

    assert roster.attempt(0, 0.0, **ASK).ended_s == 7.5


def test_what_is_expected_is_how_long_an_undisturbed_attempt_takes():
    roster = bound(Fleet(devices={"a": SLOW, "b": Device(examples_per_s=10.0)}), ["a", "b"])

    assert roster.expected_s(30, 2000, 3000).tolist() == [ENDED, 3.0]


def test_a_model_that_does_not_fit_is_not_trained():
    tight, large = (bound(Fleet(devices=SLOW), model_bytes=size) for size in (1000.0, 1000.1))

    assert tight.fits.tolist() == [True]  # 4 * 1,000 bytes are what there is
    assert large.fits.tolist() == [False]
    lost = Attempt(9.0, math.inf, math.inf, 9.0, "the model does not fit into its memory")
    assert large.attempt(0, 9.0, **ASK) == lost
    assert large.examples_until(0, 9.0, 1e9, 0, 0) == 0


@pytest.mark.parametrize(
    ("end", "received", "trained", "doing"),
    [
        (101, math.inf, math.inf, "received the model"),
        (104, 100 + RECEIVED, math.inf, "trained"),
        (111, 100 + RECEIVED, 100 + TRAINED, "sent its answer"),
    ],
)
def test_who_goes_offline_is_lost_at_the_windows_end(tmp_path, end, received, trained, doing):
    attempt = bound(windows(tmp_path, (50, end))).attempt(0, 100.0, **ASK)

    reason = f"it went offline at {end} s while it {doing}"
    assert attempt == Attempt(100.0, received, trained, float(end), reason)


def test_an_answer_that_arrives_as_the_window_closes_counts(tmp_path):
    attempt = bound(windows(tmp_path, (50, 112))).attempt(0, 100.0, **ASK)

    assert attempt.reason is None


def test_who_is_offline_cannot_be_asked(tmp_path):
    roster = bound(windows(tmp_path, (50, 60)))

    for t in (49.0, 60.0):
        attempt = roster.attempt(0, t, **ASK)
        assert attempt == Attempt(t, math.inf, math.inf, t, "it was offline when it was asked")
        assert roster.examples_until(0, t, 1e9, 0, 0) == 0


def test_who_drops_out_is_lost_within_the_attempt():
    roster = bound(Fleet(devices=SLOW._replace(dropout=1.0)))

    lost = [roster.attempt(0, 100.0, **{**ASK, "number": number}) for number in range(2000)]

    times = np.array([attempt.ended_s for attempt in lost])
    assert all(attempt.reason.startswith("it dropped out at 1") for attempt in lost)
    # Uniform over the attempt: mean 6, and 4 standard errors are 4 * 12 / sqrt(12 * 2,000) = 0.31.
    assert times.mean() == pytest.approx(100 + ENDED / 2, abs=0.31)
    assert times.min() >= 100 and times.max() <= 100 + ENDED


def test_each_attempt_drops_out_by_its_own_lot():
    roster = bound(Fleet(devices=SLOW._replace(dropout=0.3)))

    lost = [roster.attempt(0, 0.0, **{**ASK, "number": n}).reason is not None for n in range(5000)]

    assert np.mean(lost) == pytest.approx(0.3, abs=0.026)  # 4 * sqrt(0.3 * 0.7 / 5,000)
    again = np.mean(np.array(lost)[1:] & np.array(lost)[:-1])
    assert again == pytest.approx(0.09, abs=0.019)


@settings(max_examples=150, deadline=None)
@given(
    deadline=st.floats(0.0, 60.0),
    end=st.floats(0.1, 60.0),
    speed=st.floats(0.01, 1e6),
    latency=st.floats(0.0, 3.0),
)
def test_examples_until_are_the_most_that_arrive_in_time(
    tmp_path_factory, deadline, end, speed, latency
):
    device = SLOW._replace(flops=None, examples_per_s=speed, latency_s=latency)
    roster = bound(windows(tmp_path_factory.mktemp("trace"), (0, end), device=device))

    count = roster.examples_until(0, 0.0, deadline, 500, 250)

    def in_time(examples):
        ask = {"number": 0, "examples": examples, "down_bytes": 500, "up_bytes": 250}
        attempt = roster.attempt(0, 0.0, **ask)
        return attempt.reason is None and attempt.ended_s <= deadline

    assert in_time(count) or count == 0
    assert not in_time(count + 1)


@pytest.mark.parametrize("speed", [3.0, 0.7, 1e3 / 7])
def test_examples_until_are_exact_where_the_answer_arrives_at_the_deadline(speed):
    roster = bound(Fleet(devices=SLOW._replace(flops=None, examples_per_s=speed, latency_s=0.1)))

    for examples in range(500):
        ask = {**ASK, "examples": examples}
        deadline = roster.attempt(0, 0.3, **ask).ended_s
        just_before = math.nextafter(deadline, 0)
        assert roster.examples_until(0, 0.3, deadline, 2000, 3000) == examples
        assert roster.examples_until(0, 0.3, just_before, 2000, 3000) == max(0, examples - 1)


def test_examples_until_by_hand():
    roster = bound(Fleet(devices=SLOW))

    # 20 s, less 2.5 s to receive and 6.5 s to send, at 10 examples a second.
    assert roster.examples_until(0, 0.0, 20.0, 2000, 3000) == 110
    assert roster.examples_until(0, 0.0, 9.0, 2000, 3000) == 0
    assert roster.examples_until(0, 0.0, math.inf, 2000, 3000) == UNBOUNDED


def everything(roster, place):
    times = (0.0, 1e5, 2e6)
    ask = {"examples": 1000, "down_bytes": 1e6, "up_bytes": 1e6}
    attempts = [roster.attempt(place, t, number=n, **ask) for t in times for n in (0, 1)]
    moments = [(roster.until(place, t), roster.next_start(place, t)) for t in times]
    return attempts, moments, roster.expected_s(1000, 1e6, 1e6)[place]


FLEETS = {
    "phones": fleets.phones(),
    "iot": fleets.iot(),
    "hospitals": fleets.hospitals(),
    "browsers": fleets.browsers(),
    "recorded": Fleet(DATA / "windows.csv", devices=DATA / "devices.csv"),
}


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
def test_a_clients_device_depends_on_seed_and_id_alone(fleet):
    full = bound(fleet, range(1000), seed=7)
    few = bound(fleet, [900, 3], seed=7)

    for t in (5e6, 0.0, 3e5):  # The order of questions does not count.
        assert few.available(t).tolist() == full.available(t)[[900, 3]].tolist()
    assert everything(few, 0) == everything(full, 900)
    assert everything(few, 1) == everything(bound(fleet, [3], seed=7), 0)


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
def test_names_and_seeds_tell_devices_apart(fleet):
    ids = [f"client-{number}" for number in range(200)]

    one, same, other = (bound(fleet, ids, seed=seed) for seed in (1, 1, 2))

    at = np.arange(0, 1e5, 1e4)
    shown, equal, apart = (np.array([r.available(t) for t in at]) for r in (one, same, other))
    assert (shown == equal).all() and (one.example_s == same.example_s).all()
    assert (one.example_s != other.example_s).any()
    assert (shown != apart).any()


def arrays(value):
    """Every array that a roster holds, once each and whole."""
    parts = vars(value).values() if hasattr(value, "__dict__") else ()
    for part in parts:
        if isinstance(part, np.ndarray):
            yield part if part.base is None else part.base
        else:
            yield from arrays(part)


def test_a_million_devices_take_less_than_80_bytes_each():
    roster = bound(fleets.phones(), range(1_000_000))

    there = roster.available(0.0)

    held = {id(array): array.nbytes for array in arrays(roster)}
    assert len(roster) == len(there) == 1_000_000
    assert 50e6 < sum(held.values()) < 80e6


def test_the_next_to_come_is_a_device_that_fits_and_is_not_there(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("device,start_s,end_s\nsmall,10,20\nlarge,30,40\nlarge,60,70\n")
    small, large = (Device(examples_per_s=1.0, memory_bytes=size) for size in (100.0, 1e6))
    fleet = Fleet(path, devices={"small": small, "large": large}, repeat_s=math.inf)

    roster = bound(fleet, ["small", "large"])

    coming = [roster.coming(t) for t in (0, 30, 35, 40, 70)]
    assert coming == [30, math.inf, math.inf, 60, math.inf]


def test_a_population_of_nobody_is_never_there():
    roster = bound(fleets.phones(), [])

    assert len(roster) == 0 and roster.coming(0.0) == math.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fleet(devices=Device()), "devices= has flops=None and examples_per_s=None"),
        (lambda: Fleet(devices={4: Device(-1.0)}), "The device of client 4 has flops=-1.0"),
        (lambda: Fleet(devices="phones.csv"), r"phones\.csv cannot be read"),
        (lambda: Fleet(Device(1e9)), "trace must be a CSV file or an availability"),
        (lambda: Fleet(repeat_s=5.0), "repeat_s=5.0 says when a CSV trace begins again"),
        (lambda: Fleet("t.csv", repeat_s=-1.0), "repeat_s must be a finite number above 0"),
        (lambda: Fleet(Nightly(chance=0.0)), r"chance must be a probability in \[0.001, 1\]"),
        (lambda: Fleet(Nightly(mean_s=14 * 3600)), "14 hours on average may run into the next"),
        (lambda: Fleet(Nightly(zones=(math.nan,))), "must be finite hours"),
        (lambda: Fleet(Nightly(zones=())), "at least one zone. Use zones="),
        (lambda: Fleet(Sessions(slot_s=5.0)), "slot_s=5 is too short"),
        (lambda: Fleet(Upkeep(100.0, 40.0)), "Outages of 40 s fill slots of 100 s"),
        (lambda: fleets.phones(dropout=0.9), "dropout=0.9"),
        (lambda: fleets.iot(wifi=1.5), "share=1.5"),
        (lambda: fleets.browsers(slowdown=0.0), "slowdown must be a finite number above 0"),
    ],
)
def test_fleets_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_operations_that_nobody_counted_are_asked_for():
    with pytest.raises(SettingsError, match="flops_per_example is unknown"):
        bound(Fleet(devices=SLOW), flops_per_example=None)


def test_times_are_finite():
    roster = bound(fleets.phones())

    for ask in (roster.available, roster.coming, lambda t: roster.is_available(0, t)):
        with pytest.raises(SettingsError, match="A time must be finite, but is nan"):
            ask(math.nan)
