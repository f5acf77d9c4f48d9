"""Work of a model that draws in some passes only, such as dropout in long batches or later epochs.

What a model draws is learnt from its first pass. Should a later one draw what that one did not, the
process's default generator has moved; the work is then done again, every pass watched, with the
bits that it would have had if the model had been known from the beginning.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from folkmoot.core.algorithm import Task
from folkmoot.local.dropout import generator_state, has_moved

T = TypeVar("T")


def watched(task: Task, train: Callable[[], T]) -> T:
    """Return what `train()` returns, without a number from the default generator in it.

    Args:
        task: Whose work is done.
        train: Does it, alone in its process; may be called twice.
    """
    replica = task.work.objective.replica() if hasattr(task.work.objective, "replica") else None
    if replica is None or replica.is_settled:
        return train()
    before = generator_state()
    done = train()
    if not has_moved(before):
        return done
    known = replica.drawn
    torch.default_generator.set_state(before)
    replica.watch(True)
    try:
        done = train()
    finally:
        replica.watch(False)
    # Nothing new: it was a client's loader that drew, and it may.
    replica.is_settled = replica.drawn == known
    return done
