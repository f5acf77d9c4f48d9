"""What the tests of the command line share: a folder of their own, an app, and the command."""

import shlex
import sys

import pytest
from typer.testing import CliRunner

from folkmoot.cli import commands

APP = """
import torch
from torch import nn

import folkmoot as fm


class Net(nn.Linear):
    def forward(self, x):
        if strike and self.training:
            raise ValueError("the net is on strike")
        return super().forward(x)


strike = False


def app(num_rounds: int = 2, lr: float = 0.1, fail: bool = False, cohort: int | None = 4):
    global strike
    strike = fail
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator)
    y = torch.randint(3, (60,), generator=generator)
    clients = [(x[at : at + 10], y[at : at + 10]) for at in range(0, 50, 10)]
    work = fm.local.sgd(fm.classifier(Net(8, 3)), lr=lr)
    print("the app speaks")
    return fm.run(
        fm.fedavg(work), clients, rounds=num_rounds, cohort=cohort, test=(x[50:], y[50:])
    )
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in an empty folder, and leave the path of imports as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def toy(here):
    """Write an app of five clients, which learns in milliseconds."""
    path = here / "toy.py"
    path.write_text(APP)
    return path


@pytest.fixture
def folkmoot(here):
    """Type a command; the outcome has `exit_code`, `stdout` and `stderr`."""

    def typed(line, **environment):
        return CliRunner().invoke(commands, shlex.split(line), env=environment)

    return typed
