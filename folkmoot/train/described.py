"""What a program's pure functions were built with: every number, word and flag that they hold.

A learning rate lives in a closure, `lr` of the optimizer's `step`. A run that goes on from a
checkpoint must have the same one, so a program is walked through its fields and closures and each
plain value is noted under the path that leads to it, such as `server.step.lr`.
"""

import dataclasses
import enum
import functools
import hashlib
import json
import math
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Plain = None | bool | int | float | str

_MOST_VALUES = 20
"""Longer lists are noted by their digest."""
_OURS = "folkmoot."
_DERIVED = ("reach", "rate")
"""Fields that follow from others: an optimizer's step has the numbers of its reach."""


def described(value: Any) -> dict[str, Plain]:
    """Return path -> plain value for all that a program holds.

    Tensors, arrays and long lists are noted by a digest, a user's function also by the numbers in
    its code, and modules not at all: their parameters travel. What is met twice is noted once.

    Args:
        value: A `Sampling`, an algorithm's `round`, or whatever else is made of tuples and
            functions.
    """
    return dict(_walk("", value, {}))


def _walk(path: str, value: Any, seen: dict[int, Any]) -> Iterator[tuple[str, Plain]]:
    if isinstance(value, set | frozenset):
        # Their order changes from process to process.
        value = tuple(sorted(value, key=repr))
    if value is None or isinstance(value, bool | int | str):
        yield path, value
    elif isinstance(value, float):
        yield path, value if math.isfinite(value) else repr(value)
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        yield path, _digest(torch.as_tensor(value).detach().reshape(-1).tolist())
    elif isinstance(value, nn.Module) or id(value) in seen:
        return
    elif isinstance(value, list | tuple | Mapping) and len(value) > _MOST_VALUES:
        yield path, _digest(value)
    else:
        seen[id(value)] = value  # Kept, so that no other object gets its id.
        for name, part in _parts(value):
            yield from _walk(f"{path}.{name}" if path else name, part, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value is made of, by name."""
    if isinstance(value, enum.Enum):
        yield "is", str(value)
    elif hasattr(value, "_asdict"):
        yield from ((name, part) for name, part in value._asdict().items() if name not in _DERIVED)
    elif isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(place), part) for place, part in enumerate(value))
    elif dataclasses.is_dataclass(value):
        # What is kept out of the repr is a cache, not a choice.
        shown = [field.name for field in dataclasses.fields(value) if field.repr]
        yield from ((name, getattr(value, name)) for name in shown)
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    else:
        kind = type(value) if not isinstance(value, type) else value
        yield "is", f"{kind.__module__}.{kind.__qualname__}"
        held = getattr(value, "__dict__", {}) if kind is not value else {}
        yield from ((name, part) for name, part in held.items() if isinstance(part, Plain))


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield a function's name, closure and defaults; of a user's also the numbers in its code."""
    module = f"{function.__module__}."
    theirs = not module.startswith((_OURS, "torch."))
    # A script is __main__ or a module, by how it was started.
    yield "is", function.__qualname__ if theirs else f"{module}{function.__qualname__}"
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((name, cell.cell_contents) for name, cell in cells if _is_full(cell))
    if theirs:
        numbers = [part for part in function.__code__.co_consts if isinstance(part, int | float)]
        yield "numbers", _digest(numbers)
        yield (
            "defaults",
            [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()],
        )


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _digest(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
