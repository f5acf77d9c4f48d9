"""Clients as row ranges of pooled tensors: sorted once, then every client is a view.

The examples of all clients lie in one tensor a leaf, client by client, and a client's train rows
before its test rows. So nothing is copied when a client is asked for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.digest import digest_of
from folkmoot.data.examples import (
    as_examples,
    check_examples,
    number_of_classes,
    select,
)


def from_arrays(
    arrays: Any,
    client: Any,
    *,
    split: Any = None,
    name: str = "arrays",
) -> ClientData:
    """Build clients from pooled arrays and a column that says whose each row is.

    Rows are sorted once so that each client's are contiguous; a client's examples are then views,
    in the order they had in the arrays, and cost about 3 microseconds.

    Args:
        arrays: Examples of all clients together: a Tree, an (x, y) pair or a Dataset, leaves (n,
            ...).
        client: The client id of each row, (n,), integers or strings.
        split: 0 for train rows, anything else for the client's own test rows, (n,); None if all are
            train rows.
        name: What the set is called in tables and errors.

    Returns:
        Clients by ascending id. Clients have tests if any row is a test row.

    Raises:
        DataError: If lengths differ, a client has no train row, or a value is not finite.
    """
    examples = as_examples(arrays, owner=name)
    owners = column(client, "client", name)
    rows = _checked_rows(examples, owners)
    test = np.zeros(rows, dtype=bool) if split is None else column(split, "split", name) != 0
    for label, values in (("client", owners), ("split", test)):
        if values.shape != (rows,):
            raise DataError(
                f"{name}: {label} must hold one value a row, so its shape must be ({rows},), but "
                f"is {values.shape}."
            )
    ids, place = np.unique(owners, return_inverse=True)
    order = np.lexsort((test, place))
    if (order[1:] < order[:-1]).any():
        examples = select(examples, torch.from_numpy(order))
    train_sizes = np.bincount(place[~test], minlength=len(ids))
    test_sizes = np.bincount(place[test], minlength=len(ids))
    empty = np.flatnonzero(train_sizes == 0)
    if len(empty):
        raise DataError(
            f"{name}: client {ids[empty[0]].item()!r} has no train row ({len(empty)} such "
            "client(s)). Leave those clients out of the arrays, or move some of their rows to "
            "train."
        )
    return from_pool(examples, ids.tolist(), train_sizes, test_sizes, name=name)


def from_pool(
    examples: Tree,
    ids: Sequence[Id],
    train_sizes: Any,
    test_sizes: Any = None,
    *,
    name: str,
    num_classes: int | None = None,
) -> ClientData:
    """Build clients from a Tree whose rows lie client by client, train rows before test rows.

    Nothing is checked: this is the fast way for sets whose files are known. Use `from_arrays` for
    others.

    Args:
        examples: Leaves (n, ...).
        ids: Client ids in the order of their rows.
        train_sizes: Train rows of each client.
        test_sizes: Test rows of each client; None if there are none.
        name: What the set is called.
        num_classes: Number of classes; found from "y" if None.
    """
    train_sizes = np.asarray(train_sizes, dtype=np.int64)
    held_out = (
        np.zeros_like(train_sizes) if test_sizes is None else np.asarray(test_sizes, dtype=np.int64)
    )
    stops = np.cumsum(train_sizes + held_out)
    starts = stops - train_sizes - held_out
    middles = starts + train_sizes
    ranges = dict(
        zip(ids, zip(starts.tolist(), middles.tolist(), stops.tolist(), strict=True), strict=True)
    )
    nested = any(isinstance(value, dict) for value in examples.values())
    items = tuple(examples.items())

    def rows(start: int, stop: int) -> Tree:
        if nested:
            return trees.map(lambda leaf: leaf[start:stop], examples)
        # Half the time of `trees.map`, which counts where a round takes microseconds a client.
        return {leaf: values[start:stop] for leaf, values in items}

    def train(client: Id) -> Tree:
        start, middle, _ = ranges[client]
        return rows(start, middle)

    def test(client: Id) -> Tree | None:
        _, middle, stop = ranges[client]
        return rows(middle, stop) if stop > middle else None

    return ClientData(
        ids,
        train,
        test=test if held_out.any() else None,
        sizes=train_sizes,
        name=name,
        num_classes=number_of_classes(examples) if num_classes is None else num_classes,
        content=lambda: digest_of(examples) + str(held_out.tolist()),
    )


def column(values: Any, what: str, name: str) -> np.ndarray:
    """Return a column of ids or flags as a numpy vector."""
    if isinstance(values, Tensor):
        values = values.cpu()
    array = np.asarray(values)
    if array.dtype.kind == "O":
        kinds = sorted({type(value).__name__ for value in array.ravel()[:10_000].tolist()})
        if kinds != ["str"]:
            raise DataError(
                f"{name}: {what} must hold integers or strings, but holds {' and '.join(kinds)}."
            )
        array = array.astype(str)
    if what == "client" and array.dtype.kind not in "iuUT":
        raise DataError(
            f"{name}: client ids are integers or strings, but dtype is {array.dtype}. Convert them."
        )
    return array.astype(str) if array.dtype.kind == "T" else array


def _checked_rows(examples: Tree, owners: np.ndarray) -> int:
    """Return the number of rows; what is wrong with one client's rows is told with its name."""
    try:
        return check_examples(examples, None, "pooled")
    except DataError:
        if {leaf.shape[:1] for leaf in trees.leaves(examples)} == {(owners.size,)}:
            for client in np.unique(owners):
                rows = torch.from_numpy(np.flatnonzero(owners == client))
                check_examples(select(examples, rows), client.item(), "pooled")
        raise
