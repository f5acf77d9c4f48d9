"""Which engine runs where nobody named one."""

import pytest
import torch
from torch import nn

import folkmoot as fm


def vectors(rows, generator):
    x = torch.randn(rows, 6, generator=generator)
    return {"x": x, "y": torch.randint(0, 3, (rows,), generator=generator)}


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("rounds", "exact", "model", "expected"),
    [
        (1, True, mlp(), "parallel"),
        (1, False, mlp(), "vectorized"),
        (1, False, nn.Sequential(nn.Linear(6, 2000), nn.Linear(2000, 3)), "parallel"),
    ],
)
def test_the_engine_is_chosen_by_rule(rounds, exact, model, expected):
    generator = torch.Generator().manual_seed(1)
    clients = [vectors(5, generator) for _ in range(3)]
    algorithm = fm.fedavg(fm.local.sgd(fm.classifier(model), lr=0.1))

    result = fm.run(algorithm, clients, rounds=rounds, exact=exact, workers=2, progress=False)

    assert result.settings["engine"].startswith(expected)


class Deciding(nn.Module):
    """Looks at the values of a batch of five rows, which no mapped program can."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        if len(x) == 5 and x.sum() > 1e9:
            return self.out(-x)
        return self.out(x)


def test_a_result_names_the_engine_that_went_on_when_the_first_gave_way():
    generator = torch.Generator().manual_seed(1)
    # The one that is tried has four rows.
    clients = [vectors(rows, generator) for rows in (4, 5, 5)]
    work = fm.local.sgd(fm.classifier(Deciding()), lr=0.1, batch_size=None)
    told = []

    result = fm.run(
        fm.fedavg(work),
        clients,
        rounds=2,
        exact=False,
        workers=2,
        progress=False,
        callbacks=[lambda event: told.append((event.kind, dict(event.row)))],
    )

    assert told[0][0] == "start"
    assert told[0][1]["engine"] == "vectorized"
    assert result.settings["engine"].startswith("parallel")
