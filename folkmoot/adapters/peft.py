"""Models of Hugging Face with PEFT adapters, such as LoRA: only what trains travels.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685. An
objective shows the parameters that ask for a gradient and keeps the frozen ones, so `fm.objective`
does most of it. What is added here: inputs by their names, outputs that are a `ModelOutput`, and
the losses of two common tasks.

What one could get wrong: of a classifier PEFT trains the new head too, which then travels beside
the adapters. A mean of A and a mean of B have not the product of the mean: averaging LoRA's two
matrices is what everybody does, and it is not the mean of the clients' models. The frozen base is
copied once for each thread or process that trains.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from folkmoot.core.errors import SettingsError
from folkmoot.local import kinds
from folkmoot.local.metrics import Metric
from folkmoot.local.module import ModuleObjective
from folkmoot.local.objective import objective
from folkmoot.local.replica import Loss

Seen = tuple[Any, Any]
"""Outputs and targets, as a loss sees them."""


def peft(
    model: nn.Module,
    loss: Loss | None = None,
    metrics: Sequence[Metric] = (),
    *,
    target: str = "labels",
) -> ModuleObjective:
    """Learn the adapters of a PEFT model; its base stays as it is, and at home.

    Args:
        model: From `peft.get_peft_model(model, config)`; it is copied.
        loss: `loss(outputs, targets)` -> one value a row, (rows,), where outputs are the model's
            `logits` if it has such. None is cross-entropy for the task type SEQ_CLS (squared error
            where there is one label), and next-token cross-entropy for CAUSAL_LM.
        metrics: What is reported beside the loss, of the same outputs and targets.
        target: Name of the leaf with the targets. All other leaves are passed to the model by their
            names, such as "input_ids" and "attention_mask". Of CAUSAL_LM targets are as the model
            takes them: the tokens themselves, -100 where one counts nowhere.

    Returns:
        An objective for `fm.local.sgd` and its kin; `result.model` is a PEFT model.

    Raises:
        SettingsError: If PEFT is not installed, the model has no adapters or trains nothing, or
            its task has no loss here and none is given.
    """
    task = _task(model)
    if loss is not None:
        return _renamed(objective(model, loss, metrics), _of_logits, target)
    if task == "CAUSAL_LM":
        return _renamed(kinds.language_model(model, metrics), _of_next_tokens, target)
    if task == "SEQ_CLS" and getattr(model.config, "num_labels", 2) == 1:
        return _renamed(kinds.regressor(model, metrics), _of_logits, target)
    problem = getattr(model.config, "problem_type", None)
    if task == "SEQ_CLS" and problem in (None, "single_label_classification"):
        return _renamed(kinds.classifier(model, metrics), _of_labels, target)
    found = f"{task}, {problem}" if task == "SEQ_CLS" else task
    raise SettingsError(
        f"There is no loss here for the task type {found}. Pass one: fm.adapters.peft(model, loss)."
    )


def _task(model: Any) -> str:
    """Return a PEFT model's task type."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise SettingsError(
            "Adapters need PEFT, which is not installed: pip install 'folkmoot[peft]'."
        ) from error
    if not isinstance(model, PeftModel):
        raise SettingsError(
            "peft() takes a model with adapters, peft.get_peft_model(model, peft.LoraConfig(...)), "
            f"but was given a {type(model).__name__}. A whole model is fm.objective(model, loss)."
        )
    kind = model.peft_config[model.active_adapter].task_type
    return str(getattr(kind, "value", kind))


def _of_logits(outputs: Any, targets: Any) -> Seen:
    return getattr(outputs, "logits", outputs), targets


def _of_labels(outputs: Any, targets: Tensor) -> Seen:
    if targets.is_floating_point():
        # Cross-entropy would take them, in silence, for the classes' probabilities.
        raise SettingsError(
            f"Targets are {targets.dtype}, so they are no classes, but several labels or numbers a "
            "row, for which there is no loss here. Pass one: fm.adapters.peft(model, loss)."
        )
    return _of_logits(outputs, targets)


def _of_next_tokens(outputs: Any, targets: Tensor) -> Seen:
    """What stands at a place is said at the place before; a learnt prompt stands before all."""
    prompt = outputs.logits.shape[1] - targets.shape[1]
    said = outputs.logits[:, max(prompt - 1, 0) : -1]
    return said, targets[:, targets.shape[1] - said.shape[1] :]


def _renamed(
    built: ModuleObjective, seen: Callable[[Any, Any], Seen], target: str
) -> ModuleObjective:
    """Return an objective whose loss and metrics see parts of outputs and targets."""
    metrics = tuple(
        metric._replace(measure=functools.partial(_through, metric.measure, seen))
        for metric in built.metrics
    )
    mean_loss = built.mean_loss and functools.partial(_through, built.mean_loss, seen)
    return dataclasses.replace(
        built,
        loss=functools.partial(_through, built.loss, seen),
        metrics=metrics,
        mean_loss=mean_loss,
        target=target,
        threads=threading.local(),
        variants={},
    )


def _through(
    function: Callable[[Any, Any], Tensor],
    seen: Callable[[Any, Any], Seen],
    outputs: Any,
    targets: Any,
) -> Tensor:
    return function(*seen(outputs, targets))
