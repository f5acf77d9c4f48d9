"""q-FedAvg: how much each client counts, and what a loss of nothing does."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError


@pytest.fixture
def clients(pull):
    """At w = 2 and by a step of 0.1: losses 2 and 6, deltas -0.1 and -0.3, and L = 10."""
    return {0: pull([1.0]), 1: pull([3.0], rows=2)}


@pytest.fixture
def build(line):
    def of(w=2.0, server=None, aggregator=None, lipschitz=None, q=1.0, **options):
        work = fm.local.sgd(line(w), **{"lr": 0.1, "batch_size": None, **options})
        return fm.qfedavg(work, q=q, lipschitz=lipschitz, server=server, aggregator=aggregator)

    return of


def w_of(snapshot):
    return snapshot.state["params"]["w"].item()


@pytest.mark.parametrize(
    ("q", "moved"),
    [
        (0.0, -0.2),
        # F delta: -0.2, -1.8; F + L delta^2: 2 + 0.1, 6 + 0.9.
        (1.0, -2.0 / 9.0),
        # F^2 delta: -0.4, -10.8; F^2 + 2 F L delta^2: 4 + 0.4, 36 + 10.8.
        (2.0, -11.2 / 51.2),
    ],
)
def test_a_client_counts_by_its_loss_to_the_power_of_q(q, moved, build, clients, one_round):
    snapshot, _ = one_round(build(q=q), clients)

    assert w_of(snapshot) == pytest.approx(2 + moved, rel=1e-6)


def test_with_q_0_it_is_fedavg_over_clients(build, clients, one_round):
    fair = build(q=0.0, epochs=3, batch_size=1)
    plain = fm.fedavg(fair.works[0].plain, aggregator=fm.aggregators.uniform_mean())

    ours, _ = one_round(fair, clients)
    theirs, _ = one_round(plain, clients)

    assert w_of(ours) == pytest.approx(w_of(theirs), rel=1e-7)


def test_a_weighted_mean_weighs_both_sums_by_examples(build, clients, one_round):
    snapshot, _ = one_round(build(aggregator=fm.aggregators.weighted_mean()), clients)

    # One row and two: (-0.2 - 2 * 1.8) / (2.1 + 2 * 6.9).
    assert w_of(snapshot) == pytest.approx(2 - 3.8 / 15.9, rel=1e-6)


def test_l_may_be_given_and_is_1_over_the_local_rate_if_not(build, clients, one_round):
    given, _ = one_round(build(lipschitz=40.0), clients)
    momentum, _ = one_round(build(momentum=0.9), clients)

    # F + 40 delta^2: 2 + 0.4, 6 + 3.6.
    assert w_of(given) == pytest.approx(2 - 2.0 / 12.0, rel=1e-6)
    assert w_of(momentum) == pytest.approx(2 - 2.0 / 9.0, rel=1e-6)


def test_the_server_optimizer_steps_along_the_fair_direction(build, clients, one_round):
    snapshot, _ = one_round(build(server=fm.optimizers.sgd(0.5)), clients)

    assert w_of(snapshot) == pytest.approx(2 - 1.0 / 9.0, rel=1e-6)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
def test_where_all_losses_are_0_the_model_stays(q, build, clients, one_round):
    snapshot, report = one_round(build(w=0.0, q=q), clients)

    assert w_of(snapshot) == 0.0
    assert report.left_out == []


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
def test_a_client_without_loss_leaves_the_model_to_the_others(q, build, pull, one_round):
    alone, _ = one_round(build(q=q), {0: pull([3.0])})
    beside, _ = one_round(build(q=q), {0: pull([3.0]), 1: pull([0.0]), 2: pull([-1.0])})

    assert w_of(beside) == pytest.approx(w_of(alone), rel=1e-7)


def test_the_loss_is_the_broadcast_model_s_over_the_whole_first_epoch(build, local_update):
    work = build(epochs=3, batch_size=2).works[0]
    data = {"x": torch.tensor([[1.0], [2.0], [6.0]])}

    update = local_update(work, data)

    # F = 2 * (1 + 2 + 6) / 3 = 6 whatever the batches are, and h = F + 10 ||delta||^2.
    moved = update.value["params"]["w"].item() / 6
    assert update.value["h"].item() == pytest.approx(6 + 10 * moved**2, rel=1e-6)


def test_a_metric_that_needs_all_rows_is_not_asked_for_a_batch(local_update):
    def of_all_rows(outputs, targets):
        raise AssertionError("asked")

    metric = fm.metrics.whole("all", of_all_rows)
    objective = fm.objective(nn.Linear(1, 2), nn.functional.cross_entropy, [metric])
    algorithm = fm.qfedavg(fm.local.sgd(objective, lr=0.1), q=1.0)

    update = local_update(algorithm.works[0], {"x": torch.ones(2, 1), "y": torch.tensor([0, 1])})

    assert update.value["h"].item() > 0


def test_the_loss_is_measured_in_evaluation_mode(local_update):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))
    work = fm.local.sgd(fm.regressor(model), lr=1e-9, batch_size=None)
    data = {"x": torch.ones(2, 4), "y": torch.zeros(2, 1)}

    h = local_update(fm.qfedavg(work, q=1.0).works[0], data).value["h"].item()

    # A step of 1e-9 adds next to nothing to F.
    assert h == pytest.approx(model.eval()(data["x"])[0].item() ** 2, rel=1e-6)


def test_what_q_fedavg_cannot_do_is_refused(line, build):
    adam = fm.local.descent(line(), fm.optimizers.adam(0.1))

    with pytest.raises(SettingsError, match="q must be"):
        build(q=-1.0)
    with pytest.raises(SettingsError, match="lipschitz must be"):
        build(lipschitz=0.0)
    with pytest.raises(SettingsError, match=r"total\(\) gives their sum"):
        build(aggregator=fm.aggregators.total())
    with pytest.raises(SettingsError, match="Give lipschitz="):
        fm.qfedavg(adam, q=1.0)
    with pytest.raises(SettingsError, match="a Linear"):
        fm.qfedavg(nn.Linear(1, 1), q=1.0)
    assert fm.qfedavg(adam, q=1.0, lipschitz=10.0).name == "qfedavg"
