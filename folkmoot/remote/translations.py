"""What torch writes in Python around its operators, told again in operators of the list.

A function of `torch.nn.functional` hands a pointer over before it does anything. Here stands what
it would have done; each call in it comes to the pointer again, as an operator.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from folkmoot.core.errors import did_you_mean
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.operators import OPERATORS


def translated(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do what a function of torch does, in operators of the list.

    Raises:
        RemoteError: If it is not known how.
    """
    known = _TABLE.get(func)
    if known is not None:
        return known(*args, **kwargs)
    # What a method of torch's own does in Python around operators.
    name = getattr(func, "__name__", str(func))
    if name in _PLAIN_METHODS and hasattr(func, "__wrapped__"):
        return func.__wrapped__(*args, **kwargs)
    if name in ("__get__", "__set__"):
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    hint = did_you_mean(name, OPERATORS, listed=False)
    raise RemoteError(
        f"{name} is not on the list of operators that a worker runs.{hint} Write it in operators "
        "that are (folkmoot.remote.operators), or get() what may leave and go on here."
    )


_PLAIN_METHODS = ("__rsub__", "__rdiv__", "__rtruediv__", "__rpow__", "__pow__", "__floordiv__",
                  "__rfloordiv__", "__rmatmul__", "__ipow__")  # fmt: skip


def _relu(x: Tensor, inplace: bool = False) -> Tensor:
    return x.relu_() if inplace else torch.relu(x)


def _quiet(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An activation, without its `inplace=`: the result is the same one."""

    def activation(x: Tensor, *given: Any, inplace: bool = False, **options: Any) -> Tensor:
        return run(x, *given, *options.values())

    return activation


def _softmax(x: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    return torch.softmax(x, _named(dim), dtype=dtype)


def _log_softmax(
    x: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    return torch.log_softmax(x, _named(dim), dtype=dtype)


def _named(dim: int | None) -> int:
    if dim is None:
        raise RemoteError("softmax at a worker needs its dim=.")
    return dim


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.dropout(x, p, training)


def _embedding(
    x: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if max_norm is not None or sparse:
        raise RemoteError("An embedding at a worker takes neither max_norm= nor sparse=True.")
    place = -1 if padding_idx is None else padding_idx % weight.shape[0]
    return torch.embedding(weight, x, place, scale_grad_by_freq)


def _layer_norm(
    x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    return torch.layer_norm(x, tuple(shape), weight, bias, eps)


def _group_norm(
    x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    return torch.group_norm(x, groups, weight, bias, eps)


def _batch_norm(
    x: Tensor,
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training and x.numel() == x.shape[1]:
        raise ValueError(f"Statistics of a batch need more than one value, got {list(x.shape)}.")
    return torch.batch_norm(x, weight, bias, mean, var, training, momentum, eps, False)


def _pool(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def pool(
        x: Tensor,
        size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        if return_indices:
            raise RemoteError("max_pool at a worker returns no indices.")
        return run(x, size, size if stride is None else stride, padding, dilation, ceil_mode)

    return pool


def _norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, **given: Any) -> Tensor:
    order = 2 if p in (None, "fro") else p
    return torch.linalg.vector_norm(x, order, dim, keepdim)


def _part(x: Tensor, dim: int, part: Any) -> Any:
    return x[(*(slice(None) for _ in range(dim % x.dim())), part)]


def _split(x: Tensor, split_size_or_sections: Any, dim: int = 0) -> Any:
    given, size = split_size_or_sections, x.shape[dim]
    if isinstance(given, int):
        given = [min(given, size - begin) for begin in range(0, size, given)] or [0]
    ends = [sum(given[: place + 1]) for place in range(len(given))]
    if ends[-1] != size or len(given) > _MOST_PARTS:
        raise RemoteError(f"{size} entries cannot be split at a worker into {len(given)} parts.")
    return tuple(
        _part(x, dim, slice(end - part, end)) for part, end in zip(given, ends, strict=True)
    )


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> Any:
    return _split(x, max(1, -(-x.shape[dim] // chunks)), dim)


def _unbind(x: Tensor, dim: int = 0) -> Any:
    if x.shape[dim] > _MOST_PARTS:
        raise RemoteError(f"unbind at a worker gives at most {_MOST_PARTS} parts.")
    return tuple(_part(x, dim, place) for place in range(x.shape[dim]))


def _select(x: Tensor, dim: int, index: int) -> Any:
    return _part(x, dim, index)


def _narrow(x: Tensor, dim: int, start: int, length: int) -> Any:
    return _part(x, dim, slice(start, start + length))


def _getter(name: str) -> Any:
    """What torch hands over where an attribute is read."""
    return getattr(Tensor, name).__get__


_MOST_PARTS = 1024
_TABLE: dict[Any, Callable[..., Any]] = {
    F.adaptive_avg_pool2d: lambda x, size: torch._C._nn.adaptive_avg_pool2d(x, size),
    F.batch_norm: _batch_norm,
    F.dropout: _dropout,
    F.elu: _quiet(torch._C._nn.elu),
    F.embedding: _embedding,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.leaky_relu: _quiet(torch._C._nn.leaky_relu),
    F.log_softmax: _log_softmax,
    F.max_pool1d: _pool(torch.max_pool1d),
    F.max_pool2d: _pool(torch.max_pool2d),
    F.relu: _relu,
    F.silu: _quiet(torch._C._nn.silu),
    F.softmax: _softmax,
    _getter("T"): lambda x: x.t() if x.dim() <= 2 else x.permute(*range(x.dim())[::-1]),
    _getter("mT"): lambda x: x.transpose(-2, -1),
    **dict.fromkeys((torch.chunk, Tensor.chunk), _chunk),
    **dict.fromkeys((torch.narrow, Tensor.narrow), _narrow),
    **dict.fromkeys((torch.norm, Tensor.norm), _norm),
    **dict.fromkeys((torch.select, Tensor.select), _select),
    **dict.fromkeys((torch.split, Tensor.split), _split),
    **dict.fromkeys((torch.unbind, Tensor.unbind), _unbind),
    **dict.fromkeys((Tensor.expand_as,), lambda x, other: x.expand(other.shape)),
    **dict.fromkeys((Tensor.view_as, Tensor.reshape_as), lambda x, other: x.view(other.shape)),
}
"""Function of torch -> what it would have done."""
