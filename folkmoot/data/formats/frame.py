"""A pandas table in which one column says whose row it is."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folkmoot.core.errors import DataError, did_you_mean
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_arrays


def from_frame(
    frame: Any,
    *,
    client: str,
    target: str | Sequence[str],
    split: str | None = None,
    inputs: Sequence[str] | None = None,
    one_hot: Sequence[str] = (),
    name: str = "frame",
) -> ClientData:
    """Build clients from a pandas DataFrame.

    Nothing is guessed: text is refused unless it is named in `one_hot`, missing values are refused,
    and nothing is standardised (a site must not use another site's mean unless you decide so).

    Args:
        frame: The table, a row an example.
        client: Column of client ids, integers or text.
        target: Column of what is to be predicted: integers and truth values become classes (int64),
            floats stay numbers. A list of columns gives y of shape (n, columns), float32.
        split: Column that is 0 in train rows and anything else in the client's own test rows.
        inputs: Columns of x, in this order; by default all others, in the order of the table.
        one_hot: Inputs that are categories. Each is replaced, in its place, by one column of 0 and
            1 for every value that occurs anywhere in the table (ascending).
        name: What the set is called in tables and errors.

    Returns:
        Clients with x: (n, inputs), float32, and y: (n,) or (n, targets).

    Raises:
        DataError: If a column is not there, stands twice, holds text or misses values; the message
            names it.
    """
    if not hasattr(frame, "columns") or not hasattr(frame, "to_numpy"):
        raise DataError(f"{name}: expected a pandas DataFrame, found {type(frame).__name__}.")
    if getattr(frame.columns, "nlevels", 1) > 1:
        raise DataError(
            f"{name}: the table's columns have {frame.columns.nlevels} levels. Give each one name, "
            "for instance frame.columns = frame.columns.map('_'.join)."
        )
    # A table without a header has numbers for names.
    targets: list[Any] = [target] if isinstance(target, str | int) else list(target)
    apart = [client, *targets, *([split] if split is not None else [])]
    chosen = [column for column in frame.columns if column not in apart]
    chosen = chosen if inputs is None else list(inputs)
    for what, wanted in (
        ("client", [client]), ("target", targets), ("split", apart[1 + len(targets) :]),
        ("inputs", chosen), ("one_hot", one_hot),
    ):  # fmt: skip
        _require(frame, what, wanted, name)
    stray = [column for column in one_hot if column not in chosen]
    if stray:
        raise DataError(f"{name}: one_hot names {stray[0]!r}, which is not among the inputs.")
    _refuse_missing(frame, [*apart, *chosen], name)
    for leaf, wanted in (("x", chosen), ("y", targets)):
        if not wanted:
            raise DataError(f"{name}: no column is left for {leaf}. Columns: {_listed(frame)}.")
    columns = [part for column in chosen for part in _input(frame, column, column in one_hot, name)]
    y = [_numbers(frame, column, "target", name) for column in targets]
    return from_arrays(
        {
            "x": np.stack(columns, axis=1).astype(np.float32),
            "y": y[0] if isinstance(target, str | int) else np.stack(y, axis=1).astype(np.float32),
        },
        frame[client].to_numpy(),
        split=None if split is None else _numbers(frame, split, "split", name),
        name=name,
    )


def _listed(frame: Any) -> str:
    return ", ".join(repr(column) for column in frame.columns)


def _require(frame: Any, what: str, columns: Sequence[str], name: str) -> None:
    times = Counter(frame.columns)
    for column in columns:
        if column not in times:
            names = [str(known) for known in frame.columns]
            hint = did_you_mean(str(column), names, listed=False)
            raise DataError(
                f"{name}: the table has no {what} column {column!r}.{hint} "
                f"Its columns are {_listed(frame)}."
            )
        if times[column] > 1:
            raise DataError(
                f"{name}: the table has {times[column]} columns {column!r}, and which is meant "
                "cannot be known. Rename them, or drop all but the first: "
                "frame.loc[:, ~frame.columns.duplicated()]."
            )


def _refuse_missing(frame: Any, columns: Sequence[str], name: str) -> None:
    missing = {column: int(frame[column].isna().sum()) for column in columns}
    bad = [f"{column!r} misses {number}" for column, number in missing.items() if number]
    if bad:
        raise DataError(
            f"{name}: of {len(frame):,} rows, {', '.join(bad)}. Fill the gaps or drop the rows "
            "first, for instance with frame.dropna()."
        )


def _input(frame: Any, column: str, categorical: bool, name: str) -> list[NDArray[Any]]:
    if not categorical:
        return [_numbers(frame, column, "input", name)]
    values = frame[column].to_numpy()
    return [values == value for value in sorted(set(values.tolist()), key=_order)]


def _order(value: Any) -> tuple[bool, Any]:
    # Numbers before text, should a column hold both.
    return (isinstance(value, str), value)


def _numbers(frame: Any, column: str, what: str, name: str) -> NDArray[Any]:
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    dtype = frame[column].dtype
    if not is_numeric_dtype(dtype):
        example = frame[column].iloc[0] if len(frame) else None
        advice = {
            "input": f"Name it in one_hot=[{column!r}], leave it out with inputs=[...]",
            "target": f"Code the classes, frame[{column!r}].astype('category').cat.codes",
            "split": "Use 0 for train rows and 1 for test rows",
        }[what]
        raise DataError(
            f"{name}: {what} column {column!r} holds {dtype} (such as {example!r}), not numbers. "
            f"{advice}, or turn it into a number yourself."
        )
    whole = is_bool_dtype(dtype) or is_integer_dtype(dtype)
    return np.asarray(frame[column].to_numpy(dtype=np.int64 if whole else np.float64))
