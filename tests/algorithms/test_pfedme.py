"""pFedMe: how theta and w move, what a client is judged by, and what is refused."""

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core.errors import SettingsError

F64 = torch.float64


def test_w_follows_theta_batch_by_batch(line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=2)
    algorithm = fm.pfedme(work, lam=1.0, lr=0.5, inner_steps=2)

    snapshot, _ = one_round(algorithm, {0: pull(2.0, dtype=F64)})

    # theta: 0 - 0.5 * 2 = -1, then -1 - 0.5 * (2 - 1) = -1.5; w: 0.5 * -1.5 = -0.75.
    # theta: -1.5 - 0.5 * (2 - 0.75) = -2.125, then -2.125 - 0.5 * (2 - 1.375) = -2.4375;
    # w: -0.75 + 0.5 * (-2.4375 + 0.75) = -1.59375.
    assert snapshot.own[0]["theta"]["params"]["w"].item() == -2.4375
    assert snapshot.state["params"]["w"].item() == -1.59375


def test_theta_begins_at_the_broadcast_model_in_each_round(line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=1)
    algorithm = fm.pfedme(work, lam=1.0, lr=1.0, inner_steps=1)
    clients = {0: pull(2.0, dtype=F64), 1: pull(-2.0, dtype=F64)}

    snapshot, _ = one_round(algorithm, clients)
    snapshot, _ = one_round(algorithm, clients, snapshot)

    # Both rounds begin at 0, as the two cancel out.
    assert snapshot.own[0]["theta"]["params"]["w"].item() == -1.0


def test_the_server_s_beta_is_its_learning_rate(line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=1)
    clients = {0: pull(2.0, rows=9, dtype=F64), 1: pull(4.0, dtype=F64)}
    beta = fm.optimizers.sgd(2.0)

    snapshot, _ = one_round(fm.pfedme(work, lam=0.5, lr=1.0, inner_steps=1, server=beta), clients)

    # theta = -1 and -2, w_i = -0.5 and -1; their uniform mean is -0.75.
    assert snapshot.state["params"]["w"].item() == 2 * -0.75


def test_a_batch_counts_once_in_batch_statistics(one_round):
    model = nn.Sequential(nn.BatchNorm1d(1, momentum=0.5), nn.Linear(1, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=None)
    rows = {"x": tensor([[1.0], [3.0]]), "y": tensor([0, 1])}

    snapshot, _ = one_round(fm.pfedme(work, lam=1.0, lr=0.1, inner_steps=4), {0: rows})

    assert snapshot.state["counts"]["0.num_batches_tracked"] == 1
    assert snapshot.state["buffers"]["0.running_mean"] == 1.0  # half of the mean, 2
    assert snapshot.own[0]["theta"]["buffers"]["0.running_mean"] == 1.0


def test_results_are_of_theta(line, pull):
    work = fm.local.sgd(line(0.0), lr=0.5, steps=1)
    clients = fm.data.from_datasets([pull(2.0), pull(-2.0)], [pull(1.0), pull(1.0)])

    result = fm.run(
        fm.pfedme(work, lam=1.0, lr=0.5, inner_steps=1),
        clients,
        rounds=1,
        engine=fm.engines.sequential(),
        progress=False,
    )

    assert [result.clients[client].model.w.item() for client in (0, 1)] == [-1.0, 1.0]
    assert [result.clients[client].metrics["loss"] for client in (0, 1)] == [-1.0, 1.0]


def test_what_cannot_be_is_refused_before_any_client_is_asked(line, pull):
    work = fm.local.sgd(line(0.0), lr=0.1)

    with pytest.raises(SettingsError, match="lam must be a finite number above 0, but is 0"):
        fm.pfedme(work, lam=0, lr=0.1)
    with pytest.raises(SettingsError, match="lr must be a finite number of at least 0, but is -1"):
        fm.pfedme(work, lam=1.0, lr=-1)
    with pytest.raises(SettingsError, match="inner_steps must be a whole number of at least 1"):
        fm.pfedme(work, lam=1.0, lr=0.1, inner_steps=2.5)
    with pytest.raises(SettingsError, match="writes its own step"):
        fm.pfedme(work._replace(correct=None), lam=1.0, lr=0.1)
    with pytest.raises(SettingsError, match=r"pfedme\(\) gives each client .* have one already"):
        fm.pfedme(fm.local.personal(work, "w"), lam=1.0, lr=0.1)
    with pytest.raises(SettingsError, match=r"personal\(\) gives each client .* have one already"):
        fm.run(fm.pfedme(work, lam=1, lr=1), [pull(1.0)], rounds=1, personal="w", progress=False)
