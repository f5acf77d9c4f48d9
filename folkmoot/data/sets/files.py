"""Where the files of a shipped set lie, and what is read from them."""

import csv
import gzip
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folkmoot.core.errors import DataError

SAMPLES = Path(__file__).parents[1] / "samples"
"""Small sets and samples inside the package."""


def find(name: str, file: str, folder: str | Path | None) -> Path:
    """Return the path of one file of a set.

    Looks in `folder` (only there, if it is given), else in the folder that the environment variable
    FOLKMOOT_DATA names, in `data/` of the checkout this package lies in, and in the package's own
    samples. In each, both `<name>/<file>` and `<file>` will do.

    Raises:
        DataError: If it is nowhere; the message lists the places.
    """
    places = [Path(folder).expanduser()] if folder is not None else _places()
    candidates = [path for place in places for path in (place / name / file, place / file)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        raise DataError(
            f"{name}: {file} was not found. Looked in: {looked}. The file is in data/{name}/ of "
            "the project's repository; pass folder=, or set FOLKMOOT_DATA to a folder that holds "
            "it."
        )
    return found


def _places() -> list[Path]:
    places = []
    if os.environ.get("FOLKMOOT_DATA"):
        places.append(Path(os.environ["FOLKMOOT_DATA"]).expanduser())
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").is_file():
        places.append(checkout / "data")
    return [*places, SAMPLES]


def announce(name: str, path: Path, note: str) -> None:
    """Say on stderr, in one line, that a set came from the package's samples."""
    if SAMPLES in path.parents:
        print(f"folkmoot: {name} is read from the samples in the package: {note}", file=sys.stderr)


def read_csv(path: Path) -> dict[str, list[str]]:
    """Read a CSV file with a header line into columns of text; `.gz` is unpacked."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        columns = list(zip(*rows, strict=True))
    return {name: list(values) for name, values in zip(header, columns, strict=True)}


def numbers(values: list[str]) -> NDArray[np.float64]:
    """Turn a column of text into numbers; an empty field becomes NaN."""
    return np.array([float(value) if value else np.nan for value in values])


def standardise(x: NDArray[Any], of: NDArray[Any]) -> NDArray[Any]:
    """Subtract the columns' means and divide by their standard deviations, both taken from `of`.

    A column that is constant in `of` is only centred.
    """
    deviation = of.std(axis=0)
    return (x - of.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def floats(array: NDArray[Any]) -> Tensor:
    """Return a float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def integers(array: NDArray[Any]) -> Tensor:
    """Return an int64 tensor."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
