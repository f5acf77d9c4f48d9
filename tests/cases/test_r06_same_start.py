"""Case R06: all clients of a round start from the broadcast model."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.data import as_clients
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R06.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]
ENGINES = {
    "sequential": sequential(),
    "processes": parallel(2),
    "threads": parallel(2, threads=True),
}


@pytest.fixture
def federation(line, pull):
    """Clients that add what the case says, and the work that does so."""

    def build(weights):
        clients = [
            pull(-added, rows=rows)
            for added, rows in zip(INPUT["local_training_adds"], weights, strict=True)
        ]
        return fm.local.sgd(line(INPUT["broadcast"]), lr=1.0, batch_size=None), clients

    return build


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_every_client_ends_where_it_would_end_alone(engine, federation):
    work, clients = federation([1, 1, 1])
    sent = {**work.objective.init(), "round": tensor(1)}
    opened = engine(Setting(as_clients(clients), 0))
    task = fm.Task(sent, work, fm.aggregators.uniform_mean())

    found = [
        INPUT["broadcast"] + update.value["params"]["w"].item()
        for _, update in opened.stream(task, Cohort(1, (0, 1, 2), 3, 3), {})
    ]
    opened.close()

    assert found == EXPECTED["client_results"]
    assert sent["params"]["w"].item() == EXPECTED["server_copy_of_broadcast_during_round"]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(
    ("weights", "expected"), [([1, 1, 1], "mean_equal"), (INPUT["other_weights"], None)]
)
def test_the_mean_is_of_clients_that_were_not_chained(weights, expected, engine, federation):
    work, clients = federation(weights)

    result = fm.run(fm.fedavg(work), clients, rounds=1, engine=engine, progress=False)

    assert result.model.w.item() == EXPECTED[expected or "mean_weights_1_1_2"]


def test_the_broadcast_stays_as_it_is_during_every_step(federation):
    work, clients = federation([1, 1, 1])
    seen = []

    def step(self, sent, carry, batch):
        before = sent["params"]["w"].item()
        carry = work.step(self, sent, carry, batch)
        seen.append((before, sent["params"]["w"].item()))
        return carry

    fm.run(
        fm.fedavg(work._replace(step=step)),
        clients,
        rounds=1,
        engine=sequential(),
        progress=False,
    )

    broadcast = EXPECTED["server_copy_of_broadcast_during_round"]
    # The look before the first round trains one client, too.
    assert len(seen) >= 3
    assert set(seen) == {(broadcast, broadcast)}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_batch_statistics_and_optimizer_states_start_anew_for_each_client(engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.3, momentum=0.9, epochs=2, batch_size=4)
    draw = torch.Generator().manual_seed(1)
    client = {
        "x": torch.randn(8, 2, generator=draw),
        "y": torch.randint(0, 2, (8,), generator=draw),
    }
    # Clients who are alike, but for the order of their rows, which is their own where they shuffle.
    plain = work._replace(plan=work.plan._replace(shuffle=False))
    task = fm.Task({**work.objective.init(), "round": tensor(1)}, plain, fm.aggregators.total())

    opened = engine(Setting(as_clients([client] * 4), 0))
    updates = [update for _, update in opened.stream(task, Cohort(1, (0, 1, 2, 3), 4, 4), {})]
    opened.close()

    for update in updates[1:]:
        for part in ("params", "buffers"):
            for name, leaf in updates[0].value[part].items():
                assert torch.equal(update.value[part][name], leaf)
        assert update.counts["1.num_batches_tracked"].item() == 4
