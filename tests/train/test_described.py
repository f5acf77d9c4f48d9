"""A program is told from another by the numbers in its closures."""

import functools
import json

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.train.described import described


def work_of(**options):
    options = {"lr": 0.1, "batch_size": 4} | options
    return fm.local.sgd(fm.classifier(nn.Linear(3, 2)), **options)


def changes(one, other):
    """Return the paths whose values differ."""
    was, now = described(one.round), described(other.round)
    return {path for path in {*was, *now} if was.get(path) != now.get(path)}


def test_equal_programs_are_described_alike_as_plain_json():
    one, other = (described(fm.fedprox(work_of(), mu=0.1).round) for _ in range(2))

    assert one == other
    assert json.loads(json.dumps(one)) == one


ADAM = fm.optimizers.adam
PAIRS = {
    "work.start.optimizer.step.lr": (fm.fedavg(work_of()), fm.fedavg(work_of(lr=0.2))),
    "work.step.clip_gradient": (fm.fedavg(work_of()), fm.fedavg(work_of(clip_gradient=1.0))),
    "work.plan.batch_size": (fm.fedavg(work_of()), fm.fedavg(work_of(batch_size=5))),
    "work.correct.mu": (fm.fedprox(work_of(), mu=0.1), fm.fedprox(work_of(), mu=0.2)),
    "server.step.lr": (
        fm.fedavg(work_of(), server=ADAM(0.1)),
        fm.fedavg(work_of(), server=ADAM(0.2)),
    ),
}


@pytest.mark.parametrize("path", PAIRS)
def test_a_number_that_was_changed_is_found_under_its_name_and_nothing_else(path):
    assert changes(*PAIRS[path]) == {path}


def test_a_clip_norm_is_found_under_its_name():
    means = [fm.aggregators.weighted_mean(fm.codecs.clip(norm)) for norm in (1.0, 2.0)]

    found = changes(*(fm.fedavg(work_of(), aggregator=mean) for mean in means))

    assert any(path.endswith("encode.norm") for path in found)


class Halving:
    def __init__(self, lr):
        self.lr = lr

    def __call__(self, round):
        return self.lr / 2**round


SCHEDULES = {
    "numbers in code": (lambda round: 0.1 / round, lambda round: 0.2 / round),
    "a default": (lambda round, base=0.1: base, lambda round, base=0.2: base),
    "a partial": (functools.partial(max, 0.1), functools.partial(max, 0.2)),
    "an object": (Halving(0.1), Halving(0.2)),
    "a long table": (
        (lambda table: lambda round: table[round])([0.1] * 30),
        (lambda table: lambda round: table[round])([0.2] * 30),
    ),
    "a tensor": (
        (lambda table: lambda round: float(table[round]))(torch.ones(3)),
        (lambda table: lambda round: float(table[round]))(torch.zeros(3)),
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_of_the_users_own_is_told_from_another(schedule):
    one, other = (fm.fedavg(work_of(lr=lr)) for lr in SCHEDULES[schedule])

    assert changes(one, other)
    assert not changes(one, fm.fedavg(work_of(lr=SCHEDULES[schedule][0])))


def test_a_circle_and_an_empty_cell_end():
    def round():
        return round, later

    described(round)
    later = 1
    assert described(round)["later"] == 1
