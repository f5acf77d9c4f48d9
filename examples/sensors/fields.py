"""The three sets of sensors: each with its network, its loss, and how it is learnt."""

from collections.abc import Callable
from typing import NamedTuple

import models
from people import people

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


FIELDS = {
    "air": Field(
        load=data.air,
        model=models.Forecast,
        loss=models.masked,
        judge=models.hours_off,
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
        model=lambda: models.network(42, 64, 32, 1),
        loss=models.squared,
        judge=models.cycles_off,
        rounds=60,
        cohort=20,
        steps=6,
        batch_size=32,
        lr=0.006,
        buffer=5,
        privacy=fm.DP(epsilon=8, delta=1e-3, clip=0.5),
    ),
    "people": Field(
        load=people,
        model=lambda: models.network(210, 64, 6),
        loss=models.surprise,
        judge=models.right,
        rounds=60,
        cohort=6,
        steps=10,
        batch_size=32,
        lr=0.006,
        buffer=2,
        privacy=fm.DP(epsilon=8, delta=1e-2, clip=0.5),
    ),
}
