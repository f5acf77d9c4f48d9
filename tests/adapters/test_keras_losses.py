"""Losses and metrics of Keras: the values that Keras gives, a row at a time."""

import math

import pytest
import torch

import folkmoot as fm
from folkmoot.adapters.keras_losses import loss_of, metric_of

keras = pytest.importorskip("keras")

OUTPUTS = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
LABELS = torch.tensor([0, 1])


def value(metric, outputs, targets):
    """A metric over two batches, as it is added up over clients."""
    sums = metric.measure(outputs[:1], targets[:1]).sum(0)
    return metric.finish(sums + metric.measure(outputs[1:], targets[1:]).sum(0))


CROSS_ENTROPIES = {
    "an instance": lambda: keras.losses.SparseCategoricalCrossentropy(),
    "a name": lambda: "sparse_categorical_crossentropy",
    "a function": lambda: keras.losses.sparse_categorical_crossentropy,
}


@pytest.mark.parametrize("given", CROSS_ENTROPIES.values(), ids=CROSS_ENTROPIES)
def test_a_loss_has_a_value_for_each_row(given):
    found = loss_of(given())(OUTPUTS, LABELS)

    torch.testing.assert_close(found, torch.tensor([-math.log(0.7), -math.log(0.25)]))


def test_outputs_in_a_column_meet_their_own_targets():
    targets, column = torch.tensor([1.0, 2.0]), torch.tensor([[1.0], [4.0]])

    found = loss_of(lambda y_true, y_pred: (y_true - y_pred).square().mean(-1))(column, targets)

    assert found.tolist() == [0.0, 4.0]


def test_masked_places_of_a_sequence_count_nowhere():
    outputs = torch.tensor([[[1.0], [9.0]], [[2.0], [4.0]]])
    outputs._keras_mask = torch.tensor([[True, False], [True, True]])
    targets = torch.zeros(2, 2, 1)

    found = loss_of("mse")(outputs, targets)

    torch.testing.assert_close(found, torch.tensor([1.0, (4 + 16) / 2]))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda: "crossentopy", "knows no loss named 'crossentopy'"),
        (lambda: keras.losses.MeanSquaredError(reduction="sum"), "adds rows up.*sum_over_batch"),
        (lambda: {"a": "mse", "b": "mse"}, "trained on one loss, but 2 were given"),
        (lambda: keras.losses.MeanSquaredError, "must be a keras.losses.Loss"),
    ],
    ids=["unknown", "a sum", "several", "a class"],
)
def test_losses_without_a_mean_over_rows_are_refused(given, reason):
    with pytest.raises(fm.SettingsError, match=reason):
        loss_of(given())


def test_a_mean_metric_is_a_mean_over_all_rows():
    accuracy = metric_of(keras.metrics.SparseCategoricalAccuracy())
    error = metric_of(keras.metrics.MeanAbsoluteError())
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

    assert (accuracy.name, accuracy.better) == ("sparse_categorical_accuracy", "higher")
    assert accuracy.most == 1.0
    assert value(accuracy, OUTPUTS, LABELS) == 0.5
    assert (error.name, error.better) == ("mean_absolute_error", "lower")
    assert value(error, OUTPUTS, targets) == pytest.approx((0.6 / 3 + 1.0 / 3) / 2)


def test_accuracy_is_what_the_shapes_of_outputs_and_targets_mean():
    accuracy = metric_of("accuracy")
    one_hot = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    chance = torch.tensor([[0.8], [0.4]])

    assert value(accuracy, OUTPUTS, LABELS) == 0.5
    assert value(accuracy, OUTPUTS, one_hot) == 1.0
    assert value(accuracy, chance, torch.tensor([1.0, 1.0])) == 0.5


def test_a_function_of_targets_and_outputs_is_a_metric():
    def wrong(y_true, y_pred):
        return (y_pred.argmax(-1) != y_true).float()

    metric = metric_of(wrong)

    assert (metric.name, metric.better) == ("wrong", "lower")
    assert value(metric, OUTPUTS, LABELS) == 0.5


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda: keras.metrics.AUC(name="auc"), r"'auc' \(AUC\) is no mean over rows.*whole"),
        (lambda: keras.metrics.RootMeanSquaredError(), r"Use fm.metrics.rmse\(\) in its place"),
        (lambda: "no_such_metric", "knows no metric named 'no_such_metric'"),
    ],
    ids=["AUC", "RMSE", "unknown"],
)
def test_metrics_that_do_not_add_up_are_refused_with_what_to_use(given, reason):
    with pytest.raises(fm.SettingsError, match=reason):
        metric_of(given())
