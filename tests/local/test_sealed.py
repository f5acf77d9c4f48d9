"""Sealed batches: what is in them, only a private gradient can see."""

import copy

import pytest
import torch

from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.local.sealed import Sealed

ROWS = {"x": torch.arange(6.0).reshape(3, 2)}


@pytest.mark.parametrize(
    "look",
    [
        lambda batch: batch["x"],
        lambda batch: batch.get("x"),
        lambda batch: "x" in batch,
        lambda batch: {**batch},
        lambda batch: [*batch],
        lambda batch: batch.keys(),
        lambda batch: batch.values(),
        len,
        bool,
        copy.copy,
        copy.deepcopy,
        trees.leaves,
        trees.clone,
        lambda batch: [*trees.items(batch)],
        lambda batch: trees.map(torch.clone, batch),
    ],
)
def test_rows_are_not_shown(look):
    with pytest.raises(SettingsError, match="looks at a client's examples by itself"):
        look(Sealed(ROWS, 2, secret=True))


def test_printing_shows_nothing():
    assert repr(Sealed(ROWS, 2, secret=True)) == str(Sealed(ROWS, 2, secret=True)) == "Sealed()"


def test_a_batch_is_opened_as_often_as_was_paid_for():
    sealed = Sealed(ROWS, 2, secret=False)

    looks = [sealed.open(2) for _ in range(2)]

    assert [look for _, _, look in looks] == [1, 2]
    assert all(rows is ROWS and expected == 2 for rows, expected, _ in looks)
    with pytest.raises(
        SettingsError, match=r"more gradients of one batch than the 2 .* gradients="
    ):
        sealed.open(2)
