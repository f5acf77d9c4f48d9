"""How a cohort becomes one sum, and who may not enter it."""

import itertools
import math
import re

import pytest
import torch
from torch import tensor

import folkmoot as fm
from folkmoot.aggregators.faults import differences, fault, is_finite
from folkmoot.core import fold
from folkmoot.core.aggregator import Update
from folkmoot.core.errors import SettingsError


def folded(updates):
    total = fold.zero(updates[0])
    for block in fold.blocks(range(len(updates))):
        partial = fold.zero(updates[0])
        for client in block:
            partial = fold.add(partial, updates[client])
        total = fold.merge(total, partial)
    return total


def test_ids_are_sorted_as_numbers_or_as_words():
    assert fold.ascending([10, 9, -1]) == (-1, 9, 10)
    assert fold.ascending(["10", "9", "a"]) == ("10", "9", "a")
    assert fold.ascending([]) == ()


@pytest.mark.parametrize("ids", [[1, "1"], [1.0, 2.0], [True, 1], [None]], ids=str)
def test_ids_of_mixed_or_other_types_are_refused(ids):
    with pytest.raises(SettingsError, match="all int or all str"):
        fold.ascending(ids)


def test_a_client_that_stands_twice_is_refused_by_name():
    with pytest.raises(SettingsError, match="Client 'b' stands twice"):
        fold.ascending(["b", "a", "b"])


@pytest.mark.parametrize(
    ("clients", "sizes"),
    [
        (0, []),
        (1, [1]),
        (19, [1] * 19),
        (25, [2, 2, 2] + [1] * 19),  # 25, 23 and 21 have two tenths, 19 has one
        (40, [4, 3, 3, 3, 2, 2, 2, 2] + [1] * 19),  # 40, 36, 33, 30, 27, 25, 23, 21, 19 are left
    ],
)
def test_a_block_is_a_tenth_of_what_is_left(clients, sizes):
    blocks = fold.blocks(range(clients))

    assert [len(block) for block in blocks] == sizes
    assert [client for block in blocks for client in block] == list(range(clients))


def test_no_block_is_smaller_than_a_128th_of_the_cohort_but_the_last():
    sizes = [len(block) for block in fold.blocks(range(1_000))]

    # While 80 or more are left a tenth is more than 1000 // 128 = 7; then 7 at a time.
    assert sizes[:3] == [100, 90, 81]
    assert set(sizes[-10:-1]) == {7}
    assert 1 <= sizes[-1] <= 7
    assert sum(sizes) == 1_000


def test_blocks_follow_from_the_cohort_s_size_alone():
    names = [f"client {number:04}" for number in range(137)]

    assert [len(block) for block in fold.blocks(names)] == [
        len(block) for block in fold.blocks(range(5_000, 5_137))
    ]


def test_a_sum_is_weighted_and_counts_are_added_in_double_precision():
    updates = [
        Update({"w": tensor([1.0, 2.0])}, 3, {"n": tensor(2**53 - 1), "on": tensor([True])}),
        Update({"w": tensor([10.0, 0.0])}, 0.5, {"n": tensor(2), "on": tensor([False])}),
    ]

    total = folded(updates)

    assert total.value["w"].tolist() == [8.0, 6.0]
    assert (total.weight, total.count) == (3.5, 2)
    assert total.counts["n"].dtype == torch.float64
    assert total.counts["n"].item() == 3.0 * (2**53 - 1) + 1
    assert total.counts["on"].tolist() == [3.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_of_zero_adds_nothing_but_counts_as_an_answer(bad):
    updates = [Update({"w": tensor([bad, 1.0])}, 0), Update({"w": tensor([3.0, 4.0])}, 10)]

    total = folded(updates)

    assert total.value["w"].tolist() == [30.0, 40.0]
    assert (total.weight, total.count) == (10.0, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_added_in_float32(dtype):
    total = folded([Update({"w": torch.ones(1, dtype=dtype)}, 1.0)] * 4_000)

    assert total.value["w"].dtype == torch.float32
    assert total.value["w"].item() == 4_000.0  # bfloat16 stops growing at 256, float16 at 2048


def test_double_precision_is_added_in_double_precision():
    total = folded([Update({"w": tensor([1e-12], dtype=torch.float64)}, 1.0)] * 2)

    assert total.value["w"].item() == 2e-12


def test_updates_are_left_as_they_were():
    updates = [Update({"w": tensor([1.0])}, 2.0, {"n": tensor(3)}) for _ in range(3)]

    folded(updates)

    assert all(u.value["w"].item() == 1.0 and u.counts["n"].item() == 3 for u in updates)


def test_leaves_meet_by_name_where_a_client_sends_them_in_another_order():
    a = Update({"u": tensor([1.0]), "v": tensor([2.0])})
    b = Update({"v": tensor([20.0]), "u": tensor([10.0])})

    total = folded([a, b])

    assert (total.value["u"].item(), total.value["v"].item()) == (11.0, 22.0)


def test_the_order_of_arrival_does_not_change_a_bit(line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0, batch_size=None)
    gradients = {0: 1e8, 1: 1.0, 2: -1e8}

    found = set()
    for arrival in itertools.permutations(gradients):
        clients = {client: pull(gradients[client]) for client in arrival}
        snapshot, _ = one_round(fm.fedavg(work), clients, asked=arrival)
        found.add(snapshot.state["params"]["w"].view(torch.int32).item())

    assert len(found) == 1


FITTING = Update({"in": {"w": tensor([1.0, 2.0])}}, 1.0, {"n": tensor(1)})


def test_a_fitting_update_has_no_fault():
    assert fault(FITTING, FITTING) is None
    assert fault(FITTING._replace(weight=0), FITTING) is None
    assert fault(FITTING._replace(weight=tensor(2.5)), FITTING) is None


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (FITTING._replace(weight=-1.0), "its weight is -1.0"),
        (FITTING._replace(weight=math.nan), "its weight is nan"),
        (FITTING._replace(weight=math.inf), "its weight is inf"),
        (FITTING._replace(value={"in": {}}), "its value .* leaf in/w is missing"),
        (FITTING._replace(value={}), "leaf in/w is missing"),
        (
            FITTING._replace(value={"in": {"w": tensor([1.0, 2.0]), "z": tensor(1.0)}}),
            "leaf in/z is not expected",
        ),
        (FITTING._replace(value={"in": {"w": tensor([1.0])}}), r"shape \(1,\), not \(2,\)"),
        (
            FITTING._replace(value={"in": {"w": tensor([1.0, 2.0], dtype=torch.float64)}}),
            "dtype torch.float64, expected torch.float32",
        ),
        (FITTING._replace(value={"in": {"w": [1.0, 2.0]}}), "is a list, not a tensor"),
        (FITTING._replace(value={**FITTING.value, "out": {}}), "its value .* other empty parts"),
        (FITTING._replace(counts={}), "its counts .* leaf n is missing"),
        (FITTING._replace(counts={"n": tensor([1])}), r"shape \(1,\), not \(\)"),
        (
            FITTING._replace(value={"in": {"w": tensor([math.nan, -math.inf])}}),
            "leaf in/w holds 2 of 2 numbers that are NaN or infinite",
        ),
        (
            FITTING._replace(value={"in": {"w": tensor([math.nan, 1.0])}}, weight=0),
            "leaf in/w holds 1 of 2 numbers",
        ),
    ],
)
def test_a_fault_names_what_is_wrong(update, reason):
    assert re.search(reason, fault(update, FITTING))


@pytest.mark.parametrize(
    ("leaf", "finite"),
    [
        (tensor([1.0, math.nan]), False),
        (tensor([math.inf, 1.0]), False),
        (tensor([math.inf, -math.inf]), False),
        (tensor([3e38, 3e38]), True),  # The sum overflows, the numbers do not.
        (tensor([6e4, 6e4], dtype=torch.float16), True),
        (tensor([2**62, 2**62, 2**62]), True),
        (tensor([True, False]), True),
        (torch.zeros(0), True),
    ],
    ids=str,
)
def test_only_a_nan_or_an_infinity_is_not_finite(leaf, finite):
    assert is_finite({"fine": tensor([1.0]), "in": {"leaf": leaf}}) is finite


def test_differences_name_what_is_missing_too_much_or_of_another_kind():
    expected = {"a": tensor([1.0]), "b": tensor([1.0]), "c": tensor([1.0]), "d": tensor([1.0])}
    found = {"b": tensor([1.0, 2.0]), "c": tensor([1]), "d": 1.0, "e": {"f": tensor(1.0)}}

    assert differences(expected, found) == [
        "leaf a is missing",
        "leaf e/f is not expected",
        "leaf b has shape (2,), not (1,)",
        "leaf c has dtype torch.int64, expected torch.float32",
        "leaf d is a float, not a tensor",
    ]
    assert differences(expected, expected) == []
