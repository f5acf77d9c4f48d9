"""Case R07: bfloat16 models keep their dtype and bits, and their sums are not kept in bfloat16."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.aggregators import uniform_mean, weighted_mean
from folkmoot.codecs import clip
from folkmoot.core import fold, wire
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R07.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]
BF16 = torch.bfloat16


@pytest.mark.parametrize(
    "rule", [weighted_mean(), uniform_mean(), weighted_mean(clip(2.0))], ids=["w", "u", "clip"]
)
def test_a_mean_of_a_thousand_ones_is_one(rule):
    case = INPUT["a"]
    update = fm.Update({"w": tensor(case["each"], dtype=BF16)}, 1.0)

    mean = fm.aggregate(rule, [update] * case["clients"])["w"]

    assert mean.dtype == BF16
    assert mean.tolist() == EXPECTED["a"]["value"]


def test_a_thousand_clients_of_a_bfloat16_model_move_it_by_their_mean(line, pull, one_round):
    case = INPUT["a"]
    algorithm = fm.fedavg(fm.local.sgd(line(0.0, dtype=BF16), lr=1.0))
    minus = pull([-number for number in case["each"]], dtype=BF16)

    snapshot, _ = one_round(algorithm, dict.fromkeys(range(case["clients"]), minus))

    assert snapshot.state["params"]["w"].dtype == BF16
    assert snapshot.state["params"]["w"].tolist() == EXPECTED["a"]["value"]


def test_a_weighted_mean_is_exact_before_it_is_rounded():
    case = INPUT["b"]
    updates = [
        fm.Update({"w": tensor([value], dtype=BF16)}, weight)
        for value, weight in zip(case["values_bfloat16"], case["weights"], strict=True)
    ]

    total = fold.zero(updates[0])
    for update in updates:
        total = fold.add(total, update)
    mean = fm.aggregate(weighted_mean(), updates)["w"]

    assert total.value["w"].item() / total.weight == EXPECTED["b"]["exact_mean_before_cast"]
    assert (mean.dtype, mean.tolist()) == (BF16, EXPECTED["b"]["value"])


def test_bits_are_sent_and_received_as_they_are():
    bits = [int(text, 16) for text in INPUT["c"]["bits"]]
    signed = tensor([number - (number >> 15 << 16) for number in bits], dtype=torch.int16)

    found, _ = wire.from_bytes(wire.to_bytes({"w": signed.view(BF16)}))

    assert found["w"].dtype == BF16
    assert found["w"].view(torch.int16).tolist() == signed.tolist()


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("engine", [sequential(), parallel(2)], ids=["sequential", "processes"])
@pytest.mark.parametrize(
    "server",
    [None, fm.optimizers.adam(0.1, bias_correction=True), fm.optimizers.yogi(0.1)],
    ids=["average", "adam", "yogi"],
)
def test_a_model_comes_back_in_its_own_dtype(server, engine, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(dtype)
    work = fm.local.sgd(fm.classifier(model), lr=0.1, momentum=0.9, clip_gradient=1.0, batch_size=2)
    client = {"x": torch.ones(4, 2, dtype=dtype), "y": tensor([0, 1, 0, 1])}

    result = fm.run(
        fm.fedavg(work, server=server),
        [client, client],
        rounds=2,
        test=client,
        progress=False,
        engine=engine,
    )

    assert {name: leaf.dtype for name, leaf in result.model.state_dict().items()} == {
        name: leaf.dtype for name, leaf in model.state_dict().items()
    }
    assert all(torch.isfinite(leaf).all() for leaf in result.model.parameters())
    assert result.left_out == []


@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [(weighted_mean(), 0), (weighted_mean(clip(4.0)), 2e-6)],  # Codecs work in float32.
    ids=["plain", "clip"],
)
def test_dtypes_may_be_mixed_in_one_model(rule, tolerance, one_round):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.short = nn.Parameter(torch.zeros(1, dtype=BF16))
            self.fine = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            return x * self.short.double() + x * self.fine

    objective = fm.objective(Mixed(), lambda outputs, _: outputs.sum(1), target=None)
    algorithm = fm.fedavg(fm.local.sgd(objective, lr=1.0), aggregator=rule)
    data = {"x": tensor([[-(1.0 + 2.0**-30)]], dtype=torch.float64)}

    snapshot, _ = one_round(algorithm, {0: data, 1: data})

    params = snapshot.state["params"]
    assert (params["short"].dtype, params["fine"].dtype) == (BF16, torch.float64)
    assert params["short"].item() == 1.0
    assert params["fine"].item() == pytest.approx(1.0 + 2.0**-30, rel=0, abs=tolerance)
