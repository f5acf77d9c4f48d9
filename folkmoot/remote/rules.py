"""How each operator passes labels on: which results still have private rows in axis 0, or mix them.

Asked only where an argument has private rows in its axis 0. A rule sees labels, shapes and
constants, and says ROWS, MIXED, or nothing: what no rule proves is tangled. To prove ROWS, entry i
of the result must be f(row i), with one f for all i; so a public tensor whose axis 0 runs along the
rows, such as a mask of one row, is no operand. To prove MIXED, the result must be made of sums of
such entries over all rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from folkmoot.remote.indexing import indexed
from folkmoot.remote.labels import TANGLED, Kind, Label, is_blend, joined, summed
from folkmoot.remote.objects import Held, helds_of
from folkmoot.remote.operators import LOSSES


class Call(NamedTuple):
    """One call, as a rule sees it."""

    name: str
    args: Sequence[Any]
    """Arguments, with `Held` in the place of tensors."""
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    """Of the first result."""
    held: Sequence[Held]
    """All objects among the arguments."""

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by place or by name."""
        if len(self.args) > place:
            return self.args[place]
        return self.kwargs.get(name, default)


Rule = Callable[[Call], Kind | None]


def label_of(call: Call) -> Label:
    """Return the label of a call's results."""
    labels = [one.label for one in call.held]
    if all(is_blend(label) for label in labels):
        return joined(labels)
    if any(label.kind is Kind.TANGLED for label in labels):
        return TANGLED
    if call.name == "getitem":
        return indexed(call.args)
    private = [label for label in labels if label.kind is Kind.ROWS]
    first = private[0]
    rule = _RULES.get(call.name)
    # Rows of two tables, or in two orders, do not belong together.
    if rule is None or any(label.key != first.key for label in private):
        return TANGLED
    try:
        kind, fewest = rule(call), min(label.rows for label in labels)
    except (ValueError, TypeError, IndexError, AttributeError):
        # Arguments in places where the rule does not look for them.
        return TANGLED
    # Masks drawn apart leave of each other's rows but a share.
    share = math.prod(label.share for label in private)
    if call.name == "dropout" and call.get(2, "train"):
        share *= 1 - call.get(1, "p")
    alone = len(private) == sum(label.kind is not Kind.PUBLIC for label in labels)
    pure = alone and all(label.pure for label in private) and call.name != "batch_norm"
    rows = Label(Kind.ROWS, fewest, first.key, pure, share)
    if kind is Kind.MIXED:
        return summed(rows, next(x.outline.shape[0] for x in call.held if x.label is first))
    return rows if kind is Kind.ROWS else TANGLED


def _is_rows(value: Any, ndim: int = 1) -> bool:
    """Whether an argument has private rows in axis 0, and at least so many axes."""
    return type(value) is Held and value.label.kind is Kind.ROWS and value.tensor.dim() >= ndim


def _shared(value: Any) -> bool:
    """Whether an argument is the same for all rows: a constant, or public or mixed numbers."""
    return all(is_blend(one.label) for one in helds_of((value,)))


def _elementwise(call: Call, shape: tuple[int, ...] | None = None) -> Kind | None:
    """Rows stay rows where all others are broadcast along them."""
    shape = call.shape if shape is None else shape
    for held in call.held:
        size = held.tensor.shape
        along = len(size) == len(shape) and len(size) > 0
        if held.label.kind is Kind.ROWS:
            if not along or size[0] != shape[0]:
                return None
        elif along and size[0] != 1:
            return None
    return Kind.ROWS


def _axis(value: Any, ndim: int) -> int | None:
    """Return an axis counted from 0, or None where it is no plain number of one."""
    if type(value) is not int or not -ndim <= value < ndim:
        return None
    return value % ndim


def _summed(call: Call) -> Kind | None:
    """Sums, means, and what follows from them: mixed over axis 0, else still rows."""
    x, axes = call.args[0], call.get(1, "dim")
    if not _is_rows(x):
        return None
    if axes is None or type(axes) is bool or axes in ([], ()):
        return Kind.MIXED
    listed = axes if isinstance(axes, list | tuple) else [axes]
    found = [_axis(one, x.tensor.dim()) for one in listed]
    if None in found:
        return None
    return Kind.MIXED if 0 in found else Kind.ROWS


def _along(call: Call) -> Kind | None:
    """What chooses, sorts or accumulates along an axis: rows stay where it is another than 0."""
    if not _is_rows(call.args[0]):
        return None
    if call.name in ("max", "min") and type(call.get(1, "other")) is Held:
        return _elementwise(call)
    if call.name == "flip" and len(call.args) > 2:
        return None
    place = 2 if call.name in ("topk", "vector_norm") else 1
    last = -1 if call.name in ("topk", "sort", "argsort") else None
    axis = _axis(call.get(place, "dim", last), call.args[0].tensor.dim())
    return Kind.ROWS if axis else None


def _linear(call: Call) -> Kind | None:
    # A bias of two axes would be one for each row.
    flat = all(one.outline.shape[1:] == () for one in call.held[2:])
    rest = (*call.args[1:], call.kwargs)
    return Kind.ROWS if flat and _is_rows(call.args[0], 2) and _shared(rest) else None


def _matmul(call: Call) -> Kind | None:
    a, b = call.args
    if not _is_rows(a, 2) or type(b) is not Held or b.tensor.dim() > 2 or not _shared(b):
        return None
    return Kind.ROWS


def _addmm(call: Call) -> Kind | None:
    bias, a, b = call.args
    flat = type(bias) is Held and (bias.tensor.dim() < 2 or bias.tensor.shape[0] == 1)
    return Kind.ROWS if flat and _is_rows(a, 2) and _shared((bias, b, call.kwargs)) else None


def _bmm(call: Call) -> Kind | None:
    return Kind.ROWS if all(_is_rows(one, 3) for one in call.args) else None


def _layers(ndim: int) -> Rule:
    """Layers whose input has rows in axis 0 and so many axes; their parameters are shared."""

    def rule(call: Call) -> Kind | None:
        x = call.args[0]
        exact = _is_rows(x, ndim) and (ndim == 2 or x.tensor.dim() == ndim)
        return Kind.ROWS if exact and _shared((*call.args[1:], call.kwargs)) else None

    return rule


def _layer_norm(call: Call) -> Kind | None:
    x, shape = call.args[0], call.get(1, "normalized_shape")
    small = isinstance(shape, list | tuple) and _is_rows(x, len(shape) + 1)
    return Kind.ROWS if small and _shared((*call.args[2:], call.kwargs)) else None


def _embedding(call: Call) -> Kind | None:
    weight, index = call.args[:2]
    return Kind.ROWS if _is_rows(index) and _shared(weight) else None


def _kept(call: Call) -> Kind | None:
    """Other shapes of the same numbers in the same order: rows stay where axis 0 does."""
    x = call.args[0]
    stays = _is_rows(x) and call.shape[:1] == tuple(x.tensor.shape[:1])
    return Kind.ROWS if stays and _shared(call.args[1:]) else None


def _expanded(call: Call) -> Kind | None:
    same = _is_rows(call.args[0]) and len(call.shape) == call.args[0].tensor.dim()
    return _kept(call) if same else None


def _unsqueezed(call: Call) -> Kind | None:
    axis = _axis(call.get(1, "dim"), call.args[0].tensor.dim() + 1)
    return Kind.ROWS if _is_rows(call.args[0]) and axis else None


def _transposed(call: Call) -> Kind | None:
    axes = [_axis(one, call.args[0].tensor.dim()) for one in call.args[1:]]
    return Kind.ROWS if _is_rows(call.args[0]) and len(axes) == 2 and all(axes) else None


def _permuted(call: Call) -> Kind | None:
    axes = call.args[1] if len(call.args) == 2 else call.args[1:]
    first = isinstance(axes, list | tuple) and _axis(axes[0], len(axes)) == 0
    return Kind.ROWS if _is_rows(call.args[0]) and first else None


def _joined(call: Call) -> Kind | None:
    """`cat` and `stack` of tensors that all have the rows in axis 0, along another."""
    parts, axis = call.args[0], call.get(1, "dim", 0)
    if not all(_is_rows(one) for one in parts):
        return None
    ndim = parts[0].tensor.dim() + (call.name == "stack")
    same = all(one.tensor.dim() == parts[0].tensor.dim() for one in parts)
    return Kind.ROWS if same and _axis(axis, ndim) else None


def _gathered(call: Call) -> Kind | None:
    x, axis, index = call.args
    if not _is_rows(x) or not _axis(axis, x.tensor.dim()):
        return None
    if call.name == "index_select":
        return Kind.ROWS if _shared(index) else None
    return Kind.ROWS if _is_rows(index) else None


def _padded(call: Call) -> Kind | None:
    x, pad = call.args[0], call.get(1, "pad")
    # It is given for the last axis first; axis 0 comes last, if at all.
    inner = isinstance(pad, list | tuple) and _is_rows(x) and len(pad) < 2 * x.tensor.dim()
    return Kind.ROWS if inner else None


def _loss(call: Call) -> Kind | None:
    """A loss of rows: rows where it is not reduced, else mixed."""
    if len(call.args) != 2 or not all(type(one) is Held for one in call.args):
        return None
    x, target = call.args
    if call.name in ("cross_entropy", "nll_loss"):
        # Of one axis, the rows would be the classes.
        kind = Kind.ROWS if _is_rows(x, 2) and _is_rows(target) else None
        kind = kind if _shared(call.kwargs.get("weight")) else None
    else:
        shapes = [one.tensor.shape for one in call.held]
        wide = max(map(len, shapes))
        first = max(shape[0] if len(shape) == wide else 1 for shape in shapes) if wide else 0
        kind = _elementwise(call, (first, *(1 for _ in range(wide - 1)))) if wide else None
    if kind is None or call.kwargs.get("reduction") == "none":
        return kind
    return Kind.MIXED


_EACH_ENTRY = """
    abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clone
    contiguous cos cosh detach div dropout elu eq erf exp expm1 floor floor_divide full_like ge
    gelu gt isfinite isinf isnan le leaky_relu lerp log log10 log1p log2 logical_and logical_not
    logical_or logical_xor lt masked_fill maximum minimum mul ne neg ones_like pow reciprocal
    relu remainder round rsqrt rsub sigmoid sign silu sin sinh softplus sqrt square sub tan tanh
    to trunc where zeros_like
"""
_ALONG = """
    amax amin argmax argmin argsort cumsum flip log_softmax logsumexp max median min prod softmax
    sort topk vector_norm
"""
_RULES: dict[str, Rule] = {
    **dict.fromkeys(LOSSES, _loss),
    **dict.fromkeys(_EACH_ENTRY.split(), _elementwise),
    **dict.fromkeys(("all", "any", "count_nonzero", "mean", "std", "sum", "var"), _summed),
    **dict.fromkeys(_ALONG.split(), _along),
    **dict.fromkeys(("matmul", "mm", "mv"), _matmul),
    **dict.fromkeys(("conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"), _layers(4)),
    **dict.fromkeys(("conv1d", "max_pool1d", "adaptive_avg_pool1d"), _layers(3)),
    **dict.fromkeys(("batch_norm", "group_norm"), _layers(2)),
    **dict.fromkeys(("flatten", "reshape", "view", "squeeze", "one_hot"), _kept),
    **dict.fromkeys(("expand", "repeat"), _expanded),
    **dict.fromkeys(("cat", "stack"), _joined),
    **dict.fromkeys(("gather", "index_select"), _gathered),
    "addmm": _addmm,
    "bmm": _bmm,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "pad": _padded,
    "permute": _permuted,
    "transpose": _transposed,
    "unsqueeze": _unsqueezed,
}
