"""What many tests share: one thread of arithmetic, a model of one number, one round by hand."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.engine import Cohort, Setting
from folkmoot.core.fold import ascending
from folkmoot.engines import sequential
from folkmoot.train.loop import first_snapshot, run_round

torch.set_num_threads(1)


class Line(nn.Module):
    """Give w * x: where the output is the loss, the gradient is the mean of x, whatever w is."""

    def __init__(self, w=0.0, dtype=torch.float32):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=dtype).reshape(-1))

    def forward(self, x):
        return x * self.w


@pytest.fixture
def line():
    """Build the objective of a `Line`; its data are {"x": (rows, len(w))}, each row's gradient."""

    def build(w=0.0, dtype=torch.float32):
        return fm.objective(Line(w, dtype), lambda outputs, _: outputs.sum(1), target=None)

    return build


@pytest.fixture
def pull():
    """Build data for a `line` whose every gradient is the given number."""

    def build(gradient, rows=1, dtype=torch.float32):
        return {"x": torch.tensor(gradient, dtype=dtype).reshape(1, -1).repeat(rows, 1)}

    return build


@pytest.fixture
def one_round():
    """Do one round, or one more, with the reference engine: returns (snapshot, report)."""

    def ask(algorithm, clients, snapshot=None, seed=0, asked=None):
        class Holder:
            def __init__(self, train):
                self.train, self.test = train, None

        held = {client: Holder(data) for client, data in dict(clients).items()}
        snapshot = snapshot or first_snapshot(algorithm)
        cohort = Cohort(snapshot.round + 1, ascending(asked or held), len(held), len(held))
        engine = sequential()(Setting(held, seed))
        return run_round(algorithm, snapshot, engine, cohort, seed)

    return ask


@pytest.fixture
def local_update():
    """Do one client's work by the reference engine and return its update, or why it is left out."""

    def work_of(work, data, sent=None, round=1, client=0, seed=0):
        class Holder:
            train, test = data, None

        sent = sent or {**work.objective.init(), "round": torch.tensor(round)}
        task = fm.Task(sent, work, fm.aggregators.weighted_mean())
        engine = sequential()(Setting({client: Holder}, seed))
        [(_, update)] = engine.stream(task, Cohort(round, (client,), 1, 1), {})
        return update

    return work_of


@pytest.fixture
def saying():
    """Build a work whose update is what a client's data say, and the data that say an update."""

    def data_of(update):
        weight = torch.tensor(float(update.weight), dtype=torch.float64)
        said = {"value": update.value, "counts": update.counts, "weight": weight}
        # Twice, for models whose layers need two rows.
        return trees.map(lambda leaf: torch.stack([leaf, leaf]), said)

    def work_of(objective, like):
        blank = trees.map(lambda leaf: torch.zeros_like(leaf[0]), data_of(like))

        def step(work, sent, carry, batch):
            return trees.map(lambda leaf: leaf[0], batch.data)

        def finish(sent, carry, seen):
            return fm.Update(carry["value"], carry["weight"].item(), carry["counts"]), {}

        plan = fm.Plan(batch_size=None)
        return fm.LocalWork("say", objective, plan, lambda *given: blank, step, finish)

    return work_of, data_of
