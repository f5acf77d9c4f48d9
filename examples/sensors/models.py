"""A network for each set of sensors, its loss by row, and how its answers are judged."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

import data
import folkmoot as fm


class Field(NamedTuple):
    """One set of sensors, and how it is learnt."""

    load: Callable
    model: Callable
    loss: Callable
    judge: Callable
    """From outputs and y to numbers by name."""
    rounds: int
    cohort: int
    steps: int
    batch_size: int
    lr: float
    buffer: int
    privacy: fm.DP
    own_tests: bool = False
    """Whether a device's own model is judged where the device is, and not by unseen others."""


class Forecast(nn.Module):
    """The next hours as the last one and a change: (n, 114) -> (n, 6)."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(114, data.AHEAD)
        self.bend = network(114, 64, data.AHEAD)

    def forward(self, x):
        return x[:, :1] + self.line(x) + self.bend(x)


def network(*widths):
    """Return linear layers of these widths with ReLU between them."""
    pairs = itertools.pairwise(widths)
    layers = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def masked(outputs, y):
    """Squared errors where there is a truth; what was not measured teaches nothing."""
    return ((outputs - y[:, : data.AHEAD]).square() * y[:, data.AHEAD :]).mean(1)


def hours_off(outputs, y):
    """RMSE one hour and six hours ahead, in microgram/m3."""
    squares, there = (outputs - y[:, : data.AHEAD]).square(), y[:, data.AHEAD :]
    rmse = ((squares * there).sum(0) / there.sum(0)).sqrt() * data.PM25_DEVIATION
    return {"RMSE 1 h": float(rmse[0]), "RMSE 6 h": float(rmse[-1])}


def squared(outputs, y):
    """Squared errors of single numbers."""
    return (outputs - y).square().squeeze(1)


def cycles_off(outputs, y):
    """RMSE of the life left, in cycles, with answers held between 0 and 125."""
    return {"RMSE": float((outputs.clamp(0, 1) - y).square().mean().sqrt() * 125)}


def surprise(outputs, y):
    """Cross-entropy."""
    return nn.functional.cross_entropy(outputs, y, reduction="none")


def right(outputs, y):
    """Share of windows whose activity was told."""
    return {"accuracy": float((outputs.argmax(1) == y).double().mean())}


def judged(field, models, tests):
    """Return what models give, each on its own test: by name, over all their answers together."""
    with torch.no_grad():
        answers = [model(test["x"]) for model, test in zip(models, tests, strict=True)]
    return field.judge(torch.cat(answers), torch.cat([test["y"] for test in tests]))


FIELDS = {
    "air": Field(
        load=data.air,
        model=Forecast,
        loss=masked,
        judge=hours_off,
        rounds=10,
        cohort=6,
        steps=40,
        batch_size=256,
        lr=0.003,
        buffer=3,
        privacy=fm.DP(epsilon=2, delta=1e-5, unit="example"),
        own_tests=True,
    ),
    "engines": Field(
        load=data.engines,
        model=lambda: network(42, 64, 32, 1),
        loss=squared,
        judge=cycles_off,
        rounds=60,
        cohort=20,
        steps=6,
        batch_size=32,
        lr=0.006,
        buffer=5,
        privacy=fm.DP(epsilon=8, delta=1e-3, clip=0.5),
    ),
    "people": Field(
        load=data.people,
        model=lambda: network(210, 64, 6),
        loss=surprise,
        judge=right,
        rounds=60,
        cohort=6,
        steps=10,
        batch_size=32,
        lr=0.006,
        buffer=2,
        privacy=fm.DP(epsilon=8, delta=1e-2, clip=0.5),
    ),
}
