"""FedRep's claim (ICML 2021, theorem 1): the planted subspace is found, linearly in the rounds.

Clients observe y = <w_i, B x> with one B of d to k for all and a w_i each (the paper's section 4).
One model for all can at most learn the mean of B^T w_i, which is one direction, so its distance
from the subspace, dist(A, B) = ||(I - A A^T) B||_2 of orthonormal bases, stays near 1 for k > 1.
"""

import pytest
import torch
from torch import nn

import folkmoot as fm

D, K, CLIENTS, ROWS = 8, 2, 20, 20


def planted():
    """Return an orthonormal basis of the subspace, (d, k), and clients' noiseless examples."""
    draw = torch.Generator().manual_seed(5)
    basis, _ = torch.linalg.qr(torch.randn(D, K, generator=draw, dtype=torch.float64))
    clients = []
    for _ in range(CLIENTS):
        x = torch.randn(ROWS, D, generator=draw, dtype=torch.float64)
        head = torch.randn(K, 1, generator=draw, dtype=torch.float64)
        clients.append({"x": x, "y": x @ basis @ head})
    return basis, clients


def distance(model, basis):
    """Return the sine of the largest principal angle between the learnt and planted subspace."""
    learnt, _ = torch.linalg.qr(model[0].weight.T.double())
    return torch.linalg.matrix_norm(basis - learnt @ (learnt.T @ basis), ord=2).item()


@pytest.fixture(scope="module")
def distances():
    """Return by algorithm the distances at the start and after each of 40 rounds."""
    basis, clients = planted()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, K, bias=False), nn.Linear(K, 1, bias=False)).double()

    def run(algorithm):
        process = fm.process(algorithm, engine=fm.engines.vectorized())
        states = [process.initialize()]
        for _ in range(40):
            states.append(process.next(states[-1], clients)[0])
        return [distance(process.model(state), basis) for state in states]

    def work(epochs):
        objective = fm.regressor(model)
        return fm.local.sgd(objective, lr=0.1, batch_size=None, epochs=epochs)

    return {
        "fedrep": run(fm.fedrep(work(1), personal="1.*", head=10)),
        "fedavg": run(fm.fedavg(work(11))),
    }


def test_fedrep_finds_the_planted_subspace_where_fedavg_does_not(distances):
    assert distances["fedrep"][0] == distances["fedavg"][0] > 0.9
    assert distances["fedrep"][-1] < 1e-3
    assert distances["fedavg"][-1] > 0.4


def test_the_distance_falls_linearly(distances):
    fedrep = distances["fedrep"]

    # A line in the logarithm: each ten rounds take the same share of it, within a factor of 3.
    shares = [fedrep[end] / fedrep[end - 10] for end in (20, 30, 40)]
    assert max(shares) < 0.15
    assert max(shares) < 3 * min(shares)
