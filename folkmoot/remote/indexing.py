"""What an index leaves of private rows: some of them, in a known order, or one alone."""

import hashlib
from collections.abc import Sequence
from typing import Any

from folkmoot.remote.labels import PUBLIC, TANGLED, Kind, Label, mixed
from folkmoot.remote.objects import Held


def indexed(args: Sequence[Any]) -> Label:
    """Return the label of `x[index]`, where private rows are among the two."""
    x, index = args
    first, *rest = index if type(index) is tuple and index else (index,)
    if type(x) is not Held or x.label.kind is not Kind.ROWS or not x.tensor.dim():
        return TANGLED
    # Of other kinds, such as a tensor or ..., some move axis 0 elsewhere.
    if not all(type(one) in (int, slice) for one in rest):
        return TANGLED
    size, label = x.tensor.shape[0], x.label
    if type(first) is slice:
        start, stop, step = first.indices(size)
        count = len(range(start, stop, step))
        if count == size and step == 1:
            return label
        key = (label.key, start, stop, step)
        return label._replace(rows=min(label.rows, count), key=key)
    if type(first) is int:
        return mixed(min(label.rows, 1))
    if type(first) is Held and not rest and first.label == PUBLIC:
        return _picked(label, first, size)
    return TANGLED


def _picked(label: Label, index: Held, size: int) -> Label:
    """Rows by public numbers, each at most once: twice, one would count as two."""
    numbers = index.tensor
    if numbers.dim() != 1 or numbers.dtype.is_floating_point or numbers.dtype.itemsize != 8:
        return TANGLED
    places = numbers % max(size, 1)
    if len(places.unique()) != len(places):
        return TANGLED
    digest = hashlib.sha256(places.numpy().tobytes()).digest()
    return label._replace(rows=min(label.rows, len(places)), key=(label.key, digest))
