"""Models that remember rows are refused, whatever they remember with."""

import importlib

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.local.memory import remembers
from folkmoot.local.ways import Rows

SEEN = [0.0]


class Remembering(nn.Module):
    """A dense layer on what is left of a row without what is remembered of others."""

    def __init__(self, remember, begin=0):
        super().__init__()
        self.head, self.remember, self.left = nn.Linear(4, 2), remember, begin
        self.mean, self.list, self.dict = 0.0, [0.0], {"mean": 0.0}

    def forward(self, x):
        self.left -= 1
        return self.head(x - (self.remember(self, x) if self.left < 0 else 0.0))


def attribute(self, x):
    self.mean = 0.9 * self.mean + 0.1 * float(x.mean())
    return self.mean


def in_a_list(self, x):
    self.list.append(float(x.mean()))
    return self.list[-2]


def in_a_dict(self, x):
    self.dict["mean"] = 0.9 * self.dict["mean"] + 0.1 * float(x.mean())
    return self.dict["mean"]


def in_a_global(self, x):
    SEEN[0] = 0.9 * SEEN[0] + 0.1 * float(x.mean())
    return SEEN[0]


def tensor(self, x):
    self.mean = 0.9 * self.mean + 0.1 * x.mean()
    return self.mean


def the_last_row(self, x):
    before, self.mean = self.mean, x.mean()
    return before


def with_its_graph(self, x):
    self.mean = 0.9 * self.mean + 0.1 * self.head(x).mean()
    return self.mean


def for_the_log_only(self, x):
    self.mean = x.mean()
    return 0.0


REFUSED = [
    attribute, in_a_list, in_a_dict, in_a_global, tensor, the_last_row, with_its_graph,
]  # fmt: skip


def work(model, microbatch=1):
    plain = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=5, epochs=2)
    return fm.local.dpsgd(
        plain, clip=1.0, noise_multiplier=1.0, microbatch=microbatch, simulation=True
    )


def rows(number=20):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(number, 4, generator=draw)
    return {"x": x, "y": (x[:, 0] > 0).long()}


def asked(model, data):
    objective = fm.classifier(model)
    held = objective.init()
    key = torch.tensor(0)
    return remembers(objective, Rows(held["params"], held["buffers"], held["counts"], data, key, 0))


@pytest.mark.parametrize("microbatch", [1, 4])
@pytest.mark.parametrize("remember", REFUSED)
def test_a_model_that_remembers_rows_is_refused(remember, microbatch, local_update):
    with pytest.raises(SettingsError, match=r"one row two gradients.*GroupNorm.*buffer"):
        local_update(work(Remembering(remember), microbatch), rows())


@pytest.mark.parametrize("remember", [attribute, tensor])
def test_a_run_refuses_it_before_the_first_round(remember):
    begun = []

    with pytest.raises(SettingsError, match="one row two gradients"):
        fm.run(
            fm.fedavg(fm.local.sgd(fm.classifier(Remembering(remember)), lr=0.1, batch_size=5)),
            {0: rows()},
            rounds=1,
            privacy=fm.DP(unit="example", noise_multiplier=1.0, delta=1e-3, clip=1.0),
            engine=fm.engines.sequential(),
            callbacks=[begun.append],
            progress=False,
        )
    assert not begun


def test_what_no_gradient_hangs_on_may_be_kept(local_update):
    assert local_update(work(Remembering(for_the_log_only)), rows()).weight == 20


def test_a_memory_that_begins_later_is_found_later(local_update, monkeypatch):
    monkeypatch.setattr(importlib.import_module("folkmoot.local.dpsgd"), "EVERY", 3)
    # Eight batches an update of two epochs, of one and more passes each.
    late = work(Remembering(tensor, begin=20))

    with pytest.raises(SettingsError, match="one row two gradients"):
        for number in range(1, 6):
            local_update(late, rows(), round=number)


def test_a_row_without_a_gradient_tells_nothing():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x) * 0.0

    assert asked(Gated(), rows()) is None


def test_a_row_beside_none_that_differs_tells_nothing():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(4, 2))
    same = {"x": torch.tensor([[1], [1]]), "y": torch.tensor([0, 0])}

    assert asked(model, same) is None
    assert asked(model, same | {"x": torch.tensor([[1], [2]])}) is False
