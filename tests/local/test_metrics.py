"""Metrics are sums: the same value however the examples are cut into batches and clients."""

import math

import pytest
import torch
from torch import tensor

from folkmoot.local import metrics


def value(metric, outputs, targets, cuts=(0,)):
    """Measure in pieces that begin at `cuts`, add, and finish."""
    ends = [*cuts[1:], len(targets)]
    parts = [
        metric.measure(outputs[begin:end], targets[begin:end]).double().sum(0)
        for begin, end in zip(cuts, ends, strict=True)
    ]
    assert all(part.shape == (metric.size,) for part in parts)
    return metric.finish(sum(parts))


LOGITS = tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 2.0]])
ERRORS = tensor([1.0, -2.0, 2.0, 0.0])


@pytest.mark.parametrize("cuts", [(0,), (0, 1), (0, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "expected"),
    [
        (metrics.accuracy(), LOGITS, tensor([0, 1, 1, 1]), 0.75),
        (metrics.accuracy(), tensor([1.0, -1.0, 2.0, -0.5]), tensor([1, 1, 1, 0]), 0.75),
        (metrics.accuracy(), tensor([[1.0], [-1.0], [2.0], [-0.5]]), tensor([1, 1, 1, 0]), 0.75),
        (metrics.rmse(), ERRORS, torch.zeros(4), 1.5),  # sqrt((1 + 4 + 4 + 0) / 4)
        (metrics.rmse(), ERRORS[:, None], torch.zeros(4), 1.5),
        (metrics.rmse(), torch.zeros(4), ERRORS[:, None], 1.5),
        (metrics.mae(), ERRORS, torch.zeros(4), 1.25),
        (metrics.mae(), ERRORS[:, None], torch.zeros(4), 1.25),
        (metrics.f1(), LOGITS, tensor([0, 1, 1, 1]), 0.8),  # 2 right, 1 missed: 4 / 5
        (metrics.f1(positive=0), LOGITS, tensor([0, 1, 1, 1]), 2 / 3),
        (metrics.f1(), tensor([1.0, 1.0, -1.0, 1.0]), tensor([1, 0, 1, 1]), 2 / 3),
    ],
)
def test_the_value_is_as_worked_by_hand_in_any_pieces(metric, outputs, targets, expected, cuts):
    assert value(metric, outputs, targets, cuts) == pytest.approx(expected, rel=1e-6)


def test_many_labels_a_row_count_by_their_share_of_the_row():
    outputs = torch.zeros(2, 3, 4)
    outputs[:, 1] = 1.0  # Class 1 everywhere.
    targets = tensor([[1, 1, 1, 0], [1, 0, 2, 0]])

    assert value(metrics.accuracy(), outputs, targets) == pytest.approx((3 / 4 + 1 / 4) / 2)


def test_several_numbers_a_row_are_a_mean_over_the_row():
    outputs, targets = tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)

    assert value(metrics.rmse(), outputs, targets) == pytest.approx(math.sqrt((5 + 0) / 2))
    assert value(metrics.mae(), outputs, targets) == pytest.approx((2 + 0) / 2)


@pytest.mark.parametrize("build", [metrics.accuracy, metrics.rmse, metrics.mae, metrics.f1])
def test_over_no_example_there_is_no_value(build):
    metric = build()

    assert math.isnan(metric.finish(torch.zeros(metric.size, dtype=torch.float64)))


def test_f1_without_any_positive_has_no_value():
    nothing_found = value(metrics.f1(), tensor([-1.0, -1.0]), tensor([0, 0]))
    all_missed = value(metrics.f1(), tensor([-1.0, -1.0]), tensor([1, 0]))

    assert math.isnan(nothing_found)
    assert all_missed == 0.0


def test_squares_are_added_in_double_precision():
    # A float32 sum of 2^24 + 1 + 1 stays at 2^24.
    outputs = tensor([4096.0, 1.0, 1.0])

    sums = metrics.rmse().measure(outputs, torch.zeros(3)).double().sum(0)

    assert sums.tolist() == [2**24 + 2, 3]


def test_each_metric_says_which_end_is_better():
    ends = {metric.name: metric.better for metric in (metrics.accuracy(), metrics.f1())}
    ends |= {metric.name: metric.better for metric in (metrics.rmse(), metrics.mae())}

    assert ends == {"accuracy": "higher", "f1": "higher", "rmse": "lower", "mae": "lower"}


def test_a_mean_of_one_s_own_is_a_mean_over_examples():
    bias = metrics.mean_of("bias", lambda outputs, targets: outputs - targets, "lower")

    assert value(bias, ERRORS, torch.zeros(4), (0, 1)) == 0.25
    assert (bias.name, bias.better, bias.whole) == ("bias", "lower", False)


def test_a_whole_metric_is_weighted_by_the_rows_that_it_saw():
    spread = metrics.whole("range", lambda outputs, targets: outputs.max() - outputs.min())

    one = spread.measure(tensor([0.0, 4.0]), torch.zeros(2)).sum(0)
    other = spread.measure(tensor([0.0, 1.0, 1.0]), {"a": torch.zeros(3)}).sum(0)

    assert spread.whole
    assert (one.tolist(), other.tolist()) == ([8.0, 2.0], [3.0, 3.0])
    assert spread.finish(one + other) == pytest.approx((2 * 4 + 3 * 1) / 5)
