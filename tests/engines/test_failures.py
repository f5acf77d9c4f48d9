"""What goes wrong in a client is named, hurts nobody else, and leaves no process behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort, LeftOut, Setting
from folkmoot.core.errors import DivergenceError, InfrastructureError, QuorumError
from folkmoot.engines import parallel, sequential

ENGINES = {
    "sequential": sequential(),
    "processes": parallel(2, threads=False),
    "threads": parallel(2, threads=True),
}
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


class Odd(Exception):
    """An error of the user's own, with an argument that no message shows."""

    def __init__(self, why, code):
        super().__init__(why)
        self.code = code


def status_of(path):
    """Return state and parent of a process from its /proc entry, or nothing if it is gone."""
    try:
        fields = path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None, None
    return fields[0], int(fields[1])


def children():
    """Return all processes whose parent is this one, dead ones that nobody waited for included."""
    found = {path.parent.name: status_of(path) for path in Path("/proc").glob("[0-9]*/stat")}
    return [int(pid) for pid, (_, parent) in found.items() if parent == os.getpid()]


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = children()
    yield
    assert children() == before


def rows(client):
    drawn = torch.Generator().manual_seed(client)
    return {"x": torch.randn(4, 3, generator=drawn), "y": torch.arange(4) % 2}


def model():
    torch.manual_seed(1)
    return nn.Linear(3, 2)


def work_of(module=None, loss=None, **options):
    objective = fm.objective(module, loss) if loss else fm.classifier(module or model())
    return fm.local.sgd(objective, lr=0.1, batch_size=2, **options)


def asked(engine, load, work, clients=12):
    """Open an engine; return it with a function that puts one task to everyone."""
    opened = engine(Setting(fm.data.from_function(range(clients), load), 0))
    task = fm.Task(
        {**work.objective.init(), "round": torch.tensor(1)}, work, fm.aggregators.weighted_mean()
    )
    state = task.aggregator.init(fm.Update({name: task.broadcast[name] for name in ("params", "buffers")}), clients)
    cohort = Cohort(3, tuple(range(clients)), clients, clients)
    return opened, lambda: opened.ask(task, state, cohort, {}), lambda: opened.stream(task, cohort, {})


def notes(error):
    return " ".join(error.__notes__)


STAGES = {
    "load": "client 5, round 3, stage load",
    "start": "client 5, round 3, stage start",
    "step": "client 5, round 3, stage step 2",
    "finish": "client 5, round 3, stage finish",
    "encode": "client 5, round 3, stage encode",
}


def broken(stage, switch):
    """Build a loader, a work and a codec; client 5 fails at one stage while the switch is on."""
    at = {"client": None, "steps": 0}

    def fail(where):
        if switch and at["client"] == 5 and where == stage:
            raise Odd("it is Tuesday", 42)

    def load(client):
        at.update(client=client, steps=0)
        fail("load")
        return rows(client)

    work = work_of()

    def start(sent, own, key):
        fail("start")
        return work.start(sent, own, key)

    def step(self, sent, carry, batch):
        at["steps"] += 1
        if at["steps"] == 2:
            fail("step")
        return work.step(self, sent, carry, batch)

    def finish(sent, carry, seen):
        fail("finish")
        return work.finish(sent, carry, seen)

    return load, work._replace(start=start, step=step, finish=finish), fail
