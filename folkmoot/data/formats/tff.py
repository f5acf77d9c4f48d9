"""TensorFlow Federated's simulation data: SQLite files (LZMA-packed as downloaded), formerly HDF5.

HDF5: `examples/<client>/<leaf>`, arrays with one row an example. SQLite: table
`examples(split_name, client_id, serialized_example_proto)`, one row and one tf.train.Example an
example, and table `client_metadata(client_id, split_name, num_examples)`. Source:
tff.simulation.datasets (`emnist`, `shakespeare`, `cifar100`, `stackoverflow`) and its classes
HDF5ClientData and SqlClientData.
"""

import contextlib
import lzma
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import owner_of
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.examples import check_examples
from folkmoot.data.formats.columns import Convert, examples_from
from folkmoot.data.formats.tf_example import parse_example


def from_tff(
    path: str | Path,
    *,
    test: str | Path | None = None,
    convert: Convert | None = None,
    name: str | None = None,
) -> ClientData:
    """Read a TFF data set; a client's examples are read from the file when asked for.

    Args:
        path: `.h5` or `.hdf5` (train examples); `.sqlite` (its splits "train" and "test"); or
            `.sqlite.lzma`, which is unpacked once beside itself.
        test: For HDF5, the file with the same clients' test examples.
        convert: From one client's columns (a dict of arrays, as in the file) to its examples.
            Needed where a column is text or pictures are to be reshaped: a SQLite file does not
            know shapes, so EMNIST's pixels are (n, 784) from there and (n, 28, 28) from HDF5.
        name: What the set is called in tables and errors; by default the file's name.

    Returns:
        Clients by name, a string. Without `convert`, "pixels" or "image" becomes x and "label" y.
        EMNIST's pixels are 1 for white paper, 0 for ink.

    Raises:
        DataError: If the file is not there or not of these forms.
    """
    file = Path(path).expanduser()
    for wanted in (file, *([Path(test).expanduser()] if test is not None else [])):
        if not wanted.is_file():
            raise DataError(f"TFF data: there is no file {wanted}.")
    name = file.name.split(".")[0] if name is None else name
    if file.suffix in (".h5", ".hdf5"):
        held_out = None if test is None else Path(test).expanduser()
        return _from_hdf5(file, held_out, convert, name)
    if test is not None:
        raise DataError(f"{name}: a SQLite file holds its test split itself; leave out test=.")
    if file.suffix == ".lzma":
        file = _unpacked(file)
    return _from_sqlite(file, convert, name)


def _from_hdf5(file: Path, test: Path | None, convert: Convert | None, name: str) -> ClientData:
    import h5py

    # The file is opened anew each time: an open HDF5 handle does not survive a fork.
    def clients_in(path: Path) -> list[str]:
        with h5py.File(path, "r") as opened:
            if "examples" not in opened:
                raise DataError(f"{name}: {path} has no group 'examples', only {list(opened)}.")
            return list(opened["examples"])

    def read(path: Path, client: Id, part: str) -> Tree:
        with h5py.File(path, "r") as opened:
            columns = {leaf: values[()] for leaf, values in opened["examples"][client].items()}
        return _ready(columns, convert, client, part)

    ids = clients_in(file)
    with_tests = set() if test is None else set(clients_in(test))

    def held_out(client: Id) -> Tree | None:
        return read(test, client, "test") if test is not None and client in with_tests else None

    return ClientData(
        ids,
        lambda client: read(file, client, "train"),
        test=held_out if with_tests.intersection(ids) else None,
        name=name,
    )


def _from_sqlite(file: Path, convert: Convert | None, name: str) -> ClientData:
    def rows(query: str, *values: str) -> list[tuple[Any, ...]]:
        # One connection a query: connections do not survive a fork either.
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        ) as db:
            return db.execute(query, values).fetchall()

    try:
        metadata = rows("SELECT split_name, client_id, num_examples FROM client_metadata")
    except sqlite3.DatabaseError as error:
        raise DataError(f"{name}: {file} is not a TFF database ({error}).") from error
    sizes: dict[str, dict[Id, int]] = {}
    for split, client, number in metadata:
        if number:
            sizes.setdefault(split, {})[client] = number
    if "train" not in sizes:
        raise DataError(f"{name}: {file} has no split 'train', only {sorted(sizes)}.")

    def read(split: str, client: Id) -> Tree | None:
        if client not in sizes.get(split, {}):
            return None
        found = rows(
            "SELECT serialized_example_proto FROM examples WHERE split_name = ? AND client_id = ? "
            "ORDER BY rowid",
            split,
            str(client),
        )
        owner = owner_of(client, split)
        if len(found) != sizes[split][client]:
            raise DataError(
                f"{owner}: {file} says {sizes[split][client]} in client_metadata, but there are "
                f"{len(found)}. The file is damaged; fetch it again."
            )
        parsed = [parse_example(row[0]) for row in found]
        other = next((example for example in parsed if example.keys() != parsed[0].keys()), None)
        if other is not None:
            raise DataError(
                f"{owner}: in {file} one example has the features {', '.join(sorted(parsed[0]))} "
                f"and another {', '.join(sorted(other))}. All examples of a client need the same."
            )
        columns = {leaf: _column([example[leaf] for example in parsed]) for leaf in parsed[0]}
        return _ready(columns, convert, client, split)

    return ClientData(
        sizes["train"],
        lambda client: read("train", client),  # type: ignore[arg-type, return-value]
        test=(lambda client: read("test", client)) if "test" in sizes else None,
        sizes=list(sizes["train"].values()),
        name=name,
    )


def _ready(columns: dict[str, Any], convert: Convert | None, client: Id, part: str) -> Tree:
    tree = examples_from(columns, convert, owner_of(client, part))
    check_examples(tree, client, part)
    return tree


def _column(values: list[Any]) -> Any:
    """Join one feature of all examples: (n,) where each has one value, else (n, values)."""
    if isinstance(values[0], list):
        return [value[0] if len(value) == 1 else value for value in values]
    if len({len(value) for value in values}) > 1:
        return values
    stacked = np.stack(values)
    return stacked[:, 0] if stacked.shape[1] == 1 else stacked


def _unpacked(file: Path) -> Path:
    target = file.with_suffix("")
    if not target.exists():
        # Written beside and renamed: a half-written file never passes for the whole.
        part = target.with_name(target.name + ".part")
        try:
            with lzma.open(file) as packed, open(part, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        except (lzma.LZMAError, EOFError) as error:
            part.unlink()
            raise DataError(f"TFF data: {file} cannot be unpacked ({error}).") from error
        part.replace(target)
    return target
