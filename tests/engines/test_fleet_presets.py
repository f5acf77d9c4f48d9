"""Presets keep what their docstrings state, over 100,000 devices."""

import math
from pathlib import Path

import numpy as np
import pytest

from folkmoot.engines import fleets
from folkmoot.engines.devices import Device
from folkmoot.engines.fleet import Fleet

DATA = Path(__file__).parent / "data"
DEVICES = 100_000
HOUR_S, DAY_S = 3600.0, 86400.0
MBIT = 125_000.0


@pytest.fixture(scope="module")
def drawn():
    makers = (fleets.phones, fleets.iot, fleets.hospitals, fleets.browsers)
    return {maker.__name__: roster(maker()) for maker in makers}


def roster(fleet, devices=DEVICES, model_bytes=0.0):
    # One operation an example, so that example_s is 1 / flops.
    return fleet.roster(range(devices), seed=3, flops_per_example=1.0, model_bytes=model_bytes)


def near(median, sigma, devices=DEVICES):
    """The median of a log-normal sample, within 4 standard errors (1.2533 sigma / sqrt(n))."""
    return pytest.approx(median, rel=math.expm1(4 * 1.2533 * sigma / math.sqrt(devices)))


def ends(numbers):
    """How many times the fastest 5 % are as fast as the slowest 5 %."""
    low, high = np.quantile(numbers, [0.05, 0.95])
    return high / low


def share(roster, hour):
    return roster.available(hour * HOUR_S).mean()


def test_phones_speeds_and_links(drawn):
    phones = drawn["phones"]

    assert np.median(1 / phones.example_s) == near(4e9, 0.9)
    assert ends(phones.example_s) == pytest.approx(19, rel=0.04)
    assert np.median(phones.down_bytes_per_s) == near(0.6e6, 1.0)
    assert np.median(phones.up_bytes_per_s) == near(0.3e6, 1.0)
    assert ends(phones.up_bytes_per_s) == pytest.approx(27, rel=0.04)
    assert np.median(phones.latency_s) == near(0.05, 0.5)
    # A model of 250 MB needs the median of the memory, 1 GB.
    assert roster(fleets.phones(), model_bytes=250e6).fits.mean() == pytest.approx(0.5, abs=0.007)


def expected_phones(hour):
    """The share of phones that are there, from the docstring's numbers, on a grid of minutes."""
    minutes = np.arange(-24 * 60, 48 * 60)
    triangle = np.clip(180 - np.abs(np.arange(-180, 181)), 0, None) / 180**2
    jitter = np.full(181, 1 / 181)
    zones = np.zeros(181)
    zones[[0, 60, 120, 180]] = 1 / 4
    opens = np.zeros(len(minutes))
    around = np.convolve(np.convolve(triangle, jitter), zones)
    middle = np.searchsorted(minutes, int(22.5 * 60) - 24 * 60)
    opens[middle - len(around) // 2 :][: len(around)] = around / around.sum()
    # Lasts 3.5 to 10.5 hours, uniformly.
    still_open = np.clip((630 - np.arange(0, 631)) / 420, 0, 1)
    by_night = np.convolve(opens, still_open)[np.searchsorted(minutes, int(hour * 60))]
    return 0.6 * (0.5 * by_night + 0.5 * 7 / 24)


@pytest.mark.parametrize("hour", [0.0, 2.0, 4.5, 7.0, 12.0])
def test_phones_are_there_as_often_as_their_habits_say(drawn, hour):
    # 4 standard errors are at most 4 * sqrt(0.35 * 0.65 / 100,000) = 0.006.
    expected = expected_phones(hour)

    assert share(drawn["phones"], hour) == pytest.approx(expected, abs=0.0075)
    assert share(drawn["phones"], hour + 24) == pytest.approx(expected, abs=0.0075)


def test_four_times_as_many_phones_at_the_peak_as_at_the_trough(drawn):
    by_hour = [expected_phones(hour) for hour in np.arange(0, 16.5, 0.5)]

    assert np.argmax(by_hour) / 2 == 1.5
    assert by_hour[31] == min(by_hour) == pytest.approx(0.0875)  # 15:30, when no night's is open
    assert max(by_hour) == pytest.approx(0.35, abs=0.005)
    assert max(by_hour) / min(by_hour) == pytest.approx(4, abs=0.1)
    # 4 standard errors are at most 4 * sqrt(0.35 * 0.65 / 100,000) = 0.006.
    assert share(drawn["phones"], 1.5) == pytest.approx(max(by_hour), abs=0.0075)
    assert share(drawn["phones"], 15.5) == pytest.approx(min(by_hour), abs=0.004)


def test_some_phones_are_never_heard_at_night(drawn):
    phones = drawn["phones"]
    nights = [phones.available((24 * day + 2) * HOUR_S) for day in range(14)]
    noons = [phones.available((24 * day + 14) * HOUR_S) for day in range(14)]

    by_day_only = ~np.any(nights, axis=0) & np.any(noons, axis=0)

    assert 0.1 < by_day_only.mean() < 0.4


def test_six_to_ten_percent_of_phones_drop_out(drawn):
    dropout = drawn["phones"].dropout

    assert dropout.min() == pytest.approx(0.06, abs=1e-4)
    assert dropout.max() == pytest.approx(0.10, abs=1e-4)
    assert dropout.mean() == pytest.approx(0.08, abs=2e-4)


def test_attempts_drop_out_as_often(drawn):
    make = fleets.phones().devices
    always = roster(Fleet(devices=make), devices=20_000)
    ask = {"number": 1, "examples": 0, "down_bytes": 0, "up_bytes": 0}

    lost = [always.attempt(place, 0.0, **ask).reason is not None for place in range(20_000)]

    assert np.mean(lost) == pytest.approx(0.08, abs=0.0077)  # 4 * sqrt(0.08 * 0.92 / 20,000)


def test_iot_boards_are_on_wifi_or_on_lte(drawn):
    iot = drawn["iot"]

    assert np.median(1 / iot.example_s) == near(3e9, 0.6)
    for share_, down, up, latency, sigma in (
        (1.0, 20 * MBIT, 10 * MBIT, 0.01, 0.7),
        (0.0, 0.15 * MBIT, 0.1875 * MBIT, 0.1, 0.35),
    ):
        one = roster(fleets.iot(wifi=share_))
        assert np.median(one.down_bytes_per_s) == near(down, sigma)
        assert np.median(one.up_bytes_per_s) == near(up, sigma)
        assert np.median(one.latency_s) == near(latency, 0.5)
    # 300 and 375 kbit/s are what an LTE-M modem reaches at most: 97.6 % are below.
    slow = iot.up_bytes_per_s < 0.375 * MBIT
    assert slow.mean() == pytest.approx(0.4 * 0.9762, abs=0.0062)  # Phi(ln 2 / 0.35)


def test_iot_boards_are_off_for_an_hour_a_day(drawn):
    assert share(drawn["iot"], 5) == pytest.approx(23 / 24, abs=0.0026)
    assert share(drawn["iot"], 500) == pytest.approx(23 / 24, abs=0.0026)
    assert drawn["iot"].dropout.mean() == pytest.approx(0.05, abs=2e-4)


def test_hospitals_speeds_and_links(drawn):
    hospitals = drawn["hospitals"]

    assert np.median(1 / roster(fleets.hospitals(gpus=1.0)).example_s) == near(2.4e12, 0.5)
    assert np.median(1 / roster(fleets.hospitals(gpus=0.0)).example_s) == near(3e11, 0.5)
    # A model of 5 GB needs 20: half of them have 16, half 64.
    assert roster(fleets.hospitals(), model_bytes=5e9).fits.mean() == pytest.approx(0.5, abs=0.0064)
    assert (hospitals.up_bytes_per_s < 100 * MBIT).mean() == pytest.approx(0.05, abs=0.003)
    assert (hospitals.up_bytes_per_s > 1000 * MBIT).mean() == pytest.approx(0.05, abs=0.003)
    assert (hospitals.up_bytes_per_s == hospitals.down_bytes_per_s).all()


def test_hospitals_are_off_for_four_hours_a_week(drawn):
    for hour in (0, 77, 1000):
        assert share(drawn["hospitals"], hour) == pytest.approx(164 / 168, abs=0.002)
    assert drawn["hospitals"].dropout.mean() == pytest.approx(0.005, abs=2e-5)


def test_browsers_speeds_and_links(drawn):
    browsers = drawn["browsers"]

    assert np.median(1 / browsers.example_s) == near(10e9 / 1.5, 0.8)
    assert np.median(browsers.down_bytes_per_s) == near(25 * MBIT, 0.8)
    assert np.median(browsers.up_bytes_per_s) == near(3 * MBIT, 0.8)
    assert browsers.dropout.mean() == pytest.approx(0.1, abs=4e-4)


def test_browsers_stay_for_minutes(drawn):
    # A Weibull's mean is scale * gamma(1 + 1 / shape), its median scale * ln(2) ** (1 / shape).
    scale = 300 / math.log(2) ** (1 / 0.8)
    expected = 0.5 * scale * math.gamma(1 + 1 / 0.8) / (4 * HOUR_S)
    opens, closes = drawn["browsers"].presence.at(0.0)
    # Those that open later are drawn alike; of those that are open, long ones are too many.
    length = (closes - opens)[opens > 0]

    assert expected == pytest.approx(0.0187, abs=1e-4)
    assert share(drawn["browsers"], 30) == pytest.approx(expected, abs=0.0018)
    assert np.median(length) == pytest.approx(300, rel=0.03)
    assert length.mean() == pytest.approx(scale * math.gamma(2.25), rel=0.03)


def test_numbers_that_are_given_are_used():
    fast = roster(fleets.phones(flops=1e12, dropout=0.0, zones=(0.0,), nights=1.0, chance=1.0))

    assert np.median(1 / fast.example_s) == near(1e12, 0.9)
    assert fast.dropout.max() == 0
    assert share(fast, 16) == 0  # The last night's windows close at 13:30, the next open at 18:00.
    assert share(fast, 2.6) > 0.85


def test_fedscales_files_make_a_fleet():
    fleet = fleets.fedscale(DATA / "fedscale_behaviour.json", DATA / "fedscale_capacity.json")

    # Client 7 has windows of its own, client 2 a device of its own.
    devices = fleet.roster([7, 2], seed=0, flops_per_example=1.0, model_bytes=1.0)
    assert [devices.is_available(0, t) for t in (99, 100, 149, 150, 1100)] == [0, 1, 1, 0, 1]
    assert devices.example_s[1] == pytest.approx(0.075)
    assert repr(fleet) == "Fleet(repeat_s=None, name='fedscale')"


def test_a_fleet_without_devices_has_those_of_phones():
    trace = roster(Fleet(DATA / "windows.csv"))

    assert (trace.example_s == roster(fleets.phones()).example_s).all()
    assert Fleet(DATA / "windows.csv").name == "windows.csv"
    assert Fleet(devices=Device(1e9)).name == "fleet"
