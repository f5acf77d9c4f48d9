"""From a client's named columns, as another format holds them, to examples."""

from collections.abc import Callable, Mapping
from typing import Any

from folkmoot.core.tree import Tree
from folkmoot.data.arrays import from_columns
from folkmoot.data.examples import as_examples

Convert = Callable[[dict[str, Any]], Any]
"""From one client's columns to its examples: a dict of arrays or tensors, or an (x, y) pair."""

_CURE = "Pass convert=, a function from the columns (a dict) to a dict of tensors."


def examples_from(columns: Mapping[str, Any], convert: Convert | None, owner: str) -> Tree:
    """Turn columns into examples: by the user's function, or as they are if all are numbers."""
    if convert is None:
        return from_columns(columns, owner, _CURE)
    return as_examples(convert(dict(columns)), owner=owner)
