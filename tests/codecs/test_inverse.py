"""Draws by table: each value has the numbers that its boundaries give it, to the last bit."""

import numpy as np
import pytest

from folkmoot.codecs.entropy import seeded
from folkmoot.codecs.inverse import draw, table

HALF, THIRD = 1 << 127, (1 << 128) // 3


def said(*numbers):
    """A source that says given 128-bit numbers to a table, in the order in which it asks."""
    cells = np.array([number >> 112 for number in numbers], dtype=np.uint16)
    middles = np.array([number >> 64 << 16 & (1 << 64) - 1 for number in numbers], dtype=np.uint64)
    lows = [number & (1 << 64) - 1 for number in numbers]
    asked = []

    def words(n):
        asked.append(n)
        if len(asked) == 1:
            return np.resize(cells, 2 * n).view(np.uint32)
        if len(asked) == 2:
            return middles.view(np.uint32)
        return np.array([lows.pop(0)], dtype=np.uint64).view(np.uint32)

    return words


@pytest.mark.parametrize(
    ("number", "value"),
    [(0, -1), (THIRD - 1, -1), (THIRD, 0), (THIRD + 1, 0), (2 * THIRD + 1, 1), ((1 << 128) - 1, 1)],
)
def test_a_number_belongs_to_the_value_above_the_last_boundary_that_it_reaches(number, value):
    law = table(-1, [1, 1, 1])

    assert law.boundaries == (THIRD, (2 << 128) // 3)
    assert draw(law, 1, said(number)).tolist() == [value]


def test_a_boundary_at_the_edge_of_a_cell_is_searched_for():
    law = table(0, [1, 1])

    assert law.boundaries == (HALF,)
    assert draw(law, 1, said(HALF - 1)).tolist() == [0]
    assert draw(law, 1, said(HALF)).tolist() == [1]


def test_boundaries_that_share_64_bits_are_told_apart():
    # The middle value has one number in 2^100, so both boundaries begin with the same 64 bits.
    law = table(0, [1 << 99, 1, (1 << 99) - 1])
    first, second = law.boundaries

    assert law.heads[0] == law.heads[1]
    found = [draw(law, 1, said(n)).item() for n in (first - 1, first, second - 1, second)]
    assert found == [0, 1, 1, 2]


def test_frequencies_are_those_of_the_weights():
    law, n = table(10, [5, 0x10001, 3 << 16, 7]), 200_000

    counts = np.bincount(draw(law, n, seeded(1)), minlength=14)[10:]

    expected = n * np.array([5, 0x10001, 3 << 16, 7]) / (0x10001 + (3 << 16) + 12)
    assert (abs(counts - expected) <= 5 * np.sqrt(expected) + 2).all()


def test_a_law_of_one_value_asks_for_no_more_than_cells():
    assert draw(table(3, [9]), 100_000, seeded(0)).tolist() == [3] * 100_000


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537])
def test_any_number_of_draws_may_be_asked_for(size):
    assert draw(table(0, [1, 2]), size, seeded(0)).shape == (size,)
