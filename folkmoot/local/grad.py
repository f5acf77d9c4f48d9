"""One gradient for every engine: on ordinary, batched (vmap) and traced (compiled) tensors alike.

`torch.func.grad` costs about twice `autograd.grad` on a small model, and `autograd.grad` cannot be
mapped over clients; so this operator looks at the tensors that it is given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.tree import Tree, is_ordinary

_ONE = {dtype: torch.ones((), dtype=dtype) for dtype in (torch.float32, torch.float64)}
_ONES = {one.untyped_storage().data_ptr() for one in _ONE.values()}
_transform = torch._C._functorch.peek_interpreter_stack
_run_backward = torch.autograd.Variable._execution_engine.run_backward


def grad(
    loss: Callable[..., tuple[Tensor, Any]], params: Tree, *args: Any
) -> tuple[Tree, Tensor, Any]:
    """Differentiate a loss by its first argument.

    Args:
        loss: `loss(params, *args)` returns a scalar and anything else that is wanted back.
        params: Tree of floating leaves; not changed.
        args: Passed on to `loss`, not differentiated.

    Returns:
        The gradient (a tree like `params`, zeros where the loss does not depend on a leaf), the
        loss, and what the loss returned beside it.
    """
    found = trees.leaves(params)
    if not all(is_ordinary(leaf) for leaf in found):
        gradient, (value, rest) = torch.func.grad_and_value(loss, has_aux=True)(params, *args)
        return gradient, value, rest
    aliases = [leaf.detach().requires_grad_() for leaf in found]
    with torch.enable_grad():
        value, rest = loss(trees.like(params, aliases), *args)
        gradients = differentiate(value, aliases)
    return trees.like(params, gradients), value.detach(), rest


def differentiate(value: Tensor, aliases: Sequence[Tensor]) -> list[Tensor]:
    """Return a scalar's gradient by each of some leaves; zeros where it does not depend on one."""
    if not value.requires_grad:
        return [torch.zeros_like(alias) for alias in aliases]
    one = _ONE.get(value.dtype)
    if one is None or value.dim() or not value.is_cpu:
        return list(torch.autograd.grad(value, aliases, allow_unused=True, materialize_grads=True))
    # What `torch.autograd.grad` does around this call takes as long as a small model's whole step.
    found = _run_backward((value,), (one,), False, False, tuple(aliases), True, False)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(aliases, found, strict=True)]


def plus(gradient: Tree, x: Tree, factor: float = 1.0) -> Tree:
    """Return gradient + factor * x, for a gradient that was just taken and is nobody else's.

    It is written into where each leaf has memory of its own: autograd may give two leaves one, or
    parts of one, or the 1 with which it began.
    """
    found, added = trees.leaves(gradient), trees.aligned(gradient, x)
    # Every step asks, so mapped leaves are looked for once, by the transform around them.
    if not found or _transform() is not None or torch.compiler.is_compiling():
        return trees.axpy(factor, x, gradient)
    memory = {leaf.untyped_storage().data_ptr() for leaf in found if leaf.is_contiguous()}
    if len(memory) < len(found) or not memory.isdisjoint(_ONES):
        return trees.axpy(factor, x, gradient)
    torch._foreach_add_(found, added, alpha=factor)
    return gradient
