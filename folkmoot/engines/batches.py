"""From a client's examples and a plan to batches: the same ones in every engine."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch, Plan
from folkmoot.core.tree import Tree


def rows(data: Tree) -> int:
    """Return how many examples a client's data hold."""
    found = trees.leaves(data)
    return len(found[0]) if found else 0


def cuts(examples: int, plan: Plan, needs_pairs: bool) -> list[int]:
    """Return the sizes of one epoch's batches.

    Args:
        examples: The client's rows.
        plan: Batch size and what becomes of a short last batch.
        needs_pairs: Whether a batch of one row must join the batch before it.
    """
    if not examples:
        return []
    size = min(plan.batch_size or examples, examples)
    whole, rest = divmod(examples, size)
    sizes = [size] * whole
    if plan.last == "drop" and plan.batch_size and examples < plan.batch_size:
        return []
    joins = plan.last == "join" or (needs_pairs and rest == 1)
    if rest and joins:
        sizes[-1] += rest
    elif rest and plan.last == "keep":
        sizes.append(rest)
    return sizes


def num_steps(plan: Plan, sizes: list[int]) -> int:
    """Return how many local steps a plan asks for, given one epoch's batches."""
    if not sizes:
        return 0
    return plan.steps if plan.steps is not None else (plan.epochs or 0) * len(sizes)


def used(plan: Plan, sizes: list[int]) -> int:
    """Return how many distinct examples a plan works through."""
    return sum(sizes[: num_steps(plan, sizes)])


def step_keys(key: int, steps: int) -> tuple[Tensor, ...]:
    """Return one int64 key a step."""
    index = np.arange(steps, dtype=np.uint64)
    return torch.from_numpy(rng.mix_array(np.uint64(key) ^ index).view(np.int64)).unbind()


def epoch_orders(keys: list[int], examples: list[int], plan: Plan, epoch: int) -> list[Tensor | None]:
    """Return one order a client for an epoch; None where the rows stay as they are."""
    if not plan.shuffle:
        return [None] * len(keys)
    return list(rng.orders(keys, examples, epoch))


def batches(
    data: Tree, sizes: list[int], plan: Plan, key: int, first_order: Tensor | None
) -> Iterator[Batch]:
    """Yield a client's batches.

    Args:
        data: The client's examples.
        sizes: One epoch's batch sizes, from `cuts`.
        plan: Epochs or steps, and whether to shuffle.
        key: The client's stream for this round.
        first_order: The first epoch's order, made for a whole block at once; None to keep or to make it.
    """
    steps = num_steps(plan, sizes)
    keys = step_keys(key, steps)
    examples = rows(data)
    for epoch in range(-(-steps // len(sizes)) if steps else 0):
        order = first_order if epoch == 0 else None
        if order is None and plan.shuffle:
            order = rng.orders([key], [examples], epoch)[0]
        done = epoch * len(sizes)
        for part, step_key in zip(_parts(data, order, sizes), keys[done : done + len(sizes)], strict=False):
            yield Batch(part, None, step_key, epoch)


def _parts(data: Tree, order: Tensor | None, sizes: list[int]) -> Iterator[Tree]:
    """Gather an epoch's rows once and cut them into views."""
    kept = sum(sizes)
    split: dict[str, list[Tensor] | list[Tree]] = {}
    for name, leaf in data.items():
        if isinstance(leaf, dict):
            split[name] = list(_parts(leaf, order, sizes))
            continue
        gathered = leaf if order is None else leaf.index_select(0, order)
        split[name] = list((gathered if len(gathered) == kept else gathered[:kept]).split(sizes))
    for index in range(len(sizes)):
        yield {name: parts[index] for name, parts in split.items()}
