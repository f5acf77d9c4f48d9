"""Mohri et al., ICML 2019, arXiv:1902.00146: the model that the worst-off client would choose."""

import pytest
import torch
from torch import nn

import folkmoot as fm


class Scaled(nn.Module):
    """Give w * x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        return x * self.w


def parabola(steepness, centre):
    """A client whose loss is steepness * (w - centre)^2."""
    x = torch.full((1, 1), steepness**0.5, dtype=torch.float64)
    return {"x": x, "y": x * centre}


def trained(clients, one_round, rounds=300):
    work = fm.local.sgd(fm.regressor(Scaled()), lr=0.05, batch_size=None)
    algorithm, snapshot = fm.agnostic(work, lambda_lr=0.2), None
    for _ in range(rounds):
        snapshot, _ = one_round(algorithm, clients, snapshot)
    logs = torch.stack([snapshot.own[client]["log_weight"] for client in clients])
    return snapshot.state["params"]["w"].item(), torch.softmax(logs, 0).tolist()


def test_two_clients_end_with_equal_losses_at_the_minimax_point(one_round):
    clients = {0: parabola(1.0, 0.0), 1: parabola(4.0, 3.0)}

    w, mixture = trained(clients, one_round)

    # w^2 = 4 (3 - w)^2 at w = 2; there lambda_0 * 2 * 2 = lambda_1 * 8 * 1.
    assert w == pytest.approx(2.0, abs=1e-4)
    assert mixture == pytest.approx([2 / 3, 1 / 3], abs=1e-3)


def test_a_client_that_is_served_better_than_the_worst_loses_its_say(one_round):
    clients = {0: parabola(1.0, 0.0), 1: parabola(4.0, 3.0), 2: parabola(1.0, 1.5)}

    w, mixture = trained(clients, one_round)

    assert w == pytest.approx(2.0, abs=1e-3)
    assert mixture[2] < 1e-3
