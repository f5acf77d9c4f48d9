"""Clipping by layer: each to its own bound, together into the unit ball, and none forgotten."""

import math

import pytest
import torch
from torch import tensor

import folkmoot as fm
from folkmoot.aggregators import total, uniform_mean
from folkmoot.codecs import clip, clip_by_layer
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError


def update(first=(3.0, 4.0), bias=(0.0,), second=(0.6, 0.8)):
    names = {"0.weight": tensor(first), "0.bias": tensor(bias), "2.weight": tensor(second)}
    return fm.Update({"params": names, "buffers": {}})


def clipped(norms, *updates):
    found = fm.aggregate(total(clip_by_layer(norms)), updates)["params"]
    return {name: leaf.tolist() for name, leaf in found.items()}


def close(expected):
    return {name: pytest.approx(numbers, rel=1e-5) for name, numbers in expected.items()}


def test_a_number_is_shared_by_all_layers_alike():
    # Two layers: sqrt(2) / sqrt(2) = 1 each. The first, of length 5, shrinks; the second passes.
    found = clipped(math.sqrt(2), update())

    assert found == close({"0.weight": [0.6, 0.8], "0.bias": [0.0], "2.weight": [0.6, 0.8]})


def test_a_layer_is_its_weight_and_bias_together():
    found = clipped(math.sqrt(2), update(first=(3.0, 0.0), bias=(4.0,)))

    assert found["0.weight"] == pytest.approx([0.6, 0.0], rel=1e-5)
    assert found["0.bias"] == pytest.approx([0.8], rel=1e-5)


def test_patterns_have_norms_of_their_own_and_the_first_that_fits_counts():
    found = clipped({"2.*": 0.5, "*": 10.0}, update())

    assert found == close({"0.weight": [3.0, 4.0], "0.bias": [0.0], "2.weight": [0.3, 0.4]})


def test_a_pattern_may_name_the_part_and_means_leaves_of_all_parts():
    value = {"params": {"a.w": tensor([3.0])}, "control": {"a.w": tensor([4.0])}}

    both = fm.aggregate(total(clip_by_layer({"a.*": 1.0})), [fm.Update(value)])
    each = fm.aggregate(
        total(clip_by_layer({"params/*": 1.0, "control/*": 2.0})), [fm.Update(value)]
    )

    assert both["params"]["a.w"].item() == pytest.approx(0.6, rel=1e-5)
    assert both["control"]["a.w"].item() == pytest.approx(0.8, rel=1e-5)
    assert each["params"]["a.w"].item() == pytest.approx(1.0, rel=1e-5)
    assert each["control"]["a.w"].item() == pytest.approx(2.0, rel=1e-5)


def test_a_sum_decodes_to_the_sum_of_the_clipped_updates():
    small, large = update((0.3, 0.4), (0.1,), (0.1, 0.0)), update()

    found = clipped({"0.*": 5.0, "2.*": 1.0}, small, large)

    assert found == close({"0.weight": [3.3, 4.4], "0.bias": [0.1], "2.weight": [0.7, 0.8]})


@pytest.mark.parametrize("norms", [1.0, 30.0, {"0.weight": 3.0, "*": 0.01}], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, 3e38, math.inf, math.nan])
def test_the_whole_is_never_longer_than_one(norms, scale):
    draw = torch.Generator().manual_seed(0)
    value = {
        "0.weight": torch.randn(30, 20, generator=draw),
        "0.bias": torch.randn((), generator=draw),
        "0.none": torch.zeros(0),
        "3.weight": torch.randn(7, generator=draw),
    }
    layout, codec = Layout.of(value), clip_by_layer(norms)
    state, bounds = codec.init(Bounds(size=layout.size), layout)

    sent = codec.encode(state, layout.pack(value) * scale, 0)

    assert sent.dtype == torch.float32
    assert bounds.l2 == 1.0
    assert math.fsum(number * number for number in sent.tolist()) <= 1.0
    if scale == 1e30:  # All layers are at their bounds.
        assert math.fsum(number * number for number in sent.tolist()) > 1 - 1e-5


def test_a_model_without_leaves_is_legal():
    found = fm.aggregate(uniform_mean(clip_by_layer(1.0)), [fm.Update({"params": {}})])

    assert found == {"params": {}}


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ({"9.*": 1.0, "*": 1.0}, r"norm for '9\.\*', which means no leaf .*params/0.weight"),
        ({"*": 1.0, "2.*": 1.0}, r"norm for '2\.\*', which means no leaf that no pattern before"),
        ({"0.*": 1.0}, r"no norm for the leaf params/2.weight, .*The leaves are params/0.weight"),
    ],
)
def test_patterns_that_do_not_fit_the_leaves_are_refused(norms, message):
    with pytest.raises(SettingsError, match=message):
        clipped(norms, update())


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        (0.0, "norms must be a finite number above 0"),
        (math.nan, "norms must be a finite number above 0"),
        ({"0.*": -1.0}, r"norms\['0\.\*'\] must be a finite number above 0"),
        ({"0.*": math.inf}, r"norms\['0\.\*'\] must be a finite number above 0"),
        ({}, "An empty dict bounds no leaf"),
    ],
)
def test_norms_that_are_not_positive_are_refused(norms, message):
    with pytest.raises(SettingsError, match=message):
        clip_by_layer(norms)


def test_it_must_stand_first_where_leaves_still_have_places():
    longer = clip(1.0)._replace(
        init=lambda bounds, layout: ({}, bounds._replace(size=bounds.size + 1))
    )

    with pytest.raises(SettingsError, match="must stand first in its chain"):
        chain(longer, clip_by_layer(1.0)).init(Bounds(size=2), Layout.of({"w": torch.zeros(2)}))
