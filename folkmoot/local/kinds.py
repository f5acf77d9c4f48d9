"""Three kinds of objective that cover most programs: classes, numbers, and the next token."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from folkmoot.core.tree import is_ordinary
from folkmoot.local import metrics as metric
from folkmoot.local.metrics import Metric
from folkmoot.local.module import ModuleObjective
from folkmoot.local.objective import objective

_NO_LABEL = -1_000_000_000
"""An `ignore_index` that nobody means: torch's own, -100, leaves rows out of a mean in silence."""


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """(rows,); one output is the logit of class 1."""
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        logits = outputs.reshape(targets.shape)
        labels = _zero_or_one(targets).to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        each = _softmax_loss(outputs, targets, "none")
    return each.reshape(len(targets), -1).mean(dim=1) if each.dim() > 1 else each


def _softmax_loss(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if torch.compiler.is_compiling():
        # A compiled gradient drops the loss, and with it torch's own look at the labels.
        targets = _looked_up(targets, outputs.shape[1])
    return F.cross_entropy(outputs, targets, reduction=reduction, ignore_index=_NO_LABEL)


def _zero_or_one(targets: Tensor) -> Tensor:
    """Refuse labels that torch would take, in silence, for probabilities beyond 0 and 1."""
    if not is_ordinary(targets):
        return _looked_up(targets, 2)
    if not targets.is_floating_point():
        strange = targets[(targets != 0) & (targets != 1)]
        if len(strange):
            raise IndexError(f"Target {int(strange[0])} is out of bounds for one output.")
    return targets


def _looked_up(targets: Tensor, classes: int) -> Tensor:
    """Return labels by an index into all of them, which fails where one is not among them.

    Traced numbers can be looked at in no other way.
    """
    if targets.is_floating_point():
        return targets
    return torch.arange(classes).gather(0, targets.long().reshape(-1)).reshape(targets.shape)


def _mean_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        return _softmax_loss(outputs, targets, "mean")
    return _cross_entropy(outputs, targets).mean()


def classifier(model: nn.Module, metrics: Sequence[Metric] = ()) -> ModuleObjective:
    """Learn classes: cross-entropy and accuracy.

    Args:
        model: Its outputs are logits, (rows, classes, ...), or (rows,) or (rows, 1) for two
            classes. It is copied.
        metrics: More metrics, such as `f1()`.

    Data: "x" is the input and "y" the class, int64 from 0, (rows, ...). A negative one is refused,
    -100 too.
    """
    built = objective(
        model, _cross_entropy, (metric.accuracy(), *metrics), mean_loss=_mean_cross_entropy
    )
    return _changed(built, ignored=None)


def _square_error(outputs: Tensor, targets: Tensor) -> Tensor:
    # Outputs (rows, 1) against targets (rows,) would broadcast to (rows, rows) in silence.
    errors = outputs.reshape(targets.shape) - targets
    return errors.square().reshape(len(targets), -1).mean(dim=1)


def regressor(model: nn.Module, metrics: Sequence[Metric] = ()) -> ModuleObjective:
    """Learn numbers: mean squared error, reported with RMSE and MAE.

    Args:
        model: Its outputs have as many numbers a row as the targets. It is copied.
        metrics: More metrics.

    Data: "x" is the input and "y" the target, floating, (rows, ...).
    """
    return objective(model, _square_error, (metric.rmse(), metric.mae(), *metrics))


IGNORED = -100
"""Target of a position that counts nowhere, as in PyTorch."""


def _tokens(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (losses, valid), each (rows, length)."""
    each = F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return each, targets != IGNORED


def _token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    losses, valid = _tokens(outputs, targets)
    return losses.sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def _over_tokens(name: str, each: Callable[[Tensor, Tensor], Tensor], better: str) -> Metric:
    def measure(outputs: Tensor, targets: Tensor) -> Tensor:
        valid = targets != IGNORED
        return torch.stack([(each(outputs, targets) * valid).sum(1), valid.sum(1)], dim=1)

    return Metric(name, measure, metric.ratio, better)


def language_model(model: nn.Module, metrics: Sequence[Metric] = ()) -> ModuleObjective:
    """Learn the next token: cross-entropy, with accuracy and perplexity over all tokens.

    The loss of a row is the mean over its tokens; a batch's loss is the mean over its rows.

    Args:
        model: Its outputs are logits, (rows, length, vocabulary). It is copied.
        metrics: More metrics.

    Data: "x" is int64 (rows, length); "y" is the next token at each place, -100 where there is
    none.
    """
    nats = _over_tokens("loss", lambda outputs, targets: _tokens(outputs, targets)[0], "lower")
    perplexity = nats._replace(
        name="perplexity", finish=lambda sums: float(torch.exp(sums[0] / sums[1]))
    )
    right = _over_tokens("accuracy", lambda o, t: (o.argmax(-1) == t).double(), "higher")
    built = objective(model, _token_loss, (right, perplexity, *metrics))
    return _changed(built, metrics=(nats, *built.metrics[1:]))


def _changed(built: ModuleObjective, **fields: Any) -> ModuleObjective:
    """Return an objective with other fields, and with replicas of its own."""
    return dataclasses.replace(built, **fields, threads=threading.local(), variants={})
