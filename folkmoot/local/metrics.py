"""Metrics as sums: measures of single examples add up over batches, clients and machines.

A mean of means is wrong whenever sizes differ, so a metric is `measure` (numbers per example, to be
added) and `finish` (from the sums to the value): accuracy adds (right, 1), RMSE adds (squared
error, 1) and takes the root last, F1 adds counts. A metric that is not a function of sums is a
`whole` metric: it sees all of one client's outputs at once, and over clients it can only be a mean
of client values, which its name then says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Metric(NamedTuple):
    """One number that is reported, as a function of sums over examples."""

    name: str
    measure: Callable[[Any, Any], Tensor]
    """`measure(outputs, targets)` -> (rows, k), the summands of each example."""
    finish: Callable[[Tensor], float]
    """From the k sums, float64, to the value."""
    better: str = "higher"
    """"higher" or "lower"."""
    size: int = 2
    """k."""
    whole: bool = False
    """Whether `measure` must see all of a client's rows at once."""
    most: float | None = None
    """The largest value, of a metric that has one and is at least 0; private means need it."""


def ratio(sums: Tensor) -> float:
    """Return the first sum over the second: a mean over examples; NaN over no example."""
    return float(sums[0] / sums[1])


def mean_of(name: str, each: Callable[[Any, Any], Tensor], better: str = "higher") -> Metric:
    """Build a mean over examples from `each(outputs, targets)` -> (rows,)."""

    def measure(outputs: Any, targets: Any) -> Tensor:
        values = each(outputs, targets)
        return torch.stack([values, torch.ones_like(values)], dim=1)

    return Metric(name, measure, ratio, better)


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    """(rows,), the share of each row's labels that the largest output names."""
    binary = outputs.dim() == 1 or outputs.shape[1] == 1
    guess = (outputs.reshape(targets.shape) > 0) if binary else outputs.argmax(dim=1)
    return (guess == targets).double().reshape(len(targets), -1).mean(dim=1)


def accuracy() -> Metric:
    """Share of right labels; a single output is a logit of class 1."""
    return mean_of("accuracy", _right)._replace(most=1.0)


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    errors = (outputs.reshape(targets.shape) - targets).double()
    return errors.square().reshape(len(targets), -1).mean(dim=1)


def rmse() -> Metric:
    """Root of the mean squared error: squares are added, the root is taken last."""
    squares = mean_of("rmse", _squares, "lower")
    return squares._replace(finish=lambda sums: ratio(sums) ** 0.5)


def mae() -> Metric:
    """Mean absolute error."""

    def each(outputs: Tensor, targets: Tensor) -> Tensor:
        errors = (outputs.reshape(targets.shape) - targets).double()
        return errors.abs().reshape(len(targets), -1).mean(dim=1)

    return mean_of("mae", each, "lower")


def f1(positive: int = 1) -> Metric:
    """F1 score of one class, from summed true positives, false positives and false negatives.

    Args:
        positive: The class whose score is meant.
    """

    def measure(outputs: Tensor, targets: Tensor) -> Tensor:
        single = outputs.dim() == 1 or outputs.shape[1] == 1
        guess = (outputs.reshape(targets.shape) > 0).long() if single else outputs.argmax(dim=1)
        said, true = guess == positive, targets == positive
        return torch.stack([said & true, said & ~true, ~said & true], dim=1).double()

    def finish(sums: Tensor) -> float:
        right, false_alarm, missed = sums.tolist()
        found = 2 * right + false_alarm + missed
        return 2 * right / found if found else float("nan")

    return Metric("f1", measure, finish, size=3, most=1.0)


def whole(name: str, function: Callable[[Any, Any], float], better: str = "higher") -> Metric:
    """Build a metric that is no function of sums, such as a rank statistic.

    On the held-out set it is exact. Over clients, in the column `clients_<name>`, it can only be
    the mean of the clients' values by examples, which is not its value over all their rows.

    Args:
        name: What it is called in tables.
        function: `function(outputs, targets)` -> number, over all rows of one client.
        better: "higher" or "lower".
    """

    def measure(outputs: Any, targets: Any) -> Tensor:
        rows = len(next(iter(targets.values())) if isinstance(targets, dict) else targets)
        value = float(function(outputs, targets))
        return torch.tensor([[value, 1.0]], dtype=torch.float64).expand(rows, 2)

    return Metric(name, measure, ratio, better, whole=True)
