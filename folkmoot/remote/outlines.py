"""What an operator will give, before it runs: shapes, dtypes and bytes, by one run on meta tensors.

Both sides ask: the user's to know a pointer's shape without a message, the worker's to refuse what
would not fit into memory. A meta run allocates nothing; answers are kept by operator, shapes,
dtypes and constants.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folkmoot.remote.operators import LOSSES, Operator

_MOST_KEPT = 4096


class Outline(NamedTuple):
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes where it is stored by itself."""
        return math.prod(self.shape) * self.dtype.itemsize


class Outcome(NamedTuple):
    """What an operator gives."""

    outlines: tuple[Outline, ...]
    differentiable: tuple[bool, ...]
    """Whether a gradient can flow through each."""
    form: Any
    """The named tuple that torch gives, where it gives several; None for one tensor."""
    on_the_way: int = 0
    """Bytes that torch takes for what it computes in between, where they may be far more."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all of it, each stored by itself."""
        return sum(outline.num_bytes for outline in self.outlines)


_KEPT: dict[Any, Outcome] = {}
_METAS: dict[Any, Tensor] = {}


def of(tensor: Tensor) -> Outline:
    """Return a tensor's outline."""
    return Outline(tuple(tensor.shape), tensor.dtype)


def meta(outline: Outline, wants_grad: bool = False) -> Tensor:
    """Return a tensor of that outline that has no numbers; the same one each time."""
    key = (outline, wants_grad)
    found = _METAS.get(key)
    if found is None:
        if len(_METAS) >= _MOST_KEPT:
            _METAS.clear()
        found = torch.empty(outline.shape, dtype=outline.dtype, device="meta")
        _METAS[key] = found.requires_grad_(wants_grad)
    return found


def outcome(operator: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Outcome:
    """Return what an operator gives.

    Args:
        operator: From the allow-list.
        args: Its arguments; what stands for a tensor has an `outline`.
        kwargs: Those by name.

    Raises:
        RuntimeError, TypeError, ValueError, IndexError, NotImplementedError: torch's own, where the
            operator cannot take them; no number of a tensor is in the text, for there are none.
    """
    if operator.name == "getitem" and len(args) == 2:
        args = (args[0], _canonical(args[0], args[1]))
    key = (operator.name, *map(_key, args), *(kwargs and _key(kwargs)))
    found = _KEPT.get(key)
    if found is None:
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        found = _KEPT[key] = _run(operator, args, kwargs)
    return found


def warm() -> None:
    """Let torch load what its first meta runs need, a second's work that forks then need not do."""
    x = meta(Outline((2, 2), torch.float32), wants_grad=True)
    torch.relu(x @ x)


def _run(operator: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Outcome:
    # What is written into would keep a history, and options such as weights have no gradients.
    flowing = not operator.writes
    metas = [_metas(one, flowing) for one in args]
    with torch.set_grad_enabled(flowing):
        given = operator.run(*metas, **{name: _metas(one, False) for name, one in kwargs.items()})
    several = [given] if isinstance(given, Tensor) else list(given)
    flows = tuple(one.requires_grad or not flowing for one in several)
    form = None if isinstance(given, Tensor) else type(given)
    found = Outcome(tuple(of(one) for one in several), flows, form)
    tensors = [one for one in (*metas, *kwargs.values()) if isinstance(one, Tensor)]
    tensors += [meta(one.outline) for one in kwargs.values() if hasattr(one, "outline")]
    return found._replace(on_the_way=_on_the_way(operator.name, tensors, found.outlines[0]))


def _on_the_way(name: str, tensors: Sequence[Tensor], result: Outline) -> int:
    """Return the bytes of what torch makes between tensors and result, if it may be far more."""
    shapes = [tuple(one.shape) for one in tensors]
    itemsize = max((one.dtype.itemsize for one in tensors), default=1)
    if name in LOSSES and name not in ("cross_entropy", "nll_loss"):
        # Each entry of one against each of the other, which are reduced after that.
        return math.prod(torch.broadcast_shapes(*shapes)) * itemsize
    if name == "matmul" and min(map(len, shapes)) > 2 and shapes[0][:-2] != shapes[1][:-2]:
        batch = math.prod(torch.broadcast_shapes(*(shape[:-2] for shape in shapes)))
        return batch * sum(math.prod(shape[-2:]) for shape in shapes) * itemsize
    if name in ("conv1d", "conv2d") and result.dtype != torch.float32:
        # Each window as a column; floats of 32 bits have a way without.
        size = len(shapes[1]) - 2
        places = math.prod(result.shape[: -size - 1]) * math.prod(result.shape[-size:])
        return places * shapes[0][-size - 1] * math.prod(shapes[1][2:]) * itemsize
    return 0


def _metas(value: Any, wants_grad: bool) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        return kind(_metas(one, wants_grad) for one in value)
    outline = getattr(value, "outline", None)
    if outline is None:
        return value
    return meta(outline, wants_grad and outline.dtype.is_floating_point)


def _canonical(x: Any, index: Any) -> Any:
    """Let all slices of one length be one: a batch begins elsewhere in each step."""
    if type(index) is not slice or not x.outline.shape:
        return index
    first, last, step = index.indices(x.outline.shape[0])
    return slice(0, len(range(first, last, step)), 1) if step > 0 else index


def _key(value: Any) -> Any:
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is dict:
        return tuple((name, _key(one)) for name, one in value.items())
    if kind is slice:
        return kind, value.start, value.stop, value.step
    if kind is list or kind is tuple:
        return kind, *map(_key, value)
    # 1, 1.0 and True are equal, and do not give the same dtype.
    outline = None if kind in _PLAIN else getattr(value, "outline", None)
    return (kind, value) if outline is None else outline


_PLAIN = frozenset((int, float, bool, str, slice, type(None), type(Ellipsis), torch.dtype))
