"""Objectives: whose model, which loss, which metrics.

Four builders cover most programs; `objective(model, loss, metrics)` takes any module and any loss.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from folkmoot.core.errors import SettingsError
from folkmoot.local import metrics as metric
from folkmoot.local.metrics import Metric
from folkmoot.local.module import ModuleObjective
from folkmoot.local.replica import Loss


def objective(
    model: nn.Module,
    loss: Loss,
    metrics: Sequence[Metric] = (),
    *,
    target: str | None = "y",
    mean_loss: Loss | None = None,
) -> ModuleObjective:
    """Join a model, a loss and metrics.

    Args:
        model: Any module with a trainable parameter; it is copied. It is called on leaf "x" of a
            batch, or with the leaves as keyword arguments where there are several.
        loss: `loss(outputs, targets)` -> one value a row, (rows,), or a scalar that is a mean over
            rows. Losses by row let engines pad; a scalar works everywhere else.
        metrics: What evaluation reports beside the loss.
        target: Name of the leaf with the targets; None where the inputs are their own target.
        mean_loss: A faster form of the mean of `loss`, if there is one.

    Raises:
        SettingsError: If the model is no module, has nothing to train, or has parameters without a
            shape yet; if the loss is no function, or a metric none.
    """
    if not isinstance(model, nn.Module):
        if isinstance(model, type):
            raise SettingsError(
                f"The model must be an instance, but is the class {model.__name__}. Call it: "
                f"{model.__name__}()."
            )
        raise SettingsError(
            f"The model must be a torch.nn.Module, but is a {type(model).__name__}. Pass an "
            "instance of it."
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise SettingsError(
            "The model has lazy layers whose parameters have no shape yet. Call it once on an "
            "example first."
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise SettingsError(
            f"The model {type(model).__name__} has no trainable parameter, so there is nothing to "
            "learn. Set requires_grad on the parameters that should be trained."
        )
    if isinstance(loss, type) or not callable(loss):
        found = f"the class {loss.__name__}" if isinstance(loss, type) else repr(loss)
        raise SettingsError(
            f"The loss must be a function of (outputs, targets), but is {found}. Pass one such as "
            "torch.nn.functional.cross_entropy, or an instance of a loss's class."
        )
    for one in metrics:
        if not isinstance(one, Metric):
            raise SettingsError(
                f"A metric must be built first, such as fm.metrics.f1(), but one is {one!r}."
            )
    named = (_loss_metric(loss), *metrics)
    names = [m.name for m in named]
    if len(set(names)) < len(names):
        raise SettingsError(
            f"Two metrics have one name: {', '.join(names)}. Rename one with "
            "metric._replace(name=...)."
        )
    return ModuleObjective(copy.deepcopy(model), loss, named, target, mean_loss)


def _loss_metric(loss: Loss) -> Metric:
    """Report the loss as a mean over examples, also where it is itself a mean over a batch."""

    def measure(outputs: Any, targets: Any) -> Tensor:
        value = loss(outputs, targets)
        if value.dim() == 0:
            found = next(iter(targets.values())) if isinstance(targets, dict) else targets
            value = value.expand(len(found))
        return torch.stack([value, torch.ones_like(value)], dim=1)

    return Metric("loss", measure, metric.ratio, "lower")
