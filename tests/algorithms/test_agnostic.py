"""Agnostic federated learning: the weight of each client, which the server never knows."""

import math

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.algorithms.agnostic import MOST
from folkmoot.core.errors import SettingsError
from folkmoot.local.personal import personalize


@pytest.fixture
def clients(pull):
    """At w = 2 and by a step of 0.1: losses 2 and 6, deltas -0.1 and -0.3."""
    return {0: pull([1.0]), 1: pull([3.0], rows=2)}


@pytest.fixture
def build(line):
    def of(lambda_lr=0.5, w=2.0, server=None, **options):
        work = fm.local.sgd(line(w), **{"lr": 0.1, "batch_size": None, **options})
        return fm.agnostic(work, lambda_lr=lambda_lr, server=server)

    return of


def w_of(snapshot):
    return snapshot.state["params"]["w"].item()


def log_weights(snapshot):
    return {client: own["log_weight"].item() for client, own in snapshot.own.items()}


def test_in_the_first_round_every_client_counts_the_same(build, clients, one_round):
    snapshot, _ = one_round(build(), clients)

    assert w_of(snapshot) == pytest.approx(2 - (0.1 + 0.3) / 2)
    assert snapshot.state["value"].item() == pytest.approx((2 + 6) / 2)
    assert log_weights(snapshot) == {0: 0.0, 1: 0.0}


def test_weights_grow_by_the_loss_above_the_last_round_s(build, clients, one_round):
    algorithm = build()
    first, _ = one_round(algorithm, clients)

    second, _ = one_round(algorithm, clients, first)

    # At w = 1.8 losses are 1.8 and 5.4; the cohort's was 4.
    assert log_weights(second) == pytest.approx({0: 0.5 * (1.8 - 4), 1: 0.5 * (5.4 - 4)}, rel=1e-6)
    worse = 1 / (1 + math.exp(-1.1 - 0.7))
    assert w_of(second) == pytest.approx(1.8 - 0.1 * (1 - worse) - 0.3 * worse, rel=1e-6)
    assert second.state["value"].item() == pytest.approx(1.8 * (1 - worse) + 5.4 * worse, rel=1e-6)


def test_with_a_rate_of_0_it_is_fedavg_over_clients(build, clients, one_round):
    ours = build(0.0, epochs=2, batch_size=1)
    plain = fm.fedavg(ours.works[0].plain, aggregator=fm.aggregators.uniform_mean())
    left = right = None

    for _ in range(3):
        left, _ = one_round(ours, clients, left)
        right, _ = one_round(plain, clients, right)

    assert w_of(left) == pytest.approx(w_of(right), rel=1e-6)


def test_a_client_that_is_asked_late_begins_at_the_cohort_s_value(build, clients, one_round):
    algorithm = build()
    first, _ = one_round(algorithm, clients, asked=[1])

    second, _ = one_round(algorithm, clients, first)

    # Client 1 alone brings w to 1.7, and the value is its loss of 6.
    assert log_weights(second) == pytest.approx({0: 0.5 * (1.7 - 6), 1: 0.5 * (5.1 - 6)}, rel=1e-6)


def test_a_weight_stays_within_its_range(build, clients, one_round):
    algorithm, snapshot = build(1000.0), None

    for _ in range(2):
        snapshot, _ = one_round(algorithm, clients, snapshot)

    assert log_weights(snapshot) == {0: -MOST, 1: MOST}
    assert w_of(snapshot) == pytest.approx(1.8 - 0.3, rel=1e-6)


def test_without_steps_no_weight_moves(build, clients, one_round):
    algorithm, snapshot = build(steps=0), None

    for _ in range(3):
        snapshot, _ = one_round(algorithm, clients, snapshot)

    assert log_weights(snapshot) == {0: 0.0, 1: 0.0}


def test_weights_go_on_under_personal_leaves(one_round):
    torch.manual_seed(0)
    objective = fm.classifier(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)))
    work = fm.local.sgd(objective, lr=0.1, batch_size=2)
    algorithm = personalize(fm.agnostic(work, lambda_lr=0.5), "2.*")
    data = {
        client: {"x": torch.randn(4, 2), "y": torch.full((4,), client % 2)} for client in range(3)
    }
    snapshot = None

    for _ in range(2):
        snapshot, _ = one_round(algorithm, data, snapshot)

    assert set(snapshot.state["params"]) == {"0.weight", "0.bias"}
    assert all(set(own) == {"log_weight", "kept"} for own in dict(snapshot.own.items()).values())
    assert all(number != 0.0 for number in log_weights(snapshot).values())


def test_what_agnostic_cannot_do_is_refused(build):
    with pytest.raises(SettingsError, match="lambda_lr must be"):
        build(-0.1)
    with pytest.raises(SettingsError, match="server must be an optimizer"):
        build(server="adam")
    with pytest.raises(SettingsError, match="a Linear"):
        fm.agnostic(nn.Linear(1, 1), lambda_lr=0.1)
