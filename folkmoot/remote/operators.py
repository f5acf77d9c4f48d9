"""The allow-list: every operator that a worker runs, by name. What is not here does not exist.

Pure functions of tensors and plain values, and the few that write into a tensor, which are named as
such. None opens a file, shares storage with the outside, keeps a hook, unpickles, or takes a
function. Where `torch.nn.functional` may write into its input (`inplace=`, `max_norm=`), what
stands below it is listed in its place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Operator(NamedTuple):
    """One operator."""

    name: str
    run: Callable[..., Any]
    writes: tuple[int, ...] = ()
    """Places of the arguments that it writes into."""


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)


def _item_set(x: Tensor, index: Any, value: Any) -> Tensor:
    x[index] = value
    return x


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    *rest: Any,
) -> Tensor:
    """Normalize, and write running statistics so that torch counts it.

    torch writes them without saying so. A graph that has read them would flow back through what
    they have become, which its own label does not know of; after a `copy_`, torch refuses that.
    """
    if (mean is None) != (var is None):
        raise ValueError("a running mean and a running variance come together, or not at all")
    if not training or mean is None or var is None:
        return torch.batch_norm(x, weight, bias, mean, var, training, *rest)
    after = mean.clone(), var.clone()
    found = torch.batch_norm(x, weight, bias, *after, training, *rest)
    with torch.no_grad():
        mean.copy_(after[0])
        var.copy_(after[1])
    return found


def _embedding(
    weight: Tensor, index: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False
) -> Tensor:
    """Look up, with dense gradients: sparse ones have no memory that labels could follow."""
    return torch.embedding(weight, index, padding_idx, scale_grad_by_freq)


def _pad(x: Tensor, pad: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    if mode != "constant":
        raise ValueError(f"pad at a worker fills with a constant, not by {mode!r}")
    return F.pad(x, list(pad), mode, value)


_TORCH = """
    abs add addcdiv addcmul addmm all amax amin any argmax argmin argsort bitwise_and
    bitwise_not bitwise_or bitwise_xor bmm cat ceil clamp clone conv1d conv2d cos cosh
    count_nonzero cumsum detach div dropout eq erf exp expm1 flatten floor floor_divide
    full_like gather ge group_norm gt index_select isfinite isinf isnan layer_norm le lerp log
    log10 log1p log2 log_softmax logical_and logical_not logical_or logical_xor logsumexp lt
    masked_fill matmul max max_pool1d max_pool2d maximum mean median min minimum mm mul mv ne
    neg ones_like outer pow prod reciprocal relu remainder round rsqrt rsub sigmoid sign sin
    sinh softmax sort sqrt square squeeze stack std sub sum t tan tanh topk transpose tril triu
    trunc unsqueeze var where zeros_like adaptive_avg_pool1d
"""
_METHODS = "contiguous expand flip permute repeat reshape view"
_BELOW = "adaptive_avg_pool2d avg_pool2d elu gelu leaky_relu linear one_hot silu softplus"
_LOSSES = """
    binary_cross_entropy binary_cross_entropy_with_logits cross_entropy huber_loss l1_loss mse_loss
    nll_loss smooth_l1_loss
"""
_WRITING = """
    abs_ add_ addcdiv_ addcmul_ clamp_ copy_ div_ exp_ fill_ lerp_ masked_fill_ mul_ neg_ pow_
    relu_ sqrt_ sub_ zero_
"""

LOSSES = frozenset(_LOSSES.split())

OPERATORS = {
    **{name: Operator(name, getattr(torch, name)) for name in _TORCH.split()},
    **{name: Operator(name, getattr(Tensor, name)) for name in _METHODS.split()},
    **{name: Operator(name, getattr(torch._C._nn, name)) for name in _BELOW.split()},
    **{name: Operator(name, getattr(F, name)) for name in _LOSSES.split()},
    **{name: Operator(name, getattr(Tensor, name), (0,)) for name in _WRITING.split()},
    "batch_norm": Operator("batch_norm", _batch_norm, (3, 4)),
    "embedding": Operator("embedding", _embedding),
    "getitem": Operator("getitem", Tensor.__getitem__),
    "setitem": Operator("setitem", _item_set, (0,)),
    "to": Operator("to", _to),
    "pad": Operator("pad", _pad),
    "vector_norm": Operator("vector_norm", torch.linalg.vector_norm),
}
"""Name -> operator, for the worker."""

OVERWRITING = frozenset({"copy_", "fill_", "zero_"})
"""Operators that leave nothing of the numbers that were there."""

RANDOM = frozenset({"dropout"})
"""Operators that draw."""

_DTYPES = "float16 bfloat16 float32 float64 uint8 int8 int16 int32 int64 bool"
DTYPES = {name: getattr(torch, name) for name in _DTYPES.split()}
"""Types of numbers, by name."""

_KEYWORDS = """
    alpha approximate beta ceil_mode correction delta descending diagonal dim dtype eps
    ignore_index keepdim label_smoothing largest max min mode negative_slope num_classes ord p
    pos_weight reduction rounding_mode sorted threshold unbiased value weight
"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Keywords that an operator may be given."""

# Without "trunc": torch 2.13 ends the process that divides -2^63 by -1 so.
WORDS = frozenset(("none", "mean", "sum", "floor", "tanh", "constant"))
"""Strings that an operator may be given; "none" is also what `approximate` says."""

_SAME = {
    "add": "__add__ __radd__",
    "bitwise_and": "__and__ __rand__",
    "bitwise_not": "__invert__",
    "bitwise_or": "__or__ __ror__",
    "bitwise_xor": "__xor__ __rxor__",
    "div": "__truediv__ divide true_divide",
    "eq": "__eq__",
    "floor_divide": "__floordiv__",
    "ge": "__ge__",
    "getitem": "__getitem__",
    "gt": "__gt__",
    "le": "__le__",
    "lt": "__lt__",
    "matmul": "__matmul__",
    "mul": "__mul__ __rmul__ multiply",
    "ne": "__ne__",
    "neg": "__neg__ negative",
    "pow": "__pow__",
    "remainder": "__mod__",
    "setitem": "__setitem__",
    "sub": "__sub__ subtract",
    "abs": "__abs__ absolute",
    "clamp": "clip",
    "transpose": "swapaxes swapdims",
    "add_": "__iadd__",
    "sub_": "__isub__",
    "mul_": "__imul__",
    "div_": "__itruediv__ __idiv__",
}


def _names() -> dict[Any, str]:
    """Return torch's callables -> the operator that each is, for the user's side."""
    found: dict[Any, str] = {getattr(F, name): name for name in (*LOSSES, "one_hot", "pad")}
    for name in OPERATORS.keys() - LOSSES - {"pad", "to"}:
        for word in (name, *_SAME.get(name, "").split()):
            for home in (torch, Tensor, torch._C._nn):
                call = getattr(home, word, None)
                if callable(call):
                    found.setdefault(call, name)
    found[torch.linalg.vector_norm] = "vector_norm"
    return found


NAMES = _names()
"""Callable of torch -> name, for the user's side."""
