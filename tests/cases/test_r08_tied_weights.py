"""Case R08: tied weights travel once, count once and stay tied."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.aggregators import uniform_mean
from folkmoot.codecs import clip
from folkmoot.core import tree as trees
from folkmoot.core.codec import Layout
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R08.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]
TOLERANCE = CASE["tolerance"]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(1, 2)
        self.out = nn.Linear(2, 1, bias=False)
        self.out.weight = self.words.weight
        self.frozen = nn.Parameter(tensor([INPUT["frozen"]]), requires_grad=False)
        with torch.no_grad():
            self.words.weight.copy_(tensor([[1.0, 2.0]]))

    def forward(self, x):
        return self.out(self.words(x))


def update():
    shared = tensor([[float(number) for number in INPUT["update_of_the_shared_weight"]]])
    return fm.Update({"params": {"words.weight": shared}, "buffers": {}})


def test_the_shared_weight_is_there_once():
    params = fm.regressor(Tied()).init()["params"]

    assert list(params) == ["words.weight"]
    assert Layout.of(params).size == EXPECTED["trainable_numbers"]
    assert trees.num_bytes(params) == 4 * EXPECTED["trainable_numbers"]


def test_its_norm_counts_once_and_so_does_the_clip():
    clipped = fm.aggregate(uniform_mean(clip(INPUT["clip_norm"])), [update()])

    assert trees.norm(update().value).item() == EXPECTED["update_norm"]
    found = clipped["params"]["words.weight"].view(-1).tolist()
    assert found == pytest.approx(EXPECTED["clipped_update"], abs=TOLERANCE)


def test_both_names_share_memory_in_what_comes_back_and_one_step_changes_both():
    model = fm.regressor(Tied()).module({"params": {"words.weight": tensor([[3.0, 4.0]])}})

    assert model.words.weight.data_ptr() == model.out.weight.data_ptr()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(tensor([0])).sum().backward()
    optimizer.step()
    # The output is w * w, its gradient 2 w.
    for weight in (model.words.weight, model.out.weight):
        assert weight.view(-1).tolist() == pytest.approx([3 - 0.6, 4 - 0.8], abs=TOLERANCE)
    assert model.frozen.item() == EXPECTED["frozen"]


@pytest.mark.parametrize("names", [["words.weight"], ["words.weight", "out.weight"]], ids=str)
def test_a_state_loads_whether_or_not_it_says_the_second_name(names):
    weight = tensor([[3.0, 4.0]])

    model = fm.regressor(Tied()).module({"params": dict.fromkeys(names, weight)})
    fresh = Tied()
    fresh.load_state_dict(model.state_dict(), strict=True)

    assert fresh.words.weight is fresh.out.weight
    assert fresh.out.weight.tolist() == weight.tolist()


@pytest.mark.parametrize(
    "engine",
    [sequential(), parallel(2), parallel(2, threads=True)],
    ids=["sequential", "processes", "threads"],
)
def test_training_moves_both_names_by_the_gradient_of_both_uses(engine):
    work = fm.local.sgd(fm.regressor(Tied()), lr=0.01, steps=3)
    client = {"x": tensor([0]), "y": tensor([[1.0]])}

    result = fm.run(fm.fedavg(work), [client] * 3, rounds=2, engine=engine, progress=False)

    w = tensor([1.0, 2.0], dtype=torch.float64)
    for _ in range(6):
        w = w - 0.01 * 2 * (w @ w - 1) * 2 * w
    assert result.model.words.weight is result.model.out.weight
    assert result.model.out.weight.view(-1).tolist() == pytest.approx(w.tolist(), abs=1e-5)
    assert result.model.frozen.item() == EXPECTED["frozen"]


def test_a_tied_weight_that_is_frozen_travels_not_at_all():
    model = nn.Sequential(Tied(), nn.Linear(1, 1))
    model[0].words.weight.requires_grad_(False)
    work = fm.local.sgd(fm.regressor(model), lr=0.1)
    client = {"x": tensor([0]), "y": tensor([[1.0]])}

    result = fm.run(fm.fedavg(work), [client], rounds=1, progress=False, workers=1)

    assert list(work.objective.init()["params"]) == ["1.weight", "1.bias"]
    assert result.model[0].words.weight is result.model[0].out.weight
    assert result.model[0].out.weight.tolist() == [[1.0, 2.0]]


def test_a_buffer_of_two_names_is_one():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
            self.b.running_mean = self.a.running_mean

        def forward(self, x):
            return self.b(self.a(x))

    objective = fm.objective(Shared(), lambda outputs, _: outputs.sum(1), target=None)
    state = objective.init()
    assert [name for name in state["buffers"] if "mean" in name] == ["a.running_mean"]

    batch = fm.Batch({"x": tensor([[0.0], [2.0]])}, None, tensor(1), 0)
    objective.grad(state["params"], state["buffers"], state["counts"], batch)

    # Both layers write into the one mean: 0.1 * 1, then 0.9 of it and a mean of zero.
    assert state["buffers"]["a.running_mean"].item() == pytest.approx(0.09, abs=TOLERANCE)
    module = objective.module(state)
    assert module.a.running_mean is module.b.running_mean
