"""Examples: a dict of tensors that share their leading dimension, one row an example.

Whatever a user holds (tensors, numpy arrays, an (x, y) pair, a Dataset) becomes such a dict here;
`arrays` says which dtypes change.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, default_collate

from folkmoot.core import tree as trees
from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import (
    as_tensor,
    describe,
    from_columns,
    is_hugging_face,
    is_pair,
    owner_of,
    renamed,
)


def count(tree: Tree) -> int:
    """Return the number of examples: the leading dimension of the first leaf."""
    found = trees.leaves(tree)
    return len(found[0]) if found else 0


def select(tree: Tree, rows: Tensor) -> Tree:
    """Copy the rows with these indices out of every leaf."""
    return trees.map(lambda leaf: leaf[rows.to(leaf.device)], tree)


def number_of_classes(tree: Tree) -> int | None:
    """Return 1 + the largest label where leaf "y" is a vector of integers from 0, else None."""
    y = tree.get("y")
    if not isinstance(y, Tensor) or y.ndim != 1 or y.numel() == 0:
        return None
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or int(y.min()) < 0:
        return None
    return int(y.max()) + 1


def as_examples(anything: Any, *, owner: str = "The test data") -> Tree:
    """Turn a dict of arrays, an (x, y) pair or a Dataset into a Tree of tensors.

    A torch Dataset is read whole: items are collated as a DataLoader would, an item (x, y) gives
    the leaves "x" and "y", an item that is a dict keeps its names. A Hugging Face Dataset keeps its
    columns' names too, but a picture becomes "x" and "label" becomes "y".

    Args:
        anything: A (nested) dict of tensors or arrays; a tuple or list of two of them; a map-style
            torch Dataset; or one split of Hugging Face's.
        owner: Whose examples these are; begins the sentence of an error.

    Returns:
        A dict of tensors. Tensors and writable arrays of the right dtype are shared, not copied.

    Raises:
        DataError: If it is none of these, or a leaf is not numeric.
    """
    if is_hugging_face(anything):
        return _read_hugging_face(anything, owner)
    if isinstance(anything, Mapping):
        return _tree(anything, owner, "")
    if isinstance(anything, Dataset):
        return read_dataset(anything, owner=owner)
    if is_pair(anything):
        return {
            name: as_tensor(part, owner, name) for name, part in zip("xy", anything, strict=True)
        }
    raise DataError(
        f"{owner}: found {describe(anything)}. Pass a dict of tensors such as "
        "{'x': ..., 'y': ...}, a pair (x, y) of tensors or arrays, or a torch Dataset."
    )


def read_dataset(dataset: Any, *, owner: str = "The test data") -> Tree:
    """Read a map-style torch Dataset whole into a Tree, with torch's default collate."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{owner}: {describe(dataset)} has no length, so its examples cannot be counted or "
            "shuffled. Read it into tensors first, and pass {'x': ..., 'y': ...}."
        )
    if len(dataset) == 0:
        raise DataError(f"{owner}: the Dataset is empty. Leave it out.")
    if isinstance(dataset, TensorDataset):
        return _collated(dataset.tensors, owner)
    if isinstance(dataset, Subset) and isinstance(dataset.dataset, TensorDataset):
        rows = torch.as_tensor(dataset.indices)
        return _collated(tuple(tensor[rows] for tensor in dataset.dataset.tensors), owner)
    items = [dataset[index] for index in range(len(dataset))]
    try:
        batch = default_collate(items)
    except (TypeError, RuntimeError) as error:
        raise DataError(
            f"{owner}: the Dataset's items cannot be put into one tensor ({error}). Give it a "
            "transform that makes every item tensors of one shape."
        ) from error
    return _default_floats(_collated(batch, owner))


def _read_hugging_face(dataset: Any, owner: str) -> Tree:
    if isinstance(dataset, Mapping):
        raise DataError(
            f"{owner}: {describe(dataset)} holds the splits {', '.join(dataset)}. Pass one of them."
        )
    if not hasattr(dataset, "__len__") or len(dataset) == 0 or dataset.format["type"] == "custom":
        # What with_transform makes of an item is not in the columns.
        return renamed(read_dataset(dataset, owner=owner))
    cure = "Code it as numbers with dataset.map, or leave it out with dataset.remove_columns."
    return from_columns(dataset.with_format("numpy")[:], owner, cure)


def _collated(batch: Any, owner: str) -> Tree:
    if isinstance(batch, Mapping):
        return _tree(batch, owner, "")
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return {name: as_tensor(part, owner, name) for name, part in zip("xy", batch, strict=True)}
    parts = len(batch) if isinstance(batch, tuple | list) else 1
    raise DataError(
        f"{owner}: an item of the Dataset has {parts} part(s), but a pair (x, y) or a dict of "
        "tensors is needed. Let its __getitem__ return a dict, whose names are then the leaves."
    )


def _default_floats(tree: Tree) -> Tree:
    default = torch.get_default_dtype()
    return trees.map(lambda leaf: leaf.to(default) if leaf.dtype == torch.float64 else leaf, tree)


def _tree(mapping: Mapping[Any, Any], owner: str, prefix: str) -> Tree:
    tree: Tree = {}
    for name, value in mapping.items():
        if not isinstance(name, str):
            raise DataError(
                f"{owner}: the leaves of an example are named by strings, but one is named "
                f"{name!r}. A dict of clients belongs to clients=, not to one client or to test=."
            )
        nested = isinstance(value, Mapping)
        path = f"{prefix}{name}"
        tree[name] = _tree(value, owner, f"{path}/") if nested else as_tensor(value, owner, path)
    return tree


def check_examples(tree: Tree, client_id: int | str | None, part: str) -> int:
    """Refuse examples that could not be trained on, and count those that can.

    Args:
        tree: The examples, leaves (n, ...).
        client_id: Whose they are; None for a pooled set.
        part: "train" or "test".

    Returns:
        The number of examples, at least 1.

    Raises:
        DataError: If there is no leaf or no row, a leaf is not a tensor, leading dimensions differ,
            or a floating leaf has a NaN or an infinity; the message names client and leaf.
    """
    owner = owner_of(client_id, part)
    first, rows = "", -1
    for keys, leaf in trees.items(tree):
        path = trees.name(keys)
        if not isinstance(leaf, Tensor):
            raise DataError(
                f"{owner}: leaf {path!r} is {describe(leaf)}; every leaf must be a tensor."
            )
        if leaf.ndim == 0:
            raise DataError(
                f"{owner}: leaf {path!r} is a single number; its first dimension must count "
                "examples."
            )
        if rows < 0:
            first, rows = path, leaf.shape[0]
        if leaf.shape[0] != rows:
            raise DataError(
                f"{owner}: leaf {first!r} has {rows} rows but leaf {path!r} has {leaf.shape[0]}. "
                "Every leaf needs one row an example."
            )
        if leaf.is_floating_point() and not math.isfinite(float(leaf.sum())):
            _refuse_bad_numbers(leaf, owner, path)
    if rows < 0:
        raise DataError(
            f"{owner}: there is no leaf at all. Expected a dict such as {{'x': ..., 'y': ...}}."
        )
    if rows == 0:
        raise DataError(f"{owner}: there are none. Leave out a client that holds nothing.")
    return rows


def _refuse_bad_numbers(leaf: Tensor, owner: str, path: str) -> None:
    # The sum of finite numbers may overflow, so only an element can convict.
    bad = (~torch.isfinite(leaf)).reshape(leaf.shape[0], -1).any(1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        kind = "a NaN" if leaf[row].isnan().any() else "an infinity"
        raise DataError(
            f"{owner}: leaf {path!r} has {kind} in row {row} ({int(bad.sum())} such row(s)). "
            "Fill or drop missing values first."
        )
