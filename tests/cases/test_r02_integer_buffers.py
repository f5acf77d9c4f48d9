"""Case R02: a 0-d int64 counter in a weighted mean keeps dtype and shape and is rounded."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core import wire

CASE = yaml.safe_load((Path(__file__).parent / "R02.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]


def answer(client):
    model = fm.objective(nn.BatchNorm1d(2), lambda outputs, _: outputs.sum(1), target=None)
    params = {name: torch.zeros_like(leaf) for name, leaf in model.init()["params"].items()}
    buffers = {name: tensor([float(n) for n in client[name]]) for name in list(client)[:2]}
    counts = {"num_batches_tracked": tensor(client["num_batches_tracked"])}
    return {"params": params, "buffers": buffers}, counts


@pytest.fixture
def averaged(saying, one_round):
    """The state after one round of clients with these statistics, from a model whose are zero."""
    work_of, data_of = saying
    model = nn.BatchNorm1d(2)
    model.running_var.zero_()
    objective = fm.objective(model, lambda outputs, _: outputs.sum(1), target=None)
    pairs = zip([INPUT["client_1"], INPUT["client_2"]], INPUT["weights"], strict=True)
    updates = [fm.Update(value, n, counts) for (value, counts), n in _answers(pairs)]
    algorithm = fm.fedavg(work_of(objective, updates[0]))
    snapshot, report = one_round(algorithm, dict(enumerate(map(data_of, updates))))
    assert report.left_out == []
    return objective, snapshot.state


def _answers(pairs):
    return ((answer(client), weight) for client, weight in pairs)


def test_statistics_are_weighted_means_and_the_counter_is_rounded(averaged):
    _, state = averaged
    counter, expected = state["counts"]["num_batches_tracked"], EXPECTED["num_batches_tracked"]

    assert state["buffers"]["running_mean"].tolist() == EXPECTED["running_mean"]
    assert state["buffers"]["running_var"].tolist() == EXPECTED["running_var"]
    assert str(counter.dtype) == f"torch.{expected['dtype']}"
    assert list(counter.shape) == expected["shape"]
    assert counter.item() == expected["value"]  # 4.5, rounded half to even


def test_the_averaged_state_loads_strictly(averaged):
    objective, state = averaged

    fresh = nn.BatchNorm1d(2)
    fresh.load_state_dict(objective.module(state).state_dict(), strict=True)

    assert fresh.running_mean.tolist() == EXPECTED["running_mean"]
    assert fresh.num_batches_tracked.item() == EXPECTED["num_batches_tracked"]["value"]


def test_a_fresh_counter_stays_an_int64_scalar_of_zero_on_every_way():
    objective = fm.classifier(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)))
    state = objective.init()

    carried, _ = wire.from_bytes(wire.to_bytes(state))
    mean = fm.aggregate(
        fm.aggregators.weighted_mean(),
        [fm.Update(state["params"], n, state["counts"]) for n in (1, 3)],
    )
    loaded = objective.module(carried).state_dict()

    name = "0.num_batches_tracked"
    for counter in (carried["counts"][name], mean[name], loaded[name]):
        assert (counter.dtype, counter.shape, counter.item()) == (torch.int64, (), 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_counter_counts_the_steps_of_real_training(workers):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=2)
    client = {"x": torch.randn(6, 2), "y": tensor([0, 1, 0, 1, 0, 1])}

    result = fm.run(fm.fedavg(work), [client] * 3, rounds=2, progress=False, workers=workers)

    counter = result.model[0].num_batches_tracked
    assert (counter.dtype, counter.shape, counter.item()) == (torch.int64, (), 6)


class Buffers(nn.Module):
    """Buffers of every kind beside one parameter."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", tensor(3, dtype=torch.int32))
        self.register_buffer("picture", tensor([[0, 255]], dtype=torch.uint8))
        self.register_buffer("flag", tensor(True))
        self.register_buffer("mask", tensor([True, False]))
        self.register_buffer("scale", tensor(2.5))
        self.register_buffer("fine", tensor([0.1], dtype=torch.float64))
        self.register_buffer("none", torch.zeros(0, dtype=torch.int64))

    def forward(self, x):
        return x * self.w


@pytest.mark.parametrize("server", [None, fm.optimizers.adam(0.1)], ids=["average", "adam"])
@pytest.mark.parametrize("codecs", [(), (fm.codecs.clip(1.0),)], ids=["plain", "clip"])
def test_buffers_of_every_kind_come_back_as_they_were(server, codecs):
    objective = fm.objective(Buffers(), lambda outputs, _: outputs.sum(1), target=None)
    work = fm.local.sgd(objective, lr=0.1)
    algorithm = fm.fedavg(work, server=server, aggregator=fm.aggregators.weighted_mean(*codecs))
    clients = [{"x": torch.ones(rows, 1)} for rows in (1, 2, 4)]

    result = fm.run(algorithm, clients, rounds=2, progress=False, workers=1)

    found, begun = result.model.state_dict(), Buffers().state_dict()
    assert not torch.equal(found.pop("w"), begun.pop("w"))
    assert list(found) == list(begun)
    for name, leaf in begun.items():
        assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape), name
        assert torch.equal(found[name], leaf), name
    Buffers().load_state_dict(result.model.state_dict(), strict=True)
