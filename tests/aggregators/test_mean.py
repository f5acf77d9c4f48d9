"""Means and totals, by hand and over what can go wrong."""

import math

import pytest
import torch
from torch import tensor

from folkmoot.aggregators import aggregate, total, uniform_mean, weighted_mean
from folkmoot.codecs import clip, gaussian
from folkmoot.core.aggregator import EACH, Aggregator, State, Update
from folkmoot.core.codec import Bounds, Layout
from folkmoot.core.errors import ClientError, QuorumError, SettingsError

PAIR = [Update({"w": tensor([0.0])}, 30), Update({"w": tensor([4.0])}, 10)]


def test_a_weighted_mean_counts_examples_not_clients():
    assert aggregate(weighted_mean(), PAIR)["w"].tolist() == [1.0]  # (30 * 0 + 10 * 4) / 40


def test_a_uniform_mean_counts_clients_not_examples():
    assert aggregate(uniform_mean(), PAIR)["w"].tolist() == [2.0]


def test_a_uniform_mean_may_divide_by_the_expected_cohort():
    assert aggregate(uniform_mean(divisor=8), PAIR)["w"].tolist() == [0.5]


def test_a_total_neither_weighs_nor_divides():
    assert aggregate(total(), PAIR)["w"].tolist() == [4.0]


def test_weights_may_be_fractions_and_tensors():
    updates = [Update({"w": tensor([1.0])}, tensor(0.25)), Update({"w": tensor([5.0])}, 0.75)]

    assert aggregate(weighted_mean(), updates)["w"].tolist() == [4.0]


def test_weights_stand_behind_the_codecs():
    # Clipped to 1 each, then weighed 3 to 1; weighed first, the mean were (3 + 1) / 4 = 1 again,
    # but a small update would be clipped for its many examples.
    updates = [Update({"w": tensor([0.5])}, 3), Update({"w": tensor([8.0])}, 1)]

    found = aggregate(weighted_mean(clip(1.0)), updates)

    assert found["w"].item() == pytest.approx((3 * 0.5 + 1 * 1) / 4, rel=1e-6)


def test_nested_leaves_keep_names_shapes_and_dtypes():
    value = {
        "params": {"a": tensor([[1.0]], dtype=torch.bfloat16), "b": tensor(2.0)},
        "buffers": {},
        "more": {"c": tensor([1.0], dtype=torch.float64)},
    }

    for rule in (weighted_mean(), weighted_mean(clip(10.0)), uniform_mean(), total()):
        found = aggregate(rule, [Update(value, 2.0)])
        assert {key: list(part) for key, part in found.items()} == {
            key: list(part) for key, part in value.items()
        }
        assert found["params"]["a"].dtype == torch.bfloat16
        assert found["params"]["a"].shape == (1, 1)
        assert found["params"]["b"].shape == ()
        assert found["more"]["c"].dtype == torch.float64


@pytest.mark.parametrize(
    ("dtype", "values", "weights", "expected"),
    [
        (torch.int64, [3, 5], [1, 3], 4),  # 4.5 is rounded half to even
        (torch.int64, [4, 5], [1, 3], 5),  # 4.75
        (torch.int64, [0, 0], [1, 3], 0),
        (torch.int64, [2**40, 2**40 + 2], [1, 1], 2**40 + 1),
        (torch.int64, [-3, -5], [1, 3], -4),  # -4.5
        (torch.int32, [1, 2], [1, 1], 2),  # 1.5
        (torch.uint8, [250, 254], [1, 1], 252),
        (torch.int8, [-128, -126], [1, 1], -127),
        (torch.bool, [True, False], [3, 1], True),
        (torch.bool, [True, False], [1, 3], False),
        (torch.bool, [True, False], [1, 1], True),  # half is a majority
    ],
)
@pytest.mark.parametrize("rule", [weighted_mean(), weighted_mean(clip(1.0))], ids=["plain", "clip"])
def test_integer_leaves_are_rounded_means_of_their_own_dtype(
    rule, dtype, values, weights, expected
):
    updates = [
        Update({"w": tensor([1.0])}, weight, {"n": tensor(value, dtype=dtype)})
        for value, weight in zip(values, weights, strict=True)
    ]

    found = aggregate(rule, updates)["n"]

    assert (found.dtype, found.shape) == (dtype, ())
    assert found.item() == expected


def test_a_uniform_mean_of_integers_is_uniform_also_under_an_expected_divisor():
    updates = [
        Update({"w": tensor([1.0])}, 100, {"n": tensor([2])}),
        Update({"w": tensor([1.0])}, 1, {"n": tensor([8])}),
    ]

    assert aggregate(uniform_mean(), updates)["n"].tolist() == [5]
    assert aggregate(uniform_mean(divisor=50), updates)["n"].tolist() == [5]


def test_leaves_meet_by_name():
    updates = [
        Update({"a": tensor([1.0]), "b": tensor([10.0])}),
        Update({"b": tensor([30.0]), "a": tensor([3.0])}),
    ]

    for rule in (weighted_mean(), weighted_mean(clip(100.0))):
        found = aggregate(rule, updates)
        assert found["a"].item() == pytest.approx(2.0, rel=1e-6)
        assert found["b"].item() == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "rule", [uniform_mean(), total(), uniform_mean(clip(1.0))], ids=["uniform", "total", "clip"]
)
def test_a_rule_without_weights_refuses_a_bad_number_whatever_its_weight(rule, bad):
    updates = [Update({"w": tensor([1.0, 2.0])}, 1), Update({"w": tensor([1.0, bad])}, 0)]

    with pytest.raises(ClientError, match=r"Client 1 .* leaf w holds 1 of 2 numbers"):
        aggregate(rule, updates)


@pytest.mark.parametrize(
    "rule", [weighted_mean(), weighted_mean(clip(10.0))], ids=["plain", "clip"]
)
def test_a_bad_number_of_weight_zero_adds_nothing_to_a_weighted_mean(rule):
    updates = [Update({"w": tensor([math.nan, 1.0])}, 0), Update({"w": tensor([3.0, 4.0])}, 10)]

    assert aggregate(rule, updates)["w"].tolist() == pytest.approx([3.0, 4.0], rel=1e-6)


def test_updates_that_do_not_fit_are_refused_by_client_and_leaf():
    updates = [Update({"w": tensor([1.0])}), Update({"w": tensor([1.0, 2.0])})]

    with pytest.raises(ClientError, match=r"Client 1 .* leaf w has shape \(2,\)"):
        aggregate(weighted_mean(), updates)


def test_nothing_to_aggregate_is_refused():
    with pytest.raises(QuorumError, match="no update"):
        aggregate(weighted_mean(), [])


@pytest.mark.parametrize("divisor", [0, -1, math.nan, math.inf])
def test_a_divisor_that_is_not_positive_is_refused(divisor):
    with pytest.raises(SettingsError, match="divisor must be a finite number above 0"):
        uniform_mean(divisor=divisor)


def test_noise_behind_a_divisor_that_tells_who_came_is_refused_with_the_cure():
    rule = uniform_mean(clip(1.0), gaussian(1.0, simulation=True))

    with pytest.raises(SettingsError, match=r"their number tells.*divisor="):
        rule.init(Update({"w": torch.zeros(3)}), 5)


def test_codecs_are_told_weight_cohort_and_size():
    seen = []

    def init(bounds, layout):
        seen.append(bounds)
        return {}, bounds

    probe = clip(1.0)._replace(init=init)
    example = Update({"w": torch.zeros(3), "v": torch.zeros(2, 2)})
    for rule in (weighted_mean(probe), uniform_mean(probe), total(probe)):
        rule.init(example, 5)

    assert seen == [
        Bounds(weight=math.inf, clients=5, size=7, expected=5),
        Bounds(weight=1.0, clients=5, size=7, expected=5),
        Bounds(weight=1.0, clients=5, size=7, expected=5),
    ]


def test_a_rule_that_sees_each_update_is_given_all_of_them():
    def init(example, clients):
        return State({}, Bounds(), Layout.of(example.value), example.counts)

    def decode(state, updates, key):
        stacked = torch.stack([update.value["w"] for update in updates])
        return {"w": stacked.median(dim=0).values}, {}, state

    median = Aggregator("median", init, lambda state, update, key: update, decode, EACH)
    updates = [Update({"w": tensor([number])}) for number in (1.0, 100.0, 3.0)]

    assert aggregate(median, updates)["w"].tolist() == [3.0]
    with pytest.raises(ClientError, match="Client 0"):
        aggregate(median, [Update({"w": tensor([math.nan])}, 0), *updates])
