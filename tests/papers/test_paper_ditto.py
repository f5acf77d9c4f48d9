"""Ditto's claim (ICML 2021): lambda goes from local training to the global model."""

import pytest
from papers.quadratics import client, quadratic

import folkmoot as fm

A, B = (1.0, 2.0, 4.0), (-4.0, 1.0, 2.0)
CLIENTS = {number: client(a, b) for number, (a, b) in enumerate(zip(A, B, strict=True))}


@pytest.mark.parametrize("lam", [0.0, 0.5, 4.0])
def test_a_client_s_own_model_is_the_mean_of_its_optimum_and_the_global_model(lam, one_round):
    algorithm, snapshot = fm.ditto(fm.local.sgd(quadratic(), lr=0.2, steps=5), lam=lam), None

    for _ in range(30):
        snapshot, _ = one_round(algorithm, CLIENTS, snapshot)

    w = snapshot.state["params"]["w"].item()
    for number, (a, b) in enumerate(zip(A, B, strict=True)):
        # a (v - b) + lam (v - w) = 0.
        own = snapshot.own[number]["twin"]["params"]["w"].item()
        assert own == pytest.approx((a * b + lam * w) / (a + lam), abs=1e-9)
