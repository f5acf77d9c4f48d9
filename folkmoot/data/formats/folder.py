"""A folder with one folder a client."""

import hashlib
from pathlib import Path

import numpy as np

from folkmoot.core.errors import DataError, did_you_mean
from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.sets.files import numbers, read_csv
from folkmoot.data.sources import checked

ENDINGS = (".npz", ".safetensors", ".csv")
"""Forms that are read."""


def from_folder(path: str | Path, *, target: str = "label", name: str | None = None) -> ClientData:
    """Build clients from a folder that holds one folder a client; files are read when asked for.

    A client's folder is named by its id and holds one file `train` and perhaps one file `test`:

    - `.npz`: arrays of numbers, named as the leaves, usually `x` and `y` (never pickled objects);
    - `.safetensors`: tensors, named as the leaves;
    - `.csv`: a header line and numbers; column `target` becomes y (int64 if all values are whole,
      else float32), the others x, (n, columns), float32, in the order of the file.

    Ids are integers if every folder's name is a plain number such as `7` (not `007`), else strings.

    Args:
        path: The folder.
        target: Column of a `.csv` file that is y.
        name: What the set is called in tables and errors; by default the folder's name.

    Raises:
        DataError: If there is no client, or a client has no train file or two of them.
    """
    root = Path(path).expanduser()
    name = root.name if name is None else name
    if not root.is_dir():
        raise DataError(f"{name}: {root} is not a folder.")
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name[0] != "."]
    if not folders:
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{name}: {root} holds no folder; found {found}. Expected <client>/train.npz, "
            "<client>/train.safetensors or <client>/train.csv."
        )
    plain = all(entry.name.isdecimal() and str(int(entry.name)) == entry.name for entry in folders)
    ids: dict[Id, Path] = {(int(entry.name) if plain else entry.name): entry for entry in folders}
    train = {client: _file(folder, "train", name) for client, folder in ids.items()}
    tests = {client: _file(folder, "test", name) for client, folder in ids.items()}
    lacking = [client for client, file in train.items() if file is None]
    if lacking:
        raise DataError(
            f"{name}: client {lacking[0]!r} has no train file in {ids[lacking[0]]} "
            f"({len(lacking)} such client(s)). Expected train{', train'.join(ENDINGS)}."
        )

    def test(client: Id) -> Tree | None:
        file = tests[client]
        return None if file is None else _read(file, client, "test", target)

    def listing() -> str:
        files = [file for file in [*train.values(), *tests.values()] if file is not None]
        text = "".join(f"{file.relative_to(root)} {file.stat().st_size};" for file in sorted(files))
        return hashlib.sha256(text.encode()).hexdigest()

    return ClientData(
        ids,
        lambda client: _read(train[client], client, "train", target),  # type: ignore[arg-type]
        test=test if any(tests.values()) else None,
        name=name,
        content=listing,
    )


def _file(folder: Path, part: str, name: str) -> Path | None:
    found = [path for ending in ENDINGS if (path := folder / f"{part}{ending}").is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise DataError(f"{name}: {folder} holds both {names}. Keep one of them.")
    return found[0] if found else None


def _read(file: Path, client: Id, part: str, target: str) -> Tree:
    if file.suffix == ".npz":
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return checked({leaf: arrays[leaf] for leaf in arrays.files}, client, part)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"Client {client!r}: {file} cannot be read: {error}") from error
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return checked(load_file(file), client, part)
    return checked(_table(file, client, target), client, part)


def _table(file: Path, client: Id, target: str) -> dict[str, np.ndarray]:
    text = read_csv(file)
    if target not in text:
        near = did_you_mean(target, text)
        raise DataError(
            f"Client {client!r}: {file} has no column {target!r} to be y.{near} Pass target=."
        )
    try:
        columns = {column: numbers(values) for column, values in text.items()}
    except ValueError as error:
        raise DataError(
            f"Client {client!r}: {file} holds text ({error}). Code it as numbers first, or read it "
            "with pandas and use from_frame(..., one_hot=[...])."
        ) from error
    y = columns.pop(target)
    whole = bool((y == np.round(y)).all())
    return {"x": np.stack(list(columns.values()), axis=1), "y": y.astype(np.int64) if whole else y}
