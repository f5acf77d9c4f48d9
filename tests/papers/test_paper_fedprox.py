"""FedProx's claim (MLSys 2020, equation 2): a client's work is a step of the proximal point."""

import pytest
from papers.quadratics import client, quadratic, shrinks, trained, weighted

import folkmoot as fm

A, B = (0.2, 1.0, 3.0), (-4.0, 1.0, 2.0)
CLIENTS = [client(a, b) for a, b in zip(A, B, strict=True)]


def prox(mu, w=0.0, lr=0.2, steps=150):
    return fm.fedprox(fm.local.sgd(quadratic(w), lr=lr, steps=steps), mu=mu)


@pytest.mark.parametrize("mu", [0.1, 1.0, 5.0])
def test_many_local_steps_reach_the_minimum_of_the_pulled_loss(mu):
    # argmin of a / 2 (w - b)^2 + mu / 2 (w - w0)^2.
    w0 = 6.0
    for a, b, rows in zip(A, B, CLIENTS, strict=True):
        found = trained(prox(mu, w0), [rows], rounds=1)

        assert found == pytest.approx((a * b + mu * w0) / (a + mu), abs=1e-3)


def test_its_fixed_point_lies_between_fedavg_s_and_the_optimum():
    mu, lr, steps = 1.0, 0.2, 12

    # Of the way to the pulled minimum, a / (a + mu) (b - w), steps go a share.
    moves = [a / (a + mu) * shrinks(lr, a + mu, steps) for a in A]
    fixed, optimum = weighted(moves, B), weighted(A, B)
    of_fedavg = weighted([shrinks(lr, a, steps) for a in A], B)

    found = trained(prox(mu, lr=lr, steps=steps), CLIENTS, rounds=25)

    assert found == pytest.approx(fixed, abs=1e-4)
    assert of_fedavg < fixed < optimum
