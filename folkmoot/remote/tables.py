"""A worker's data as users see them: pointers by name, and a mock of the same schema."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from folkmoot.core.errors import DataError, did_you_mean
from folkmoot.remote.operators import DTYPES
from folkmoot.remote.outbox import Outbox
from folkmoot.remote.outlines import Outline
from folkmoot.remote.pointer import Pointer, made

_MOCK_ROWS = 256


class Mock:
    """Local tensors of a table's names, dtypes and shapes; their numbers mean nothing."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._columns = dict(columns)

    def __getattr__(self, name: str) -> Tensor:
        return _column(self.__dict__.get("_columns", {}), name, "mock")

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._columns.values())

    def __repr__(self) -> str:
        return f"Mock({_words({name: tuple(x.shape) for name, x in self._columns.items()})})"


class Table:
    """One table of a worker: `table.x` is a pointer to its column x."""

    def __init__(self, name: str, columns: Mapping[str, Pointer], mock: Mock) -> None:
        self.name, self._columns = name, dict(columns)
        self.mock = mock
        """The same schema, for writing code against."""

    def __getattr__(self, name: str) -> Pointer:
        return _column(self.__dict__.get("_columns", {}), name, self.__dict__.get("name", "?"))

    def __iter__(self) -> Iterator[Pointer]:
        return iter(self._columns.values())

    def __repr__(self) -> str:
        shapes = {name: x.outline.shape for name, x in self._columns.items()}
        return f"Table({self.name!r}, {_words(shapes)})"


class Tables(Mapping[str, Table]):
    """All of a worker's tables, by name."""

    def __init__(self, outbox: Outbox, mocks: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._outbox, self._mocks = outbox, mocks
        self._known = {name: (at, columns) for at, (name, columns) in enumerate(outbox.schema)}
        self._made: dict[str, Table] = {}

    def __getitem__(self, name: str) -> Table:
        if name not in self._known:
            worker = self._outbox.worker
            raise DataError(f"Worker {worker!r} has no {name!r}.{did_you_mean(name, self._known)}")
        if name not in self._made:
            self._made[name] = self._table(name, *self._known[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"Tables({', '.join(self._known)})"

    def _table(self, name: str, place: int, columns: list[Any]) -> Table:
        pointers = {}
        for at, (column, shape, dtype) in enumerate(columns):
            ticket = self._outbox.ticket()
            self._outbox.add("data", [ticket], (place, at))
            pointers[column] = made(self._outbox, ticket, Outline(tuple(shape), DTYPES[dtype]))
        outlines = {column: pointer.outline for column, pointer in pointers.items()}
        return Table(name, pointers, Mock(self._mocks.get(name) or mock_of(outlines)))


def mock_of(outlines: Mapping[str, Outline]) -> dict[str, Tensor]:
    """Return rows at random: floats are standard normal, whole numbers 0 or 1.

    They follow from names and shapes alone, so that a mock is the same each time.
    """
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (shape, dtype) in outlines.items():
        size = (min(shape[0], _MOCK_ROWS), *shape[1:])
        if dtype.is_floating_point:
            found[name] = torch.randn(size, generator=generator).to(dtype)
        else:
            found[name] = torch.randint(0, 2, size, generator=generator).to(dtype)
    return found


def tables_of(data: Mapping[str, Any] | None) -> dict[str, dict[str, Tensor]]:
    """Read what an owner gives: name -> a tensor (x), a pair (x, y), or columns by name.

    Raises:
        DataError: If a table is none of these, or its columns have not the same rows.
    """
    return {name: _columns(name, given) for name, given in (data or {}).items()}


def _columns(name: str, given: Any) -> dict[str, Tensor]:
    given = getattr(given, "tensors", given)  # A TensorDataset.
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, list | tuple) and len(given) in (1, 2):
        named = dict(zip("xy", given, strict=False))
    elif isinstance(given, list | tuple):
        raise DataError(f"{name!r} holds {len(given)} arrays: name them, as a dict of columns.")
    else:
        named = {"x": given}
    found = {}
    for column, values in named.items():
        try:
            found[str(column)] = torch.as_tensor(values).detach().contiguous()
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"Column {column!r} of {name!r} is no array: {error}.") from error
    sizes = {column: len(x) if x.dim() else None for column, x in found.items()}
    if None in sizes.values() or len(set(sizes.values())) != 1:
        raise DataError(
            f"The columns of a table are of the same rows, but those of {name!r} have "
            f"{', '.join(f'{column}: {size}' for column, size in sizes.items())}."
        )
    for column, x in found.items():
        if x.dtype not in DTYPES.values():
            raise DataError(f"Column {column!r} of {name!r} is of {x.dtype}; use {list(DTYPES)}.")
    return found


def _column(columns: Mapping[str, Any], name: str, table: str) -> Any:
    if name.startswith("__") or name not in columns:
        raise AttributeError(f"{table!r} has no column {name!r}.{did_you_mean(name, columns)}")
    return columns[name]


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}: {list(shape)}" for name, shape in shapes.items())
