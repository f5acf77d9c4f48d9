"""Traces from files: what they mean, and what is refused, with file and line."""

from pathlib import Path

import numpy as np
import pytest

from folkmoot.core.errors import DataError
from folkmoot.engines.traces import read_behaviour, read_capacity, read_devices, read_windows

DATA = Path(__file__).parent / "data"
WINDOWS = "device,start_s,end_s\n"
DEVICES = (
    "device,flops,examples_per_s,down_bytes_per_s,up_bytes_per_s,latency_s,memory_bytes,dropout\n"
)


def windows_of(trace, name):
    place = trace.names.index(name)
    each = slice(trace.first[place], trace.first[place + 1])
    return list(zip(trace.opens[each].tolist(), trace.closes[each].tolist(), strict=True))


def test_windows_are_sorted_and_those_that_meet_are_one():
    trace = read_windows(DATA / "windows.csv")

    assert trace.names == ("cellar", "kitchen")
    assert trace.period_s.tolist() == [400, 400]
    assert windows_of(trace, "kitchen") == [(100, 250), (300, 400)]


def test_a_window_up_to_the_periods_end_goes_on_at_its_beginning():
    trace = read_windows(DATA / "windows.csv")

    assert windows_of(trace, "cellar") == [(350, 450)]


def test_a_trace_that_does_not_repeat_keeps_its_first_window():
    trace = read_windows(DATA / "windows.csv", float("inf"))

    assert windows_of(trace, "cellar") == [(0, 50), (350, 400)]


def test_a_device_that_is_always_there_never_leaves(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(WINDOWS + "a,0,60\na,60,100\n")

    assert windows_of(read_windows(path), "a") == [(0, np.inf)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device,start,end\na,0,1\n", "line 1: the header must be 'device,start_s,end_s', but is"),
        ("", "line 1: the header must be 'device,start_s,end_s', but is ''"),
        (WINDOWS, "has a header but no device"),
        (WINDOWS + "a,0,1\na,2\n", r"line 3: \['a', '2'\] are not the 3 fields"),
        (WINDOWS + ",2,3\n", "line 2: .* of which the first names a device"),
        (WINDOWS + "a,0,soon\n", "line 2: end_s is 'soon', not a number"),
        (WINDOWS + "a,0,nan\n", "line 2: end_s is 'nan', not a number"),
        (WINDOWS + "a,5,4\n", "line 2: a window from 5 to 4 s. It must begin at 0 or later and"),
        (WINDOWS + "a,-5,4\n", "line 2: a window from -5 to 4 s"),
        (WINDOWS + "a,5,5\n", "line 2: a window from 5 to 5 s"),
        (WINDOWS + "a,5,inf\n", "line 2: a window from 5 to inf s"),
        (
            WINDOWS + "a,10,20\nb,0,1\na,5,11\n",
            "lines 4 and 2: device 'a' has two windows that overlap, one until 11 s, one from 10 s",
        ),
    ],
)
def test_windows_that_cannot_be_used_are_named_by_file_and_line(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)

    with pytest.raises(DataError, match=f"trace.csv.*{message}"):
        read_windows(path)


def test_a_trace_cannot_repeat_before_it_ends():
    with pytest.raises(DataError, match="until 400 s, which is after repeat_s=300"):
        read_windows(DATA / "windows.csv", 300)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read.*Check the path"):
        read_windows(tmp_path / "nowhere.csv")


def test_empty_fields_of_a_device_are_its_defaults():
    table = read_devices(DATA / "devices.csv")

    assert table.names == ("cellar", "kitchen")
    expected = [
        [np.nan, 50, 2000, 1000, 0, np.inf, 0],
        [2e9, np.nan, 1000, 500, 0.25, 4000, 0.1],
    ]
    np.testing.assert_array_equal(table.columns.T, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device,flops\na,1\n", "line 1: the header must be 'device,flops,examples_per_s,"),
        (DEVICES, "has a header but no device"),
        (DEVICES + "a,1e9,,fast,1,0,,\n", "line 2: down_bytes_per_s is 'fast', not a number"),
        (DEVICES + "a,1e9,,,1,0,,\n", "line 2: down_bytes_per_s is '', not a number"),
        (DEVICES + "a,1e9,,1,-1,0,,\n", "line 2: up_bytes_per_s is -1, but must be above 0"),
        (DEVICES + "a,1e9,,1,1,-1,,\n", "line 2: latency_s is -1, but must be a finite number of"),
        (DEVICES + "a,inf,,1,1,0,,\n", "line 2: flops is inf, but must be a finite number above"),
        (DEVICES + "a,1e9,,1,1,0,,2\n", r"dropout is 2, but must be a probability in \[0, 1\]"),
        (DEVICES + "a,1e9,5,1,1,0,,\n", "line 2: exactly one of flops and examples_per_s"),
        (DEVICES + "a,,,1,1,0,,\n", "line 2: exactly one of flops and examples_per_s"),
        (DEVICES + "a,1,,1,1,0,,\na,2,,1,1,0,,\n", "lines 2 and 3: device 'a' stands there twice"),
    ],
)
def test_devices_that_cannot_be_used_are_named_by_file_and_line(tmp_path, text, message):
    path = tmp_path / "devices.csv"
    path.write_text(text)

    with pytest.raises(DataError, match=f"devices.csv.*{message}"):
        read_devices(path)


def test_fedscales_windows_that_meet_are_one_and_empty_ones_are_left_out():
    trace = read_behaviour(DATA / "fedscale_behaviour.json")

    assert trace.names == ("7", "8")
    assert trace.period_s.tolist() == [1000, 500]
    assert windows_of(trace, "7") == [(100, 150), (200, 300)]
    assert windows_of(trace, "8") == [(0, 150)]


def test_fedscales_training_takes_three_times_inference_and_links_are_in_kilobits():
    table = read_capacity(DATA / "fedscale_capacity.json")

    flops, speed, down, up, *_ = table.columns
    assert np.isnan(flops).all()
    assert speed == pytest.approx([1 / 0.3, 1 / 0.075])  # 3 * 100 ms, 3 * 25 ms
    assert down.tolist() == up.tolist() == [1_000_000, 50_000]  # 8,000 and 400 kbit/s


def test_fedscales_speed_becomes_flops_by_the_model_that_was_timed():
    table = read_capacity(DATA / "fedscale_capacity.json", reference_flops=6e8)

    assert table.columns[0] == pytest.approx([2e9, 8e9])  # 6e8 / 0.3 s, 6e8 / 0.075 s
    assert np.isnan(table.columns[1]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a dictionary by client that is not empty"),
        ('{"3": 5}', "client '3': it must have active, inactive, finish_time, but is 5"),
        (
            '{"3": {"active": [1], "inactive": [2, 3], "finish_time": 9}}',
            "client '3': active and inactive are not lists of equally many numbers",
        ),
        (
            '{"3": {"active": [1, 7], "inactive": [2, 5], "finish_time": 9}}',
            "client '3': it is active from 7 to 5",
        ),
        (
            '{"3": {"active": [], "inactive": [], "finish_time": 0}}',
            "client '3': finish_time is 0, not a number above 0",
        ),
    ],
)
def test_fedscale_files_that_cannot_be_used_are_named_with_the_client(tmp_path, text, message):
    path = tmp_path / "behaviour.json"
    path.write_text(text)

    with pytest.raises(DataError, match=f"behaviour.json.*{message}"):
        read_behaviour(path)


def test_a_pickle_is_not_loaded(tmp_path):
    path = tmp_path / "client_behave_trace"
    path.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.")

    with pytest.raises(DataError, match=r"A pickle is never loaded: fm\.fleets\.fedscale says how"):
        read_behaviour(path)
