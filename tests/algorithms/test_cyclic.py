"""Cyclical weight transfer: where one client leaves the model, the next one begins."""

import pytest
import torch
from torch import nn

import folkmoot as fm


class Number(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x * self.w


def work(lr):
    """The squared distance to a client's number; with a rate of 1 a step goes all the way."""
    return fm.local.sgd(fm.regressor(Number()), lr=lr / 2)


def clients(*numbers):
    return {at: (torch.ones(1, 1), torch.tensor([[number]])) for at, number in enumerate(numbers)}


def after(rounds, lr, *numbers):
    """The parameter after some rounds in turn."""
    result = fm.run(
        fm.cyclic(work(lr)),
        clients(*numbers),
        rounds=rounds,
        sampling=fm.sampling.separated(1, rounds=len(numbers)),
        progress=False,
    )
    return result.model.w.item()


@pytest.mark.parametrize(("rounds", "last"), [(1, 5.0), (2, -3.0), (3, 7.0), (4, 5.0), (5, -3.0)])
def test_clients_are_visited_in_turn_again_and_again(rounds, last):
    assert after(rounds, 1.0, 5.0, -3.0, 7.0) == pytest.approx(last)


def test_each_goes_on_where_the_one_before_has_stopped():
    # 0 -> 4 half of the way to 8; -> 0 half of the way to -4.
    assert after(2, 0.5, 8.0, -4.0) == pytest.approx(0.0)
    # From there half of the way to 8, and again to -4: 4, 0.
    assert after(4, 0.5, 8.0, -4.0) == pytest.approx(0.0)


def test_of_several_at_once_the_mean_is_taken():
    result = fm.run(fm.cyclic(work(1.0)), clients(5.0, -3.0), rounds=1, progress=False)

    assert result.model.w.item() == pytest.approx(1.0)
    assert result.name == "cyclic"


def test_a_module_is_no_work():
    with pytest.raises(fm.SettingsError, match="cyclic"):
        fm.cyclic(Number())
