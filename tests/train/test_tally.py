"""Counts of each client add up, whatever the order and form in which rounds come."""

import numpy as np
import torch

from folkmoot.core import wire
from folkmoot.train.tally import Tally


def listed(tally):
    return [column.tolist() for column in tally]


def test_a_round_counts_those_who_were_asked_and_those_who_answered():
    tally = Tally.of(4)

    again = tally.add([0, 2, 3], [10, 20, 30], [3, 0], [5, 7])

    assert again is tally
    assert listed(tally) == [[1, 0, 1, 1], [1, 0, 0, 1], [7, 0, 0, 5], [10, 0, 20, 30]]


def test_rounds_add_up_and_a_client_may_come_twice_in_one():
    tally = Tally.of(3).add([0, 1], 100, [1], 9)

    tally.add(np.array([1, 1]), np.array([4, 4]), torch.tensor([1, 1]), torch.tensor([1, 2]))

    assert listed(tally) == [[1, 3, 0], [0, 3, 0], [0, 12, 0], [100, 108, 0]]


def test_a_round_of_nobody_changes_nothing():
    assert listed(Tally.of(2).add([], [], [], [])) == [[0, 0]] * 4
    assert listed(Tally.of(2).add([], 8, [], 8)) == [[0, 0]] * 4


def test_bytes_beyond_32_bits_are_counted_exactly():
    tally = Tally.of(1).add([0], 2**40 + 1, [0], 2**40 + 1)

    assert tally.add([0], 1, [], 0).download_bytes.item() == 2**40 + 2


def test_a_tally_goes_through_a_checkpoint():
    tally = Tally.of(3).add([0, 2], 6, [2], 4)

    tree, _ = wire.from_bytes(wire.to_bytes(tally.tree(), {}))
    again = Tally.from_tree(tree)

    assert listed(again) == listed(tally)
    assert listed(again.add([1], 6, [1], 4))[0] == [1, 1, 1]


def test_the_columns_of_a_tally_share_no_memory():
    tally = Tally.of(2)

    tally.asked[0] = 5

    assert listed(tally)[1:] == [[0, 0]] * 3
