"""Whether a loss has a gradient at all, seen in the trial steps before a run.

A loss without one would train in silence: every update is zero, and nothing fails.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from folkmoot.core.algorithm import Batch, Task
from folkmoot.core.tree import Tree
from folkmoot.local.dpsgd import PrivateObjective


def watched(task: Task) -> tuple[Task, list[bool]]:
    """Return the same task, and a list that grows with each gradient its steps ask for.

    Its entries tell whether the loss had one. It stays empty where a work asks for none, and for
    objectives of another make than `fm.objective(...)`.
    """
    seen: list[bool] = []
    objective: Any = task.work.objective
    # Of a private objective the plain one has the loss.
    plain = objective.plain if isinstance(objective, PrivateObjective) else objective
    if not dataclasses.is_dataclass(plain) or not hasattr(plain, "loss"):
        return task, seen
    noting: Any = _Watched(plain, seen)
    if plain is not objective:
        noting = objective._replace(plain=noting)
    return task._replace(work=task.work._replace(objective=noting)), seen


def nothing_learnt(seen: Sequence[bool]) -> str | None:
    """Return why nothing would be learnt, where no loss of some steps had a gradient; else None.

    One batch may have none, such as a loss that counts only rows with a label.
    """
    if not seen or any(seen):
        return None
    if torch.is_inference_mode_enabled():
        return (
            "torch.inference_mode() is on, in which no loss has a gradient, so nothing would be "
            "learnt. Train outside of it."
        )
    return (
        "The loss depends on no trainable parameter, so nothing would be learnt. Compute it from "
        "the model's outputs, without argmax, comparisons, detach(), item() or torch.no_grad()."
    )


class _Watched:
    """An objective that notes whether its loss has a gradient where one is asked for."""

    def __init__(self, objective: Any, seen: list[bool]) -> None:
        def noting(loss: Any) -> Any:
            def noted(outputs: Any, targets: Any) -> Any:
                value = loss(outputs, targets)
                seen.append(getattr(value, "requires_grad", True))
                return value

            return noted

        fused = objective.mean_loss and noting(objective.mean_loss)
        self._objective = objective
        # It shares the replica of the objective, so what is learnt about its model stays known.
        self._noting = dataclasses.replace(objective, loss=noting(objective.loss), mean_loss=fused)

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        """Return the objective's gradient and loss."""
        return self._noting.grad(params, buffers, counts, batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)
