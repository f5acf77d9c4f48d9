"""Case R06, its neighbours: nothing of one client reaches the next, and no step the broadcast."""

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


def test_the_broadcast_stays_as_it_is_during_every_step(line, pull):
    work = fm.local.sgd(line(INPUT["broadcast"]), lr=1.0)
    clients = [pull(-added) for added in INPUT["local_training_adds"]]
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
