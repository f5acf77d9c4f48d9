"""APFL's claim (2020): alpha goes from FedAvg to local training, and grows where clients differ."""

import pytest
from papers.quadratics import client, quadratic, weighted

import folkmoot as fm
from folkmoot.core import tree as trees

A, B = (1.0, 2.0, 4.0), (-4.0, 1.0, 2.0)
CLIENTS = {number: client(a, b) for number, (a, b) in enumerate(zip(A, B, strict=True))}


def after(algorithm, one_round, rounds, clients=CLIENTS):
    """Return the last snapshot, and each client's mixture."""
    snapshot = None
    for _ in range(rounds):
        snapshot, _ = one_round(algorithm, clients, snapshot)
    model = algorithm.works[0].model
    mixed = [
        model(snapshot.state, snapshot.own[number])["params"]["w"].item() for number in clients
    ]
    return snapshot, mixed


def test_without_own_models_it_is_fedavg(one_round):
    work = fm.local.sgd(quadratic(), lr=0.4, steps=1)

    snapshot, mixed = after(fm.apfl(work, alpha=0.0), one_round, 15)
    plain, _ = one_round(fm.fedavg(work), CLIENTS)
    first, _ = one_round(fm.apfl(work, alpha=0.0), CLIENTS)

    assert trees.leaves(first.state["params"]) == trees.leaves(plain.state["params"])
    assert mixed == pytest.approx([weighted(A, B)] * 3, abs=1e-9)
    assert snapshot.own[0]["twin"]["params"]["w"].item() == 0.0


@pytest.mark.parametrize(("alpha", "rounds"), [(0.5, 120), (1.0, 40)])
def test_a_mixture_comes_to_its_client_s_own_optimum(alpha, rounds, one_round):
    work = fm.local.sgd(quadratic(), lr=0.4, steps=1)

    snapshot, mixed = after(fm.apfl(work, alpha=alpha), one_round, rounds)

    w = snapshot.state["params"]["w"].item()
    assert w == pytest.approx(weighted(A, B), abs=1e-9)
    assert mixed == pytest.approx(B, abs=1e-4)
    for number, b in enumerate(B):
        # alpha v + (1 - alpha) w = b.
        own = snapshot.own[number]["twin"]["params"]["w"].item()
        assert own == pytest.approx((b - (1 - alpha) * w) / alpha, abs=1e-4)


def test_an_adaptive_share_grows_with_the_distance_from_the_others(one_round):
    clients = {number: client(1.0, b) for number, b in enumerate((-3.0, 0.0, 2.0, 1.0))}
    work = fm.local.sgd(quadratic(), lr=0.1, steps=2)

    snapshot, _ = after(fm.apfl(work, alpha=0.1, alpha_lr=0.01), one_round, 20, clients)

    far, middle, near, nearer = (snapshot.own[number]["twin"]["alpha"].item() for number in clients)
    # The global optimum, and the first model, are 0.
    assert middle == pytest.approx(0.1, abs=1e-9)
    assert far > near > nearer > 0.1
