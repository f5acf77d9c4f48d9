"""From a client's named columns, as another format holds them, to examples."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.examples import as_examples, as_tensor

Convert = Callable[[dict[str, Any]], Any]
"""From one client's columns to its examples: a dict of arrays or tensors, or an (x, y) pair."""

NAMES = {"pixels": "x", "image": "x", "label": "y"}
"""Columns that are renamed, so that a classifier finds its x and y."""


def examples_from(columns: Mapping[str, Any], convert: Convert | None, owner: str) -> Tree:
    """Turn columns into examples: by the user's function, or as they are if all are numbers."""
    if convert is not None:
        return as_examples(convert(dict(columns)), owner=owner)
    # A set that has an x or y of its own keeps all its names.
    names = {} if "x" in columns or "y" in columns else NAMES
    tree: Tree = {}
    for column, values in columns.items():
        try:
            array = np.asarray(values)
        except ValueError:
            array = np.empty(0, dtype=object)
        if array.dtype.kind not in "biuf":
            what = "rows of different lengths" if _ragged(values) else "text or objects"
            raise DataError(
                f"{owner}: column {column!r} holds {what}, which no tensor can. Pass convert=, a "
                "function from the columns (a dict) to a dict of tensors."
            )
        tree[names.get(column, column)] = as_tensor(array, owner, column)
    return tree


def _ragged(values: Any) -> bool:
    return len(values) > 0 and isinstance(values[0], list | tuple | np.ndarray)
