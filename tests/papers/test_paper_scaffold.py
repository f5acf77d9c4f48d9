"""SCAFFOLD's claim (ICML 2020, section 4): heterogeneity does not move its fixed point."""

import pytest
from papers.quadratics import client, quadratic, shrinks, trained, weighted

import folkmoot as fm

LR, STEPS = 0.2, 8
A, B = (0.2, 1.0, 3.0), (-4.0, 1.0, 2.0)
CLIENTS = [client(a, b) for a, b in zip(A, B, strict=True)]
OPTIMUM = weighted(A, B)  # The gradients a (w - b) add up to 0.
STALLED = weighted([shrinks(LR, a, STEPS) for a in A], B)  # The local moves add up to 0.


def one_by_one(number):
    return (number % 3,)


def work():
    return fm.local.sgd(quadratic(), lr=LR, steps=STEPS)


def test_fedavg_stalls_where_local_moves_cancel():
    found = trained(fm.fedavg(work()), CLIENTS, rounds=25)

    assert found == pytest.approx(STALLED, abs=1e-9)
    assert abs(STALLED - OPTIMUM) > 0.6


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_reaches_the_optimum(option):
    found = trained(fm.scaffold(work(), option=option), CLIENTS, rounds=35)

    assert found == pytest.approx(OPTIMUM, abs=1e-5)


def test_scaffold_reaches_it_where_one_of_three_clients_answers_at_a_time():
    found = trained(fm.scaffold(work()), CLIENTS, rounds=90, asked=one_by_one)

    assert found == pytest.approx(OPTIMUM, abs=1e-6)


def test_scaffold_reaches_it_with_momentum_in_the_local_steps():
    local = fm.local.sgd(quadratic(), lr=0.05, steps=STEPS, momentum=0.9)

    assert trained(fm.scaffold(local), CLIENTS, rounds=40) == pytest.approx(OPTIMUM, abs=1e-6)
