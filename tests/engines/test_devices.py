"""Devices: what is refused, how a client comes to its device, and what makes draw."""

import math

import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.engines.devices import (
    Device,
    Make,
    Spread,
    Table,
    check_device,
    check_makes,
    columns_of,
    keys_of,
)

MAKE = Make(Spread(1e9), Spread(1e6), Spread(1e6), Spread(0.1), Spread(1e9), 0.0)
TABLE = Table(("a", "b", "c"), np.arange(21.0).reshape(7, 3))


def columns(devices, ids, seed=0):
    return columns_of(devices, ids, keys_of(ids, seed))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device(), "flops=None and examples_per_s=None. Give exactly one"),
        (Device(1e9, 10.0), "flops=1000000000.0 and examples_per_s=10.0. Give exactly one"),
        (Device(0.0), "has flops=0.0, which must be a finite number above 0"),
        (Device(1e9, up_bytes_per_s=0.0), "has up_bytes_per_s=0.0, which must be above 0"),
        (Device(1e9, latency_s=math.inf), "has latency_s=inf, which must be a finite number of"),
        (Device(1e9, memory_bytes=math.nan), "has memory_bytes=nan, which must be above 0"),
        (Device(1e9, dropout=1.5), r"has dropout=1.5, which must be a probability in \[0, 1\]"),
        (Device("fast"), "has flops='fast', which must be a number"),
        ({"flops": 1e9}, "must be an fm.Device, but is {'flops'"),
    ],
)
def test_a_device_that_cannot_train_or_send_is_refused(device, message):
    with pytest.raises(SettingsError, match=f"The device of client 3 .*{message}"):
        check_device(device, "The device of client 3")


@pytest.mark.parametrize(
    ("makes", "message"),
    [
        ((), "must sum to 1"),
        ((MAKE._replace(share=0.5),), r"must sum to 1, but are \[0.5\]"),
        ((MAKE._replace(share=1.5), MAKE._replace(share=-0.5)), "share=1.5"),
        ((MAKE._replace(dropout=0.9),), "dropout=0.9"),
        ((MAKE._replace(flops=Spread(0.0)),), "flops has median 0.0 and sigma 0.0"),
        ((MAKE._replace(latency_s=Spread(1.0, -1.0)),), "latency_s has median 1.0 and sigma -1.0"),
    ],
)
def test_makes_that_cannot_be_drawn_are_refused(makes, message):
    with pytest.raises(SettingsError, match=message):
        check_makes(makes)


def test_one_device_is_everyones():
    found = columns(Device(examples_per_s=5.0, latency_s=0.2), [3, 1])

    expected = [np.nan, 5, np.inf, np.inf, 0.2, np.inf, 0]
    np.testing.assert_array_equal(found.T, [expected, expected])


def test_a_dict_gives_each_client_its_own():
    found = columns({"x": Device(1e9), "y": Device(2e9)}, ["y", "x"])

    assert found[0].tolist() == [2e9, 1e9]


def test_a_client_without_a_device_is_named():
    with pytest.raises(SettingsError, match="1 of 2 clients have no device, such as 'clinic-3'"):
        columns({"clinic-1": Device(1e9)}, ["clinic-1", "clinic-3"])


def test_a_client_with_the_name_of_a_device_gets_it():
    found = columns(TABLE, ["c", "a"])

    np.testing.assert_array_equal(found, TABLE.columns[:, [2, 0]])


def test_rows_are_dealt_evenly_and_a_clients_does_not_depend_on_the_others():
    ids = range(30_000)

    found = columns(TABLE, ids)[0]

    # Each a third: 4 standard errors are 4 * sqrt(30,000 * 1/3 * 2/3) = 327.
    assert np.bincount(found.astype(int)) == pytest.approx([10_000] * 3, abs=327)
    assert columns(TABLE, [77, 5])[0].tolist() == found[[77, 5]].tolist()


def test_another_seed_deals_otherwise():
    one, other = (columns(TABLE, range(100), seed)[0].tolist() for seed in (0, 1))

    assert one != other


def test_links_down_and_up_are_fast_together_and_apart_from_the_speed():
    make = MAKE._replace(
        flops=Spread(1e9, 1.0), down_bytes_per_s=Spread(1e6, 1.0), up_bytes_per_s=Spread(5e5, 0.5)
    )

    flops, _, down, up = np.log(columns((make,), range(100_000))[:4])

    assert up - np.log(5e5) == pytest.approx((down - np.log(1e6)) / 2)
    assert abs(np.corrcoef(flops, down)[0, 1]) < 0.013  # 4 / sqrt(100,000)


def test_a_log_normal_has_its_median_and_its_sigma():
    make = MAKE._replace(flops=Spread(3e9, 0.8))

    score = (np.log(columns((make,), range(100_000))[0]) - np.log(3e9)) / 0.8

    # Quantiles of the standard normal; 4 standard errors are at most 4 * 0.0067 at 5 %.
    assert np.quantile(score, [0.05, 0.5, 0.95]) == pytest.approx([-1.645, 0, 1.645], abs=0.027)


def test_makes_have_their_shares():
    makes = (MAKE._replace(share=0.25), MAKE._replace(flops=Spread(2e9), share=0.75))

    flops = columns(makes, range(100_000))[0]

    assert (flops == 2e9).mean() == pytest.approx(0.75, abs=0.0055)
    assert set(flops) == {1e9, 2e9}


def test_drop_out_varies_by_a_quarter():
    dropout = columns((MAKE._replace(dropout=0.4),), range(100_000))[6]

    assert dropout.min() == pytest.approx(0.3, abs=1e-4)
    assert dropout.max() == pytest.approx(0.5, abs=1e-4)
    assert dropout.mean() == pytest.approx(0.4, abs=0.001)
