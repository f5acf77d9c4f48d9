"""What an engine learns from a task, or changes in it, before it runs it."""

import torch
from torch import Tensor

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Seen, Task
from folkmoot.core.engine import Setting


def in_precision(task: Task, setting: Setting) -> Task:
    """Return the task with gradients in the setting's precision."""
    if not task.work.train or setting.precision == "float32":
        return task
    objective = task.work.objective.with_precision(setting.precision)
    return task._replace(work=task.work._replace(objective=objective))


def example(task: Task) -> Update:
    """Return an update of the leaves that a task asks for: local work of no step."""
    own = task.work.own(task.broadcast) if task.work.own else {}
    carry = task.work.start(task.broadcast, own, rng.as_tensor(0))
    update, _ = task.work.finish(task.broadcast, carry, Seen(1, 1))
    return update


def noisy_example(task: Task) -> Update:
    """Return an update of normal numbers, whose packed size is what it is for numbers on average.

    Of zeros a code whose length hangs on the numbers is far shorter than of what is learnt.
    """
    own = task.work.own(task.broadcast) if task.work.own else {}
    carry = task.work.start(task.broadcast, own, rng.as_tensor(0))
    draw = torch.Generator().manual_seed(0)

    def noised(leaf: Tensor) -> Tensor:
        return leaf + torch.randn(leaf.shape, generator=draw).to(leaf.dtype)

    moved = trees.map(lambda leaf: noised(leaf) if leaf.is_floating_point() else leaf, carry)
    update, _ = task.work.finish(task.broadcast, moved, Seen(1, 1))
    return update
