"""FedDyn's claim (ICLR 2021): where it stands still, the global loss is least."""

import pytest
from papers.quadratics import client, quadratic, shrinks, trained, weighted

import folkmoot as fm

LR, STEPS = 0.2, 8
A, B = (0.2, 1.0, 3.0), (-4.0, 1.0, 2.0)
CLIENTS = [client(a, b) for a, b in zip(A, B, strict=True)]
OPTIMUM = weighted(A, B)


def work(steps=STEPS):
    return fm.local.sgd(quadratic(), lr=LR, steps=steps)


def test_feddyn_comes_to_the_optimum_where_fedavg_does_not():
    stalled = weighted([shrinks(LR, a, STEPS) for a in A], B)

    found = trained(fm.feddyn(work(), alpha=1.0), CLIENTS, rounds=50)

    assert found == pytest.approx(OPTIMUM, abs=1e-4)
    assert trained(fm.fedavg(work()), CLIENTS, rounds=25) == pytest.approx(stalled, abs=1e-9)
    assert abs(stalled - OPTIMUM) > 0.6


def test_feddyn_comes_there_with_one_of_three_clients_at_a_time():
    found = trained(
        fm.feddyn(work(), alpha=1.0), CLIENTS, rounds=100, asked=lambda number: (number % 3,)
    )

    assert found == pytest.approx(OPTIMUM, abs=1e-4)


def test_with_exact_local_minima_a_round_is_the_paper_s(one_round):
    # Theta_i = (a b + g_i + alpha theta) / (a + alpha); g_i' = a (theta_i - b), the gradient there.
    alpha, theta, h, memory = 0.5, 0.0, 0.0, [0.0] * 3
    algorithm, snapshot = fm.feddyn(work(steps=200), alpha=alpha), None
    clients = dict(enumerate(CLIENTS))

    for _ in range(4):
        snapshot, _ = one_round(algorithm, clients, snapshot)
        ends = [
            (a * b + g + alpha * theta) / (a + alpha) for a, b, g in zip(A, B, memory, strict=True)
        ]
        memory = [a * (end - b) for a, b, end in zip(A, B, ends, strict=True)]
        h -= alpha * (sum(ends) / 3 - theta)
        theta = sum(ends) / 3 - h / alpha

        assert snapshot.state["params"]["w"].item() == pytest.approx(theta, abs=1e-9)
        for number, gradient in enumerate(memory):
            found = snapshot.own[number]["memory"]["w"].item()
            assert found == pytest.approx(gradient, abs=1e-9)
