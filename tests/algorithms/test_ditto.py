"""Ditto: how a client's own model moves, what it is judged by, and what is refused."""

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

F64 = torch.float64


def own_of(snapshot, client=0):
    return snapshot.own[client]["twin"]["params"]["w"].item()


def test_the_own_model_is_pulled_to_the_broadcast_one_at_each_step(line, pull, one_round):
    work = fm.local.sgd(line(1.0, F64), lr=0.5, steps=2)

    snapshot, _ = one_round(fm.ditto(work, lam=1.0), {0: pull(2.0, dtype=F64)})

    # 1 - 0.5 * 2 = 0, then 0 - 0.5 * (2 + (0 - 1)) = -0.5; w goes 1 - 2 * 0.5 * 2 = -1.
    assert own_of(snapshot) == -0.5
    assert snapshot.state["params"]["w"].item() == -1.0


def test_the_global_model_has_fedavg_s_bits(line, pull, one_round):
    work = fm.local.sgd(line(1.0), lr=0.3, epochs=2, momentum=0.5)
    clients = {0: pull(2.0, rows=3), 1: pull(-0.7, rows=2)}

    ditto, _ = one_round(fm.ditto(work, lam=0.7), clients)
    fedavg, _ = one_round(fm.fedavg(work), clients)

    assert trees.leaves(ditto.state) == trees.leaves(fedavg.state)


def test_the_own_model_goes_on_from_round_to_round(line, pull, one_round):
    algorithm = fm.ditto(fm.local.sgd(line(0.0, F64), lr=0.5, steps=1), lam=0.0)
    clients = {0: pull(2.0, dtype=F64), 1: pull(-2.0, dtype=F64)}

    snapshot, _ = one_round(algorithm, clients)
    snapshot, _ = one_round(algorithm, clients, snapshot)

    # The two cancel out in w; alone they go 0.5 * 2 a round.
    assert snapshot.state["params"]["w"].item() == 0.0
    assert (own_of(snapshot, 0), own_of(snapshot, 1)) == (-2.0, 2.0)


def test_a_client_that_is_first_asked_late_begins_at_the_model_of_that_round(line, pull, one_round):
    algorithm = fm.ditto(fm.local.sgd(line(0.0, F64), lr=0.5, steps=1), lam=0.0)
    clients = {0: pull(2.0, dtype=F64), 1: pull(-4.0, dtype=F64)}

    snapshot, _ = one_round(algorithm, clients, asked=[0])
    snapshot, _ = one_round(algorithm, clients, snapshot, asked=[1])

    assert own_of(snapshot, 1) == -1.0 + 0.5 * 4


def test_the_optimizer_of_the_own_model_has_a_state_of_its_own(line, pull, one_round):
    work = fm.local.descent(line(0.0, F64), fm.optimizers.sgd(1.0, momentum=0.5), steps=2)

    snapshot, _ = one_round(fm.ditto(work, lam=2.0), {0: pull(1.0, dtype=F64)})

    # v: -1 with velocity 1; then the gradient is 1 + 2 * -1 = -1, velocity -0.5: -0.5.
    # w: -1 with velocity 1; then velocity 1.5: -2.5.
    assert own_of(snapshot) == -0.5
    assert snapshot.state["params"]["w"].item() == -2.5


def test_batch_statistics_of_the_own_model_are_its_own(one_round):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Linear(1, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.5, epochs=4, batch_size=None)
    rows = {"x": tensor([[1.0], [2.0], [4.0]]), "y": tensor([0, 1, 0])}

    snapshot, _ = one_round(fm.ditto(work, lam=5.0), {0: rows})

    own = snapshot.own[0]["twin"]
    assert own["counts"]["1.num_batches_tracked"] == 4
    assert snapshot.state["counts"]["1.num_batches_tracked"] == 4
    assert own["buffers"]["1.running_mean"] != snapshot.state["buffers"]["1.running_mean"]


class Shifting(nn.Module):
    """Writes into its inputs."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.add_(1.0) * self.w


def test_both_models_see_the_same_rows_though_one_writes_into_them(one_round):
    objective = fm.objective(Shifting(), lambda outputs, _: outputs.sum(1), target=None)
    work = fm.local.sgd(objective, lr=1.0)

    snapshot, _ = one_round(fm.ditto(work, lam=0.0), {0: {"x": tensor([[1.0]])}})

    assert own_of(snapshot) == snapshot.state["params"]["w"].item() == -2.0


def test_clients_tests_and_results_are_of_their_own_models(line, pull):
    work = fm.local.sgd(line(0.0), lr=0.5, steps=1)
    # One is never asked, and has the global model.
    clients = fm.data.from_datasets([pull(g) for g in (2.0, -2.0, 4.0)], [pull(1.0)] * 3)

    result = fm.run(
        fm.ditto(work, lam=0.0),
        clients,
        rounds=1,
        sampling=lambda ids, round, draw: [0, 1],
        engine=fm.engines.sequential(),
        progress=False,
    )

    models = [result.clients[client].model.w.item() for client in range(3)]
    assert models == [-1.0, 1.0, 0.0]
    assert [result.clients[client].metrics["loss"] for client in range(3)] == models
    assert result.model.w.item() == 0.0


def test_what_cannot_be_is_refused_before_any_client_is_asked(line):
    work = fm.local.sgd(line(0.0), lr=0.1)

    with pytest.raises(SettingsError, match="lam must be a finite number of at least 0, but is -1"):
        fm.ditto(work, lam=-1)
    with pytest.raises(SettingsError, match=r"ditto\(\) needs local work"):
        fm.ditto(line(0.0), lam=0.1)
    with pytest.raises(SettingsError, match="writes its own step"):
        fm.ditto(work._replace(correct=None), lam=0.0)
    with pytest.raises(SettingsError, match="server must be an optimizer"):
        fm.ditto(work, lam=0.1, server=0.1)


def test_personal_leaves_beside_own_models_are_refused_either_way(line, pull):
    work = fm.local.sgd(line(0.0), lr=0.1)

    with pytest.raises(SettingsError, match=r"ditto\(\) gives each client .* have one already"):
        fm.ditto(fm.local.personal(work, "w"), lam=0.1)
    with pytest.raises(SettingsError, match=r"personal\(\) gives each client .* one already. Use"):
        fm.run(fm.ditto(work, lam=0.1), [pull(1.0)], rounds=1, personal="w", progress=False)
