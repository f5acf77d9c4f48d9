"""Evaluation is work whose update is the sums of the metrics."""

import math

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.local.evaluate import finished


def line_of(w):
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(w)
    return model


CLIENTS = [
    {"x": tensor([[1.0], [2.0], [3.0]]), "y": tensor([0.0, 2.0, 5.0])},  # errors 1, 0, -2
    {"x": tensor([[4.0]]), "y": tensor([0.0])},  # error 4
]


@pytest.mark.parametrize("batch_size", [1, 2, 500, None])
def test_the_update_is_the_sums_over_all_rows(batch_size, local_update):
    work = fm.local.evaluate(fm.regressor(line_of(1.0)), batch_size=batch_size)

    update = local_update(work, CLIENTS[0])

    assert {name: sums.tolist() for name, sums in update.value.items()} == {
        "loss": [5.0, 3.0],
        "rmse": [5.0, 3.0],
        "mae": [3.0, 3.0],
    }
    assert all(sums.dtype == torch.float64 for sums in update.value.values())
    assert (update.weight, update.counts) == (1.0, {})


def test_sums_of_clients_finish_to_the_value_of_the_pooled_data(local_update):
    objective = fm.regressor(line_of(1.0))
    work = fm.local.evaluate(objective)

    updates = [local_update(work, data) for data in CLIENTS]
    total = fm.aggregate(fm.aggregators.total(), updates)

    values = finished(objective, total)
    assert values["loss"] == pytest.approx((1 + 0 + 4 + 16) / 4)
    assert values["rmse"] == pytest.approx(math.sqrt(21 / 4))
    assert values["mae"] == pytest.approx(7 / 4)


def test_evaluation_neither_learns_nor_drops_nor_moves_statistics(local_update):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    objective = fm.regressor(model)
    sent = objective.init()
    before = trees.clone(sent)

    update = local_update(fm.local.evaluate(objective, batch_size=2), CLIENTS[0], sent=sent)

    expected = (model.eval()(CLIENTS[0]["x"])[:, 0] - CLIENTS[0]["y"]).square().sum().item()
    assert update.value["loss"][0].item() == pytest.approx(expected, rel=1e-6)
    assert all(map(torch.equal, trees.leaves(sent), trees.leaves(before)))


def test_a_client_of_one_example_can_be_judged_by_a_model_with_batch_statistics(local_update):
    objective = fm.regressor(nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)))

    assert local_update(fm.local.evaluate(objective), CLIENTS[1]).value["loss"][1].item() == 1.0


def test_a_whole_metric_sees_all_rows_of_a_client_at_once(local_update):
    seen = []

    def spread(outputs, targets):
        seen.append(len(targets))
        return float(outputs.max() - outputs.min())

    objective = fm.regressor(line_of(1.0), metrics=[fm.metrics.whole("range", spread)])
    work = fm.local.evaluate(objective, batch_size=1)

    update = local_update(work, CLIENTS[0])

    assert seen == [3]
    assert work.plan.batch_size is None
    assert update.value["range"].tolist() == [6.0, 3.0]  # (3 - 1) for each of three rows


def test_over_clients_a_whole_metric_is_their_mean_by_examples():
    objective = fm.regressor(
        line_of(1.0), metrics=[fm.metrics.whole("range", lambda outputs, targets: 0.0)]
    )
    sums = {metric.name: tensor([6.0, 3.0]) for metric in objective.metrics}

    values = finished(objective, sums)

    assert list(values) == ["loss", "rmse", "mae", "range"]
    assert values["range"] == 2.0


def test_evaluation_takes_the_rows_as_they_stand(local_update):
    work = fm.local.evaluate(fm.regressor(line_of(1.0)), batch_size=2)

    assert not work.plan.shuffle
    assert not work.train
    assert work.correct is None
