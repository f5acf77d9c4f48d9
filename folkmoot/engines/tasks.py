"""What an engine learns from a task, or changes in it, before it runs it."""

from collections.abc import Callable

import torch
from torch import Tensor

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Seen, Task
from folkmoot.core.engine import Setting
from folkmoot.core.tree import Tree


def in_precision(task: Task, setting: Setting) -> Task:
    """Return the task with gradients in the setting's precision."""
    if not task.work.train or setting.precision == "float32":
        return task
    objective = task.work.objective.with_precision(setting.precision)
    return task._replace(work=task.work._replace(objective=objective))


def example(task: Task) -> Update:
    """Return an update of the leaves that a task asks for: local work of no step."""
    return _finished(task, lambda carry: carry)


def noisy_example(task: Task) -> Update:
    """Return an update of normal numbers, whose packed size is what it is for numbers on average.

    Of zeros a code whose length hangs on the numbers is far shorter than of what is learnt.
    """
    draw = torch.Generator().manual_seed(0)

    def noised(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        return leaf + torch.randn(leaf.shape, generator=draw).to(leaf.dtype)

    return _finished(task, lambda carry: trees.map(noised, carry))


def _finished(task: Task, moved: Callable[[Tree], Tree]) -> Update:
    """Return the update of a carry that has been moved by no step of the work."""
    own = task.work.own(task.broadcast) if task.work.own else {}
    carry = task.work.start(task.broadcast, own, rng.as_tensor(0))
    update, _ = task.work.finish(task.broadcast, moved(carry), Seen(1, 1))
    return update
