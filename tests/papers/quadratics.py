"""Clients whose losses are a / 2 * (w - b)^2: what each algorithm must come to, in closed form."""

from typing import Any, NamedTuple

import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.train.loop import first_snapshot, run_round

F64 = torch.float64


class Held(NamedTuple):
    """What a client holds."""

    train: Any
    test: Any = None


class Quadratic(nn.Module):
    """One parameter w; each row is a client's a / 2 * (w - b)^2."""

    def __init__(self, w=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=F64))

    def forward(self, a, b):
        return a / 2 * (self.w - b) ** 2


def quadratic(w=0.0):
    """Build the objective that begins at w."""
    return fm.objective(Quadratic(w), lambda outputs, _: outputs, target=None)


def client(a, b, rows=1):
    """Build a client's data; every row is the same."""
    return {
        "a": torch.full((rows,), a, dtype=F64),
        "b": torch.full((rows,), b, dtype=F64),
    }


def trained(algorithm, clients, rounds, asked=None):
    """Return w after some rounds of all clients, or of those that `asked(round)` names."""
    held = {number: Held(data) for number, data in enumerate(clients)}
    engine, snapshot = fm.engines.sequential()(Setting(held, 0)), first_snapshot(algorithm)
    for number in range(1, rounds + 1):
        named = asked(number) if asked else tuple(held)
        cohort = Cohort(number, named, len(held), len(named))
        snapshot, _ = run_round(algorithm, snapshot, engine, cohort, 0)
    return snapshot.state["params"]["w"].item()


def weighted(weights, values):
    """Return sum(w v) / sum(w)."""
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def shrinks(lr, a, steps):
    """Return the share of its distance to b that a client goes in so many steps."""
    return 1 - (1 - lr * a) ** steps
