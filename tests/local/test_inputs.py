"""A batch may be shown to a model twice, whatever the model does to it."""

import pytest
import torch
from torch import nn

import folkmoot as fm

ROWS = {"x": torch.tensor([[1.0], [2.0]])}


class Writing(nn.Module):
    """Writes into its inputs from its `first` pass on."""

    def __init__(self, first):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.left = first

    def forward(self, x):
        self.left -= 1
        return (x.add_(1.0) if self.left < 1 else x) * self.w


def shown(first):
    objective = fm.objective(Writing(first), lambda outputs, _: outputs.sum(1), target=None)
    batch = fm.Batch(fm.tree.clone(ROWS), None, torch.tensor(0), 0)
    return objective, batch, objective.init()


def test_neither_a_gradient_nor_a_measurement_changes_the_batch():
    objective, batch, model = shown(1)

    for _ in range(3):
        gradient, _ = objective.grad(*model.values(), batch)
        sums = objective.measure(*model.values(), batch)

    assert torch.equal(batch.data["x"], ROWS["x"])
    # The mean of 2 and 3; their sum over two rows.
    assert gradient["w"].item() == 2.5
    assert sums["loss"].tolist() == [5.0, 2.0]


@pytest.mark.parametrize("verb", ["grad", "measure"])
def test_a_model_that_begins_to_write_later_is_refused_with_the_cure(verb):
    objective, batch, model = shown(2)
    getattr(objective, verb)(*model.values(), batch)

    with pytest.raises(fm.SettingsError, match=r"write into their inputs, but not the first.*copy"):
        getattr(objective, verb)(*model.values(), batch)
