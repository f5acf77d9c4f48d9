"""Arrays of other libraries, and what they become: tensors.

Two conversions change numbers. float64 from numpy, pandas or plain Python becomes torch's
default dtype, because models have that dtype; and integer arrays become int64, because losses ask
for it, but uint8 and int8 arrays of two or more dimensions (pictures) stay as they are. Tensors are
never converted.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree

_NAMES = {"pixels": "x", "image": "x", "img": "x", "label": "y"}


def as_tensor(value: Any, owner: str, leaf: str) -> Tensor:
    """Turn one array-like into a tensor; the module says which dtypes change."""
    if isinstance(value, Tensor):
        return value
    if not is_array(value):
        raise DataError(
            f"{owner}: leaf {leaf!r} is {describe(value)}, not a tensor or a numeric array. "
            "Convert it with torch.as_tensor, or leave it out."
        )
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{owner}: leaf {leaf!r} holds values of dtype {array.dtype}, not numbers. "
            "Code them as integers (classes, tokens) or floats first."
        )
    if array.dtype == np.float64:
        array = array.astype(_numpy_default_float())
    elif array.dtype.kind in "iu" and (array.dtype.itemsize > 1 or array.ndim == 1):
        array = array.astype(np.int64, copy=False)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def _numpy_default_float() -> type:
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32


def from_columns(columns: Mapping[str, Any], owner: str, cure: str) -> Tree:
    """Turn named columns into examples if all are numbers; `cure` ends the error if they are not.

    Columns keep their names unless `renamed` knows better.
    """
    tree: Tree = {}
    for column, values in columns.items():
        try:
            array = np.asarray(values)
        except ValueError:
            array = np.empty(0, dtype=object)
        if array.dtype.kind not in "biuf":
            ragged = len(values) > 0 and isinstance(values[0], list | tuple | np.ndarray)
            what = "rows of different lengths" if ragged else "text or objects"
            raise DataError(f"{owner}: column {column!r} holds {what}, which no tensor can. {cure}")
        tree[column] = as_tensor(array, owner, column)
    return renamed(tree)


def renamed(tree: Tree) -> Tree:
    """Rename columns so that a classifier finds its x and y, unless the set has one of its own."""
    if "x" in tree or "y" in tree:
        return tree
    return {_NAMES.get(column, column): leaf for column, leaf in tree.items()}


def is_array(value: Any) -> bool:
    """Say whether this is a tensor, a numpy array or a pandas column or table."""
    return isinstance(value, Tensor | np.ndarray) or hasattr(value, "to_numpy")


def is_pair(value: Any) -> bool:
    """Say whether this is an (x, y) pair of arrays."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(is_array(part) for part in value)
    )


def is_hugging_face(value: Any) -> bool:
    """Say whether this is a data set of Hugging Face's `datasets`, or a dict of splits of one."""
    return hasattr(value, "with_format") and hasattr(value, "column_names")


def describe(value: Any) -> str:
    """Name a value's type for an error, with its length where it has one."""
    kind = type(value)
    name = (
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )
    article = "an" if name[0] in "aeio" else "a"
    return (
        f"{article} {name} of {len(value)}"
        if isinstance(value, tuple | list)
        else f"{article} {name}"
    )


def owner_of(client_id: int | str | None, part: str) -> str:
    """Begin an error's sentence: 'Client 7, train examples'."""
    return f"The {part} examples" if client_id is None else f"Client {client_id!r}, {part} examples"
