"""FedDyn: two memories, what moves them, and what is refused."""

import pytest
import torch
from torch import tensor

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.local.personal import personalize

F64 = torch.float64


def w_of(snapshot):
    return snapshot.state["params"]["w"].item()


def memory_of(snapshot, client):
    return snapshot.own[client]["memory"]["w"].item()


def test_two_rounds_of_two_clients_are_as_worked_by_hand(line, pull, one_round):
    algorithm = fm.feddyn(fm.local.sgd(line(0.0, F64), lr=0.5, steps=2), alpha=0.5)
    clients = {0: pull(1.0, dtype=F64), 1: pull(-3.0, dtype=F64)}

    first, _ = one_round(algorithm, clients)

    # Client 0: -0.5 * 1, then -0.5 * (1 + 0.5 * -0.5): delta -0.875. Client 1: three times, +2.625.
    # h = -0.5 * 0.875; x = 0.875 - h / 0.5 = 1.75. Memories: -0.5 * delta.
    assert w_of(first) == pytest.approx(1.75, rel=1e-12)
    assert first.state["memory"]["w"].item() == pytest.approx(-0.4375, rel=1e-12)
    assert memory_of(first, 0) == pytest.approx(0.4375, rel=1e-12)
    assert memory_of(first, 1) == pytest.approx(-1.3125, rel=1e-12)

    second, _ = one_round(algorithm, clients, first, asked=[0])

    # Gradient 1 - 0.4375 = 0.5625: delta -0.28125, then -0.5 * (0.5625 - 0.5 * 0.28125), in all
    # -0.4921875. h += 0.5 * (1 / 2) * 0.4921875 = -0.314453125; x = 1.75 - 0.4921875 + 0.62890625.
    assert w_of(second) == pytest.approx(1.75 - 0.4921875 + 0.62890625, rel=1e-12)
    assert second.state["memory"]["w"].item() == pytest.approx(-0.314453125, rel=1e-12)
    assert memory_of(second, 0) == pytest.approx(0.4375 + 0.5 * 0.4921875, rel=1e-12)
    assert memory_of(second, 1) == memory_of(first, 1)


def test_a_step_of_the_user_s_own_has_both_terms(line, pull, one_round):
    def step(work, sent, carry, batch):
        params = carry["params"]
        gradient, _ = work.objective.grad(params, carry["buffers"], carry["counts"], batch)
        trees.axpy_(params, -0.5, work.correct(gradient, params, sent, carry["own"]))
        return carry

    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=2).changed(step=step, optimizer=None)

    first, _ = one_round(fm.feddyn(work, alpha=0.5), {0: pull(1.0, dtype=F64)})

    # Delta -0.875 as above, and once more by the server's memory.
    assert w_of(first) == pytest.approx(-1.75, rel=1e-12)


def test_clients_count_the_same_whatever_they_hold(line, pull, one_round):
    algorithm = fm.feddyn(fm.local.sgd(line(), lr=0.5), alpha=1.0)

    snapshot, _ = one_round(algorithm, {0: pull(1.0, rows=9), 1: pull(-2.0, rows=1)})

    # Mean delta 0.25, and once more by the server's memory.
    assert w_of(snapshot) == 0.5


@pytest.mark.parametrize("idle", [{"steps": 0}, {"epochs": 0}, {"lr": 0.0}], ids=str)
def test_without_local_work_no_memory_moves(idle, line, pull, one_round):
    algorithm = fm.feddyn(fm.local.sgd(line(2.5), **{"lr": 0.1, **idle}), alpha=0.1)

    snapshot = None
    for _ in range(2):
        snapshot, report = one_round(algorithm, {0: pull(1.0), 1: pull(3.0)}, snapshot)
        assert report.left_out == []

    assert w_of(snapshot) == 2.5
    assert snapshot.state["memory"]["w"].item() == 0
    assert [memory_of(snapshot, client) for client in (0, 1)] == [0, 0]


def test_a_client_without_a_step_keeps_its_memory(line, pull, one_round):
    clients = {0: pull(1.0), 1: pull(3.0)}
    busy, _ = one_round(fm.feddyn(fm.local.sgd(line(), lr=0.1), alpha=0.1), clients)

    still = fm.feddyn(fm.local.sgd(line(), lr=0.1, steps=0), alpha=0.1)
    after, _ = one_round(still, clients, busy)

    assert [memory_of(after, c) for c in (0, 1)] == [memory_of(busy, c) for c in (0, 1)]
    assert torch.equal(after.state["memory"]["w"], busy.state["memory"]["w"])


def test_nothing_travels_but_the_model(line, pull, one_round):
    plain = fm.local.sgd(line(), lr=0.1)

    _, dyn = one_round(fm.feddyn(plain, alpha=0.1), {0: pull(1.0)})
    _, avg = one_round(fm.fedavg(plain), {0: pull(1.0)})

    assert (dyn.upload_bytes, dyn.download_bytes) == (avg.upload_bytes, avg.download_bytes)


def test_memories_have_no_personal_leaves(one_round):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    data = {"x": torch.ones(4, 2), "y": tensor([0, 1, 1, 0])}
    work = fm.local.sgd(fm.classifier(model), lr=0.1)
    algorithm = personalize(fm.feddyn(work, alpha=0.1), "1.*")

    snapshot = None
    for _ in range(2):
        snapshot, _ = one_round(algorithm, {0: data, 1: data}, snapshot)

    assert set(snapshot.state["memory"]) == {"0.weight", "0.bias"}
    assert set(snapshot.own[0]["memory"]) == {"0.weight", "0.bias"}
    assert trees.norm(snapshot.own[0]["memory"]) > 0


@pytest.mark.parametrize("alpha", [0.0, -0.1, float("nan"), float("inf"), "0.1"])
def test_an_alpha_out_of_range_is_refused(alpha, line):
    with pytest.raises(SettingsError, match="alpha must be a finite number above 0"):
        fm.feddyn(fm.local.sgd(line(), lr=0.1), alpha=alpha)


def test_work_and_aggregators_that_do_not_fit_are_refused(line):
    with pytest.raises(SettingsError, match="'evaluate' writes its own step"):
        fm.feddyn(fm.local.evaluate(line()), alpha=0.1)
    with pytest.raises(SettingsError, match=r"feddyn\(\) needs local work"):
        fm.feddyn(line(), alpha=0.1)
    with pytest.raises(SettingsError, match=r"feddyn\(\) needs the mean over clients"):
        total = fm.aggregators.total()
        fm.feddyn(fm.local.sgd(line(), lr=0.1), alpha=0.1, aggregator=total)
