"""IFCA's claim (NeurIPS 2020): planted clusters are found, and each has its own model."""

import pytest
import torch
from torch import nn

import folkmoot as fm

D, ROWS = 6, 30


def planted(k, of_each, noise=0.05):
    """Clients of k linear regressions, dealt in turn: (data by client, true weights (k, D))."""
    draw = torch.Generator().manual_seed(0)
    true = torch.randn(k, D, generator=draw)
    clients = {}
    for number in range(k * of_each):
        x = torch.randn(ROWS, D, generator=draw)
        y = x @ true[number % k] + noise * torch.randn(ROWS, generator=draw)
        clients[number] = {"x": x, "y": y[:, None]}
    return clients, true


def start_near(weights, away):
    """A model that begins at a distance from weights."""
    model = nn.Linear(D, 1, bias=False)
    step = torch.randn(D, generator=torch.Generator().manual_seed(1))
    model.weight.data[0] = weights + away * step / step.norm()
    return model


@pytest.mark.parametrize("k", [2, 3])
def test_all_clients_come_to_their_planted_cluster_and_its_regression(k, one_round):
    clients, true = planted(k, of_each=3)
    # The paper's condition: models begin nearer than half the least distance of two clusters.
    starts = [start_near(weights, 0.4 * torch.pdist(true).min()) for weights in true]
    work = fm.local.sgd(fm.regressor(starts[0]), lr=0.1)
    algorithm, snapshot = fm.ifca(work, clusters=starts[::-1]), None

    for _ in range(12):
        snapshot, _ = one_round(algorithm, clients, snapshot)

    found = [snapshot.own[number]["cluster"].item() for number in clients]
    assert found == [k - 1 - number % k for number in clients]
    assert snapshot.state["members"].tolist() == [3.0] * k
    # 3 clients of 30 rows with noise 0.05: an error of about 0.05 / sqrt(90) = 0.005 a weight.
    weights = snapshot.state["models"]["params"]["weight"].flip(0)[:, 0]
    torch.testing.assert_close(weights, true, rtol=0, atol=0.03)
