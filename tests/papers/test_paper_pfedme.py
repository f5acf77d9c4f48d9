"""pFedMe's claim (NeurIPS 2020): w minimises the mean of envelopes, theta is its proximal point."""

import pytest
from papers.quadratics import client, quadratic, weighted

import folkmoot as fm

A, B, LAM = (1.0, 2.0, 4.0), (-4.0, 1.0, 2.0), 1.0
CLIENTS = {number: client(a, b) for number, (a, b) in enumerate(zip(A, B, strict=True))}


def test_the_models_are_the_envelopes_optimum_and_its_proximal_points(one_round):
    work = fm.local.sgd(quadratic(), lr=0.2, steps=1)
    algorithm, snapshot = fm.pfedme(work, lam=LAM, lr=1.0, inner_steps=40), None

    for _ in range(20):
        snapshot, _ = one_round(algorithm, CLIENTS, snapshot)

    # The envelope of a / 2 (w - b)^2 is the parabola of steepness a lam / (a + lam) around b.
    w = weighted([a * LAM / (a + LAM) for a in A], B)
    assert snapshot.state["params"]["w"].item() == pytest.approx(w, abs=1e-8)
    for number, (a, b) in enumerate(zip(A, B, strict=True)):
        theta = snapshot.own[number]["theta"]["params"]["w"].item()
        assert theta == pytest.approx((a * b + LAM * w) / (a + LAM), abs=1e-8)
