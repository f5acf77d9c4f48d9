"""IFCA: who takes which model, what becomes of it, and what is refused."""

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

F64 = torch.float64


class Target(nn.Module):
    """One number w, and a count of its training passes; the loss of a row x is (w - x)^2 / 2."""

    def __init__(self, w, passes=0):
        super().__init__()
        self.w = nn.Parameter(tensor([w], dtype=F64))
        self.register_buffer("passes", tensor(passes))

    def forward(self, x):
        if self.training:
            self.passes += 1
        return (self.w - x) ** 2 / 2


def work_of(model, **options):
    objective = fm.objective(model, lambda outputs, _: outputs[:, 0], target=None)
    return fm.local.sgd(objective, **{"lr": 0.5, **options})


def rows(*numbers):
    return {"x": tensor(numbers, dtype=F64)[:, None]}


def algorithm_of(*starts, **options):
    return fm.ifca(work_of(Target(9.0), **options), clusters=[Target(w) for w in starts])


def weights(snapshot):
    return snapshot.state["models"]["params"]["w"][:, 0].tolist()


def test_each_client_takes_and_trains_the_model_of_least_loss(one_round):
    clients = {0: rows(3.0), 1: rows(-1.0, -3.0), 2: rows(5.0)}

    snapshot, report = one_round(algorithm_of(0.0, 2.0, 40.0), clients)

    # 0 and 2 take 2 and go half of the way to 3 and 5, uniformly; 1 takes 0 and goes to -1.
    assert [snapshot.own[client]["cluster"].item() for client in clients] == [1, 0, 1]
    assert weights(snapshot) == [-1.0, (2.5 + 3.5) / 2, 40.0]
    assert snapshot.state["members"].tolist() == [1.0, 2.0, 0.0]
    assert report.answered == 3


def test_a_client_keeps_the_losses_of_all_models_over_all_of_its_examples(one_round):
    clients = {0: rows(1.0, 2.0, 3.0, 6.0)}

    snapshot, _ = one_round(algorithm_of(0.0, 2.0, batch_size=3, steps=1), clients)

    # (1 + 4 + 9 + 36) / 8 and (1 + 0 + 1 + 16) / 8, in batches of 3 and 1.
    assert snapshot.own[0]["losses"].tolist() == pytest.approx([50 / 8, 18 / 8], rel=1e-12)


def test_a_client_may_change_its_cluster(one_round):
    algorithm = algorithm_of(0.0, 4.0)
    clients = {0: rows(2.5), 1: rows(100.0)}

    snapshot, _ = one_round(algorithm, clients)
    following, _ = one_round(algorithm, clients, snapshot)

    # Both took 4, which the other one has taken along.
    assert [snapshot.own[client]["cluster"].item() for client in clients] == [1, 1]
    assert weights(snapshot)[1] == (3.25 + 52.0) / 2
    assert [following.own[client]["cluster"].item() for client in clients] == [0, 1]


def test_the_model_of_common_tests_is_that_of_most_clients(one_round):
    algorithm = algorithm_of(0.0, 10.0)
    clients = {0: rows(0.0), 1: rows(10.0), 2: rows(10.0)}

    snapshot, _ = one_round(algorithm, clients)
    following, _ = one_round(algorithm, clients, snapshot, asked=[0])

    assert algorithm.init()["params"]["w"].item() == 0.0
    assert snapshot.state["params"]["w"].item() == 10.0
    assert following.state["params"]["w"].item() == 0.0


def test_a_model_that_nobody_took_keeps_its_bits(one_round):
    algorithm = algorithm_of(-0.0, 4.0)

    snapshot, _ = one_round(algorithm, {0: rows(5.0)})

    kept = snapshot.state["models"]["params"]["w"][0]
    assert torch.signbit(kept).item()


def test_counts_are_averaged_in_their_cluster_and_rounded(one_round):
    starts = [Target(0.0, passes=100), Target(10.0, passes=7)]
    algorithm = fm.ifca(work_of(starts[0], batch_size=1), clusters=starts)
    clients = {0: rows(9.0), 1: rows(9.0, 9.0, 9.0, 9.0, 9.0), 2: rows(0.0, 0.0, 0.0)}

    snapshot, _ = one_round(algorithm, clients)

    passes = snapshot.state["models"]["counts"]["passes"]
    assert passes.dtype == torch.int64
    assert passes.tolist() == [103, 7 + 3]  # 3 steps; a mean of 1 and 5
    assert snapshot.state["counts"]["passes"].item() == 10


def test_transforms_of_the_work_see_the_chosen_model(one_round):
    starts = [Target(0.0), Target(10.0)]
    work = fm.local.proximal(work_of(starts[0], lr=0.25, steps=2), 1.0)

    snapshot, _ = one_round(fm.ifca(work, clusters=starts), {0: rows(14.0)})

    # 10 + 0.25 * 4 = 11, then 11 + 0.25 * (3 - 1): pulled to 10, not to the first model.
    assert weights(snapshot) == [0.0, 11.5]


def test_a_model_without_a_finite_loss_is_not_chosen(one_round):
    snapshot, _ = one_round(algorithm_of(float("nan"), 4.0), {0: rows(5.0)})

    assert snapshot.own[0]["cluster"].item() == 1


def test_results_tell_clusters_and_models_also_of_clients_never_asked():
    held = [rows(x) for x in (1.0, 9.0, 9.0, 1.0)]

    result = fm.run(
        algorithm_of(0.0, 10.0, lr=1.0),
        fm.data.from_datasets(held, held),
        rounds=1,
        sampling=lambda ids, round, draw: [0, 1, 2],
        engine=fm.engines.sequential(),
        progress=False,
    )

    # The last one has the model of most clients.
    assert [result.clients[client].model.w.item() for client in range(4)] == [1.0, 9.0, 9.0, 9.0]
    assert [result.clients[client].metrics["loss"] for client in range(4)] == [0.0, 0.0, 0.0, 32.0]
    assert result.model.w.item() == 9.0


def test_many_clients_at_once_choose_as_one_after_another_do():
    held = [rows(x, x + 1) for x in (1.0, 8.0, 3.0, 9.0)]

    one, many = (
        fm.run(algorithm_of(0.0, 10.0), held, rounds=2, engine=engine, progress=False)
        for engine in (fm.engines.sequential(), fm.engines.vectorized())
    )

    assert one.state["members"].tolist() == many.state["members"].tolist() == [2.0, 2.0]
    torch.testing.assert_close(one.state["models"], many.state["models"], rtol=1e-12, atol=0)


def test_first_models_are_the_work_s_with_noise_in_units_of_its_weights():
    model = nn.Linear(100, 10, bias=False)
    nn.init.constant_(model.weight, 3.0)
    work = fm.local.sgd(fm.classifier(model), lr=0.1)

    first, again, other = (
        fm.ifca(work, clusters=3, spread=0.1, seed=seed).init() for seed in (0, 0, 1)
    )

    models = first["models"]["params"]["weight"]
    assert models.shape == (3, 10, 100)
    # 1,000 draws: the deviation's own is 0.3 / sqrt(2000) = 0.007.
    for one in models:
        assert (one - 3.0).std().item() == pytest.approx(0.3, abs=0.03)
    assert trees.leaves(first["params"])[0].equal(models[0])
    assert models.equal(again["models"]["params"]["weight"])
    assert not models.equal(other["models"]["params"]["weight"])


def test_what_cannot_be_is_refused_before_any_client_is_asked():
    work = work_of(Target(0.0))

    with pytest.raises(SettingsError, match=r"ifca\(\) needs at least 2 models, but was given 1"):
        fm.ifca(work, clusters=1)
    with pytest.raises(SettingsError, match=r"at least 2 models, but was given -3"):
        fm.ifca(work, clusters=-3)
    with pytest.raises(SettingsError, match=r"models 0 and 1 with equal weights.* weights of 0"):
        fm.ifca(work, clusters=2)
    with pytest.raises(SettingsError, match="models 1 and 2 with equal weights"):
        fm.ifca(work, clusters=[Target(0.0), Target(1.0), Target(1.0)])
    with pytest.raises(SettingsError, match="spread must be a finite number above 0"):
        fm.ifca(work, clusters=2, spread=0.0)
    with pytest.raises(SettingsError, match="needs modules, but one is a float"):
        fm.ifca(work, clusters=[Target(0.0), 1.0])
    with pytest.raises(SettingsError, match="like the work's, but in one leaf params/w is missing"):
        fm.ifca(work, clusters=[Target(0.0), nn.Linear(1, 1)])
    with pytest.raises(SettingsError, match="a number of models, or a list of modules"):
        fm.ifca(work, clusters="two")
    with pytest.raises(SettingsError, match=r"ifca\(\) needs local work"):
        fm.ifca(Target(0.0), clusters=2)


def test_personal_leaves_beside_own_models_are_refused_either_way():
    work = work_of(Target(0.0))

    with pytest.raises(SettingsError, match=r"ifca\(\) gives each client .* have one already"):
        fm.ifca(fm.local.personal(work, "w"), clusters=[Target(0.0), Target(1.0)])
    with pytest.raises(SettingsError, match=r"personal\(\) gives each client .* have one already"):
        fm.run(algorithm_of(0.0, 1.0), [rows(1.0)], rounds=1, personal="w", progress=False)
