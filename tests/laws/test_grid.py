"""Everything composes, or refuses before round 1 with the sentence why."""

import functools
import random

import pytest
import torch
from laws.cards import CARDS
from laws.grid import asked, trained
from laws.table import answer, cells, covering, trainable

import folkmoot as fm
from folkmoot.core import tree as trees

CELLS = list(cells())
COVERING = covering()


def agree(cell, there, back):
    """Hold two runs of a cell to the same end: to the bit, or within rounding of the whole."""
    exact = cell.engine not in ("vectorized", "compiled")
    # Codecs map vectors of float32.
    bound = 1e-9 if cell.codec == cell.privacy == cell.secure == cell.compress == "none" else 1e-6
    for one, other in ((there.state, back.state), *zip_own(there, back)):
        assert [path for path, _ in trees.items(one)] == [path for path, _ in trees.items(other)]
        pairs = list(zip(trees.leaves(one), trees.leaves(other), strict=True))
        if exact:
            assert all(torch.equal(one, other) for one, other in pairs), cell
        else:
            apart = torch.stack([(a.double() - b.double()).norm() for a, b in pairs]).norm()
            whole = torch.stack([a.double().norm() for a, _ in pairs]).norm()
            assert apart <= bound * whole, cell


def zip_own(there, back):
    assert set(there.own) == set(back.own)
    return ((there.own[client], back.own[client]) for client in there.own)


def reference(cell):
    """The end of a cell in the sequential engine; of a protocol, in sums that are just taken."""
    plain = fm.Secure(noise="skellam") if cell.secure == "protocol" else None
    return _reference(cell._replace(engine="sequential"), plain)


@functools.cache
def _reference(cell, sums):
    return trained(cell, sums=sums)


@pytest.mark.parametrize("algorithm", CARDS)
def test_every_cell_is_accepted_or_refused_before_round_one_as_the_table_says(algorithm):
    for cell in CELLS:
        if cell.algorithm == algorithm:
            said, why = answer(cell), asked(cell)
            assert (said is None) == (why is None), (cell, why)
            assert said is None or said in why, cell


def test_the_covering_set_shows_every_algorithm_with_every_part_of_every_column():
    shown = {(cell.algorithm, *part) for cell in COVERING for part in cell._asdict().items()}
    for cell in trainable():
        if cell.engine not in ("sequential", "compiled"):
            assert {(cell.algorithm, *part) for part in cell._asdict().items()} <= shown


@pytest.mark.parametrize("algorithm", CARDS)
def test_the_covering_set_trains_and_agrees_with_the_sequential_engine(algorithm):
    for cell in COVERING:
        if cell.algorithm == algorithm:
            agree(cell, reference(cell), trained(cell))


@pytest.mark.nightly
def test_a_random_thousand_of_cells_train_and_agree_with_the_sequential_engine():
    possible = [cell for cell in trainable() if cell.engine != "compiled"]
    for cell in random.Random(20261125).sample(possible, min(1000, len(possible))):
        agree(cell, reference(cell), trained(cell))


@pytest.mark.nightly
@pytest.mark.parametrize("algorithm", CARDS)
def test_every_algorithm_is_compiled_and_agrees_or_says_that_it_cannot_be(algorithm):
    compiled = [cell for cell in trainable() if cell.engine == "compiled"]
    possible = [cell for cell in compiled if cell.algorithm == algorithm]
    cell = random.Random(20261125).choice(possible)
    there = trained(cell, engine="sequential")
    try:
        back = trained(cell)
    except fm.SettingsError as error:
        assert "cannot be compiled" in str(error)
        return
    agree(cell, there, back)
