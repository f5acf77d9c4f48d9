"""Case R16: the largest magnitudes, exactly k of them, the same ones every time."""

from pathlib import Path

import pytest
import torch
import yaml

import folkmoot as fm
from folkmoot.codecs import top_k
from folkmoot.core.codec import Bounds, Layout
from folkmoot.core.errors import ClientError, SettingsError

CASE = yaml.safe_load((Path(__file__).parent / "R16.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]


def kept(values, count, key=1):
    """What arrives of a leaf, and the numbers that were sent for it."""
    value = {"w": torch.tensor(values, dtype=torch.float32)}
    layout, codec = Layout.of(value), top_k(count=count)
    state, _ = codec.init(Bounds(size=layout.size), layout)
    message = codec.pack(state, layout.pack(value), key)
    found = layout.unpack(codec.unpack(state, message, key))
    return found["w"].tolist(), message["vector"]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_largest_magnitudes_are_kept(name):
    found, _ = kept(INPUT[name]["v"], INPUT[name]["k"])

    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", ["a", "b_ties", "g_all_zero", "f"])
def test_exactly_k_numbers_travel_also_where_some_are_equal(name):
    _, sent = kept(INPUT[name]["v"], INPUT[name]["k"])

    assert len(sent) == INPUT[name]["k"]


def test_of_equal_numbers_the_first_are_kept_whatever_the_key():
    assert {str(kept(INPUT["b_ties"]["v"], 2, key)) for key in range(20)} == {
        str(([1.0, -1.0, 0.0, 0.0], torch.tensor([1.0, -1.0])))
    }


def test_to_keep_nothing_is_refused():
    with pytest.raises(SettingsError, match="count must be a whole number from 1 on"):
        top_k(count=INPUT["c"]["k"])


def test_nan_is_refused_and_reported():
    with pytest.raises(ClientError, match="NaN"):
        kept(INPUT["e"]["v"], INPUT["e"]["k"])


def test_the_kind_holds_through_a_whole_sum():
    updates = [fm.Update({"w": torch.tensor([0.1, -5.0, 2.0, -0.3, 0.0])}) for _ in range(3)]

    total = fm.aggregate(fm.aggregators.total(top_k(count=2)), updates)

    assert total["w"].tolist() == [0.0, -15.0, 6.0, 0.0, 0.0]
