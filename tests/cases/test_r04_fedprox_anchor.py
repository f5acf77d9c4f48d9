"""Case R04: FedProx's anchor is a copy of the received model, not the model that is trained."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R04.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(tensor([INPUT["param_w"]], dtype=torch.float64))
        self.frozen = nn.Parameter(tensor([INPUT["frozen_param"]], dtype=torch.float64), False)

    def forward(self, x):
        return self.w + 0 * self.frozen - x


def works(steps, **more):
    objective = fm.objective(Model(), lambda out, _: 0.5 * out.square().sum(1), target=None)
    return fm.local.sgd(objective, lr=INPUT["sgd_lr"], steps=steps, **more)


TARGET = {"x": tensor([[3.0]], dtype=torch.float64)}


@pytest.mark.parametrize("steps", range(1, INPUT["local_steps"] + 1))
def test_each_local_step_is_pulled_towards_what_was_received(steps):
    algorithm = fm.fedprox(works(steps), mu=INPUT["mu"])

    result = fm.run(algorithm, [TARGET], rounds=1, progress=False, workers=1)

    expected = EXPECTED["w_after_each_step"][steps - 1]
    assert result.model.w.item() == pytest.approx(expected, abs=CASE["tolerance"])
    assert result.model.frozen.item() == EXPECTED["frozen_param"]


def by_hand(w, steps, mu):
    anchor = w
    for _ in range(steps):
        w -= INPUT["sgd_lr"] * ((w - 3) + mu * (w - anchor))
    return w


@pytest.mark.parametrize(
    "engine",
    [sequential(), parallel(2), parallel(2, threads=True)],
    ids=["sequential", "processes", "threads"],
)
def test_every_client_and_every_round_has_the_anchor_of_its_round(engine):
    steps, mu = INPUT["local_steps"], INPUT["mu"]

    result = fm.run(
        fm.fedprox(works(steps), mu=mu), [TARGET] * 5, rounds=3, progress=False, engine=engine
    )

    # All clients are alike, so the mean is each of them, and the next round's anchor.
    w = INPUT["param_w"]
    for _ in range(3):
        w = by_hand(w, steps, mu)
    assert result.model.w.item() == pytest.approx(w, abs=CASE["tolerance"])


def test_the_anchor_holds_where_momentum_keeps_a_state_beside_the_model():
    algorithm = fm.fedprox(works(4, momentum=0.5), mu=2.0)

    result = fm.run(algorithm, [TARGET], rounds=1, progress=False, workers=1)

    w, velocity = INPUT["param_w"], 0.0
    for _ in range(4):
        velocity = 0.5 * velocity + (w - 3) + 2.0 * (w - INPUT["param_w"])
        w -= INPUT["sgd_lr"] * velocity
    assert result.model.w.item() == pytest.approx(w, abs=CASE["tolerance"])


def test_a_strong_pull_keeps_the_model_where_it_was():
    # lr * (1 + mu) = 1: from the second step on the model sits at (3 + 9 * w) / 10.
    result = fm.run(fm.fedprox(works(9), mu=9.0), [TARGET], rounds=1, progress=False, workers=1)

    assert result.model.w.item() == pytest.approx((3 + 9 * 1.0) / 10, abs=CASE["tolerance"])
