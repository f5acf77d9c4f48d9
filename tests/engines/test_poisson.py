"""Poisson batches: each row by a coin of its own, the same in every engine, or known to nobody."""

import numpy as np
import pytest
import torch
from torch import tensor

from folkmoot.core.algorithm import Plan
from folkmoot.core.errors import SettingsError
from folkmoot.engines.batches import Draws, batches, cut, draw
from folkmoot.local.sealed import Sealed
from folkmoot.local.sgd import checked

stats = pytest.importorskip("scipy.stats")


def drawn(rows, plan, key=5):
    """The rows of each batch, and what is told of it."""
    data = {"x": torch.arange(rows), "in": {"y": torch.arange(rows)}}
    one = cut(rows, plan, False)
    found = []
    for batch in batches(data, one, draw([key], [one])[0]):
        picked, expected, _ = batch.data.open(1)
        assert torch.equal(picked["x"], picked["in"]["y"])
        found.append((picked["x"].tolist(), expected, batch))
    return found


def members(rows, plan, key=5):
    """(steps, rows), bool: who was in which batch."""
    found = np.zeros((cut(rows, plan, False).steps, rows), bool)
    for step, (picked, _, _) in enumerate(drawn(rows, plan, key)):
        found[step, picked] = True
    return found


@pytest.mark.parametrize("coins", ["seeded", "secret"])
@pytest.mark.parametrize(("rows", "size"), [(20, 5), (7, 1), (40, 39)])
def test_each_row_is_in_each_batch_with_the_stated_chance_and_by_itself(rows, size, coins):
    steps = 4_000
    found = members(rows, Plan(None, steps, size, poisson=coins))

    rate = size / rows
    by_row, by_step = found.sum(0), found.sum(1)
    # Counts of independent coins are binomial, over steps and over rows.
    deviation = np.sqrt(rate * (1 - rate))
    assert np.abs(by_row - steps * rate).max() < 5 * deviation * np.sqrt(steps)
    assert abs(by_step.mean() - size) < 5 * deviation * np.sqrt(rows / steps)
    assert by_step.var() == pytest.approx(rows * rate * (1 - rate), rel=0.15)
    # Two rows, and a row in two steps one after the other, have nothing to do with each other.
    apart = np.corrcoef(found.T.astype(float)) - np.eye(rows)
    later = [np.corrcoef(found[:-1, row], found[1:, row])[0, 1] for row in range(rows)]
    assert max(np.abs(apart).max(), np.abs(later).max()) < 6 / np.sqrt(steps)


def test_sizes_of_batches_are_binomial():
    sizes = members(12, Plan(None, 6_000, 3, poisson="seeded")).sum(1)

    expected = stats.binom.pmf(np.arange(9), 12, 0.25) * len(sizes)
    expected[-1] += stats.binom.sf(8, 12, 0.25) * len(sizes)
    counts = np.bincount(np.minimum(sizes, 8), minlength=9)
    assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_a_batch_may_be_empty():
    found = drawn(5, Plan(None, 200, 1, poisson="seeded"))

    # 0.8 to the power of 5 is 0.33 of them.
    assert 30 < sum(not picked for picked, _, _ in found) < 105
    assert {expected for _, expected, _ in found} == {1}


@pytest.mark.parametrize("size", [None, 5, 9])
def test_all_rows_are_in_a_batch_that_is_as_large_as_the_client(size):
    found = drawn(5, Plan(2, None, size, poisson="secret"))

    assert [(picked, expected) for picked, expected, _ in found] == [([0, 1, 2, 3, 4], 5)] * 2


def test_an_epoch_has_as_many_steps_as_it_has_batches():
    plan = Plan(epochs=2, batch_size=4, poisson="seeded")
    one, found = cut(10, plan, False), drawn(10, plan)

    assert (one.steps, one.used) == (6, 10)
    assert [batch.epoch for _, _, batch in found] == [0, 0, 0, 1, 1, 1]


def test_seeded_batches_follow_from_the_key_and_secret_ones_from_nothing():
    seeded, secret = (Plan(None, 20, 30, poisson=coins) for coins in ("seeded", "secret"))

    assert np.array_equal(members(60, seeded), members(60, seeded))
    assert not np.array_equal(members(60, seeded), members(60, seeded, key=6))
    assert not np.array_equal(members(60, secret), members(60, secret))
    keys = [batch.key.item() for _, _, batch in [*drawn(60, secret), *drawn(60, secret)]]
    assert len(set(keys)) == 40


def test_batches_are_sealed_copies_of_the_data():
    data = {"x": torch.zeros(4)}
    one = cut(4, Plan(poisson="seeded", batch_size=None), False)

    [batch] = batches(data, one, Draws(0, None, (tensor(1), tensor(2))))
    assert type(batch.data) is Sealed
    rows, _, _ = batch.data.open(1)
    rows["x"].fill_(1)

    assert data["x"].sum() == 0


def test_a_plan_says_whose_coins_they_are():
    with pytest.raises(SettingsError, match='poisson must be "seeded", "secret" or None'):
        checked(Plan(poisson=True))
    with pytest.raises(SettingsError, match="no short last one to join"):
        checked(Plan(poisson="seeded", last="join"))
