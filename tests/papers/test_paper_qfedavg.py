"""Li et al., ICLR 2020, arXiv:1905.10497: the larger q, the more alike are the clients' losses."""

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


@pytest.mark.parametrize("q", [0.0, 1.0, 5.0])
def test_the_fixed_point_is_the_fair_objective_s_minimum(q, one_round):
    clients = {0: parabola(1.0, 0.0), 1: parabola(4.0, 3.0)}
    work = fm.local.sgd(fm.regressor(Scaled()), lr=0.05, batch_size=None)
    algorithm, snapshot = fm.qfedavg(work, q=q), None

    for _ in range(150):
        snapshot, _ = one_round(algorithm, clients, snapshot)

    # w^(2q + 1) = 4^(q + 1) (3 - w)^(2q + 1): the gradient of sum F^(q + 1) / (q + 1) is 0.
    ratio = 4 ** ((q + 1) / (2 * q + 1))
    assert snapshot.state["params"]["w"].item() == pytest.approx(3 * ratio / (1 + ratio), rel=1e-6)


def test_a_larger_q_serves_the_minority_better_and_spreads_losses_less(one_round):
    clients = {client: parabola(1.0, 0.0) for client in range(3)} | {3: parabola(1.0, 4.0)}
    work = fm.local.sgd(fm.regressor(Scaled()), lr=0.1, batch_size=None)
    deviations, worst = [], []

    for q in (0.0, 0.5, 2.0):
        algorithm, snapshot = fm.qfedavg(work, q=q), None
        for _ in range(100):
            snapshot, _ = one_round(algorithm, clients, snapshot)
        w = snapshot.state["params"]["w"]
        losses = torch.cat([(data["x"] * w - data["y"]).square() for data in clients.values()])
        deviations.append(losses.std(correction=0).item())
        worst.append(losses.max().item())

    # 3 w^(2q + 1) = (4 - w)^(2q + 1), so w is 4 / (1 + 3^(1 / (2q + 1))).
    places = [4 / (1 + 3 ** (1 / (2 * q + 1))) for q in (0.0, 0.5, 2.0)]
    assert worst == pytest.approx([(4 - w) ** 2 for w in places], rel=1e-5)
    # Of losses w^2 three times and (4 - w)^2 once; sqrt(3) / 4 of their difference.
    gaps = [(4 - w) ** 2 - w**2 for w in places]
    assert deviations == pytest.approx([3**0.5 / 4 * gap for gap in gaps], rel=1e-4)
    assert deviations[2] < 0.25 * deviations[0]
