"""Losses by row of what other libraries predict: cross-entropy, wrong labels, squared error.

Also how metrics of rows are added up.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from folkmoot.core.errors import SettingsError
from folkmoot.local import metrics as metric
from folkmoot.local.metrics import Metric


def by_row(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss that refuses to give anything but one number a row."""

    def each(outputs: Tensor, targets: Tensor) -> Tensor:
        values = loss(outputs, targets)
        if tuple(values.shape) != (len(targets),):
            raise SettingsError(
                f"loss= must return one number a row, {(len(targets),)}, but returned "
                f"{tuple(values.shape)} of outputs {tuple(outputs.shape)} and targets "
                f"{tuple(targets.shape)}. Give both one shape, and take no mean over rows."
            )
        return values

    return each


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each row's loss of logits: (rows,) of two classes, else (rows, classes)."""
    labels = targets.reshape(len(outputs))
    if outputs.dim() == 1:
        labels = labels.to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
    return F.cross_entropy(outputs, labels.long(), reduction="none")


def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 for each row whose label the decision values miss, in the shapes of logits."""
    guess = (outputs > 0) if outputs.dim() == 1 else outputs.argmax(dim=1)
    return (guess != targets.reshape(len(outputs))).double()


def accuracy() -> Metric:
    """Share of right labels, which may be (rows, 1) beside decision values of any shape."""
    right = metric.mean_of("accuracy", lambda outputs, targets: 1 - wrong(outputs, targets))
    return right._replace(most=1.0)


def square_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each row's squared error, a mean where it has several numbers."""
    # Outputs (rows, 1) against targets (rows,) would broadcast to (rows, rows) in silence.
    errors = outputs.reshape(targets.shape) - targets
    return errors.square().reshape(len(targets), -1).mean(dim=1)


def summed(
    metrics: Sequence[Metric], outputs: Any, targets: Any, weight: Tensor | None
) -> dict[str, Tensor]:
    """Return each metric's sums over rows, (k,) in float64, without those of weight 0."""
    rows = {metric.name: metric.measure(outputs, targets).double() for metric in metrics}
    if weight is None:
        return {name: values.sum(dim=0) for name, values in rows.items()}
    real = (weight > 0).double()
    return {name: real @ values for name, values in rows.items()}
