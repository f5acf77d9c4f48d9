"""No client moves a private sum by more than its chain states, whatever model, data or update.

Sums are of integers, so the distance of two of them is exact; the bound is the chain's own.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import folkmoot as fm
from folkmoot.core.algorithm import Task
from folkmoot.core.codec import public
from folkmoot.core.engine import Cohort, Setting
from folkmoot.engines.tasks import example
from folkmoot.train.loop import begun, check_task
from folkmoot.train.private import private


class Scaled(nn.Module):
    """Has a 0-d parameter, a weight under two names, a frozen one and counters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.seen += 1
        return self.second(self.norm(self.first(x)) * self.frozen) * self.temperature


MODELS = {
    "one number": lambda: nn.Linear(3, 3, bias=False),
    "scaled": Scaled,
    "half": lambda: nn.Sequential(nn.Linear(3, 3)).to(torch.bfloat16),
    "double": lambda: nn.Linear(3, 3).double(),
}
CLIPS = {
    "flat": 0.7,
    "adaptive": fm.codecs.adaptive_clip(0.7),
    "by layer": fm.codecs.clip_by_layer(0.7),
}


def held(seed, size, dtype, rows=4):
    draw = torch.Generator().manual_seed(seed)
    x = (torch.randn(rows, 3, generator=draw) * size).to(dtype)
    return {"x": x, "y": torch.randint(0, 3, (rows,), generator=draw)}


def summed(task, clients, engine):
    """Return the integers that a private sum of some clients adds up to, and its bounds."""
    state = task.aggregator.init(example(task), 4)
    cohort = Cohort(1, tuple(sorted(clients)), 4, 4)
    shown = state._replace(codec=public(state.codec))
    collected = engine(Setting(clients, 0)).ask(task, shown, cohort, {})
    return collected.total.value["vector"].tolist(), state


def apart(one, other):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    size=st.sampled_from([0.0, 1e-20, 1.0, 1e6, 1e18]),
    lr=st.sampled_from([1e-3, 1.0, 1e4]),
    heavy=st.booleans(),
)
def test_adding_or_replacing_a_client_moves_the_sum_by_no_more_than_is_stated(
    name, clip, seed, size, lr, heavy
):
    torch.manual_seed(seed)
    model = MODELS[name]()
    dtype = next(model.parameters()).dtype
    work = fm.local.sgd(fm.classifier(model), lr=lr, batch_size=2)
    budget = fm.DP(noise_multiplier=0.5, delta=1e-3, clip=CLIPS[clip], simulation=True)
    algorithm = private(budget, fm.fedavg(work), range(40), 1).algorithm
    task: Task = check_task(algorithm, next(begun(algorithm, algorithm.init())))
    engine = fm.engines.sequential()
    base = {0: held(seed, 1.0, dtype), 1: held(seed + 1, 1.0, dtype)}
    odd = held(seed + 2, size, dtype, rows=1000 if heavy else 4)
    clients = {at: _Held(data) for at, data in base.items()}

    without, state = summed(task, clients, engine)
    added, _ = summed(task, {**clients, 2: _Held(odd)}, engine)
    replaced, _ = summed(task, {0: clients[0], 1: _Held(odd)}, engine)

    [stage] = [part for part in state.codec.values() if "steps" in part]
    reach = state.bounds.l2 * float(stage["steps"])
    assert apart(added, without) <= reach
    assert apart(replaced, without) <= 2 * reach


class _Held:
    """What a client holds."""

    test = None

    def __init__(self, data):
        self.train = data
