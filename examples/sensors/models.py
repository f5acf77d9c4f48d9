"""Networks for sensors, losses by row, and how answers are judged."""

import itertools

import torch
from torch import nn

import data


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
