"""Case R06: all clients of a round start from the broadcast model, in every engine."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.engines import parallel, sequential
from folkmoot.engines.vectorized import vectorized

CASE = yaml.safe_load((Path(__file__).parent / "R06.yaml").read_text(encoding="utf-8"))
GIVEN, EXPECTED = CASE["input"], CASE["expected"]
ENGINES = {
    "same process": sequential(),
    "thread pool": parallel(2, threads=True),
    "process pool": parallel(2, threads=False),
    "one mapped program": vectorized(),
}


class Number(nn.Module):
    """One parameter, whose gradient is the mean of x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([float(GIVEN["broadcast"])]))

    def forward(self, x):
        return x * self.w


def clients_of(weights):
    """Build clients whose one step at rate 1 adds the case's number; a row for each weight."""
    pairs = zip(GIVEN["local_training_adds"], weights, strict=True)
    return fm.data.from_datasets([{"x": torch.full((rows, 1), -added)} for added, rows in pairs])


def algorithm():
    objective = fm.objective(Number(), lambda outputs, _: outputs.reshape(-1), target=None)
    return fm.fedavg(fm.local.sgd(objective, lr=1.0, batch_size=None))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(
    ("weights", "mean"),
    [([1, 1, 1], EXPECTED["mean_equal"]), (GIVEN["other_weights"], EXPECTED["mean_weights_1_1_2"])],
)
def test_the_mean_is_that_of_clients_which_all_start_from_the_broadcast(engine, weights, mean):
    result = fm.run(algorithm(), clients_of(weights), rounds=1, engine=engine, progress=False)

    assert result.model.w.item() == mean


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_each_client_answers_for_itself_and_the_server_keeps_its_broadcast(engine):
    built = algorithm()
    sent = {**built.objective.init(), "round": torch.tensor(1)}
    task = fm.Task(sent, built.works[0], fm.aggregators.weighted_mean())
    opened = engine(Setting(clients_of([1, 1, 1]), 0))

    found, kept = [], []
    for _, update in opened.stream(task, Cohort(1, (0, 1, 2), 3, 3), {}):
        found.append(update)
        kept.append(sent["params"]["w"].item())
    opened.close()

    assert [GIVEN["broadcast"] + one.value["params"]["w"].item() for one in found] == EXPECTED[
        "client_results"
    ]
    assert kept == [EXPECTED["server_copy_of_broadcast_during_round"]] * 3
