"""Mime's claim (NeurIPS 2021, section 4): local steps that drift nowhere, with any optimizer."""

import pytest
from papers.quadratics import client, quadratic, shrinks, trained, weighted

import folkmoot as fm

LR, STEPS = 0.1, 10
A, B = (1.0, 4.0), (0.0, 1.0)
CLIENTS = [client(a, b) for a, b in zip(A, B, strict=True)]
OPTIMUM = weighted(A, B)  # The gradients a (w - b) add up to 0.
STALLED = weighted([shrinks(LR, a, STEPS) for a in A], B)  # The local moves add up to 0.
# Corrected, every client moves by -c (1 - (1 - lr a)^steps) / a with c the mean gradient, which is
# the mean a times the distance to the optimum.
RATE = 1 - sum(A) / 2 * sum(shrinks(LR, a, STEPS) / a for a in A) / 2


def work(**options):
    return fm.local.sgd(quadratic(), **{"lr": LR, "steps": STEPS, **options})


def test_fedavg_and_mimelite_stall_where_local_moves_cancel():
    assert abs(STALLED - OPTIMUM) > 0.15
    for build in (fm.fedavg, fm.mimelite):
        assert trained(build(work()), CLIENTS, rounds=30) == pytest.approx(STALLED, rel=1e-9)


def test_mime_s_distance_to_the_optimum_falls_by_the_rate_of_its_quadratic():
    for rounds in (1, 3, 25):
        left = OPTIMUM * RATE**rounds
        found = trained(fm.mime(work()), CLIENTS, rounds)
        assert OPTIMUM - found == pytest.approx(left, rel=1e-9, abs=1e-12)


def test_mime_reaches_it_with_momentum():
    local = work(lr=0.02, momentum=0.5)

    assert trained(fm.mime(local), CLIENTS, rounds=60) == pytest.approx(OPTIMUM, abs=1e-6)
