"""A Hugging Face `datasets.Dataset` in which one column says whose row it is.

For instance `flwrlabs/femnist` (column `writer_id`) or `flwrlabs/shakespeare` (column
`character_id`), from a copy on disk: `datasets.load_from_disk`, `datasets.Dataset.from_parquet`.
Nothing is downloaded here.
"""

from typing import Any

import numpy as np

from folkmoot.core.errors import DataError, did_you_mean
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import describe, owner_of
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.examples import check_examples
from folkmoot.data.formats.columns import Convert, examples_from
from folkmoot.data.pooled import column as as_column


def from_hugging_face(
    dataset: Any,
    *,
    client: str,
    x: str | None = None,
    y: str | None = None,
    test: Any = None,
    convert: Convert | None = None,
    name: str = "hugging_face",
) -> ClientData:
    """Build clients from a Hugging Face Dataset; a client's rows are read when asked for.

    Args:
        dataset: A `datasets.Dataset`, one split (not a DatasetDict).
        client: Column of client ids, integers or text.
        x: Column that becomes the leaf "x"; others than x and y are then left out.
        y: Column that becomes the leaf "y".
        test: Another Dataset with the clients' own test rows; clients that are only there are left
            out.
        convert: From one client's columns (a dict of numpy arrays, without the client column) to
            its examples. Needed where a column is text.
        name: What the set is called in tables and errors.

    Returns:
        Clients by id. Pictures are arrays of uint8 or as the Dataset decodes them, without channels
        in front; give them the shape and scale that a model wants with `convert`.

    Raises:
        DataError: If it is no Dataset, or a column is not there.
    """
    rows = _rows(dataset, client, name)
    test_rows = {} if test is None else _rows(test, client, f"{name} (test)")
    wanted = {column: leaf for column, leaf in ((x, "x"), (y, "y")) if column is not None}
    for column in wanted:
        _require(dataset, column, name)

    def read(source: Any, places: Any, owner: Id, part: str) -> Tree:
        found = source.with_format("numpy")[places]
        columns = {key: values for key, values in found.items() if key != client}
        if wanted:
            columns = {leaf: columns[column] for column, leaf in wanted.items()}
        tree = examples_from(columns, convert, owner_of(owner, part))
        check_examples(tree, owner, part)
        return tree

    def held_out(owner: Id) -> Tree | None:
        return read(test, test_rows[owner], owner, "test") if owner in test_rows else None

    ids = list(rows)
    labels = None if y is None else getattr(dataset.features[y], "num_classes", None)
    return ClientData(
        ids,
        lambda owner: read(dataset, rows[owner], owner, "train"),
        test=held_out if set(test_rows) & set(ids) else None,
        sizes=[len(rows[owner]) for owner in ids],
        name=name,
        num_classes=labels,
    )


def _rows(dataset: Any, client: str, name: str) -> dict[Id, Any]:
    """Return each client's row numbers, ascending."""
    if isinstance(dataset, dict):
        raise DataError(
            f"{name}: this holds several splits ({', '.join(dataset)}). Pass one of them, and "
            "perhaps another as test=."
        )
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "column_names"):
        raise DataError(f"{name}: expected a datasets.Dataset, found {describe(dataset)}.")
    _require(dataset, client, name)
    values = dataset.select_columns([client]).with_format("numpy")[:][client]
    owners = as_column(values, "client", name)
    ids, place = np.unique(owners, return_inverse=True)
    stops = np.cumsum(np.bincount(place))[:-1]
    groups = np.split(np.argsort(place, kind="stable"), stops)
    return dict(zip(ids.tolist(), groups, strict=True))


def _require(dataset: Any, column: str, name: str) -> None:
    if column not in dataset.column_names:
        hint = did_you_mean(column, dataset.column_names)
        raise DataError(f"{name}: there is no column {column!r}.{hint}")
