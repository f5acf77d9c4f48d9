"""What crosses between a user and a worker: names, numbers and arrays; nothing else has a form.

A message is four bytes of length, that much JSON, and arrays as safetensors. In the JSON a value is
null, a bool, a whole number of 64 bits, a finite float, a word, a list, or one tagged thing:

    {"p": 7}  object 7      {"t": [..]}  a tuple       {"s": [a, b, c]}  a slice
    {"e": 0}  ...           {"d": "float32"}  a dtype  {"f": "nan"}      a float that JSON lacks

What is read is judged as it is read: depth, lengths, tags and types.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.operators import DTYPES

_MOST_DEPTH = 6
_MOST_ITEMS = 1024
_MOST_WORD = 64
_ODD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


Find = Callable[[int], Any]


def plain(value: Any) -> Any:
    """Write one argument as plain JSON.

    Raises:
        RemoteError: If it is none of what may cross.
    """
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"f": str(value)}
    if kind is list:
        return [plain(one) for one in value]
    if isinstance(value, tuple):
        return {"t": [plain(one) for one in value]}
    if kind is slice:
        return {"s": [plain(one) for one in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"e": 0}
    if kind is torch.dtype and value in _DTYPE_NAMES:
        return {"d": _DTYPE_NAMES[value]}
    raise RemoteError(
        f"A {kind.__module__}.{kind.__qualname__} cannot cross to a worker: only tensors, numbers, "
        "names, slices, dtypes and lists of them can. Send what it holds, as tensors."
    )


def read(value: Any, words: Collection[str], find: Find, depth: int = 0) -> Any:
    """Read one argument that `plain` has written.

    Args:
        value: What JSON has made of it.
        words: The strings that may stand there.
        find: From an object's number to what shall stand in its place.
        depth: How deep in its message it stands.

    Raises:
        RemoteError: If it has another form, another word, or lies too deep.
    """
    kind = type(value)
    if kind is dict and len(value) == 1:
        number = value.get("p")
        if type(number) is int:
            return find(number)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        if not -(1 << 63) <= value < 1 << 63:
            raise RemoteError("a whole number in the message has more than 64 bits.")
        return value
    if kind is str:
        if value not in words:
            raise RemoteError(f"{value[:_MOST_WORD]!r} is no word that an operator may be given.")
        return value
    if depth >= _MOST_DEPTH:
        raise RemoteError(f"arguments are nested deeper than {_MOST_DEPTH}.")
    if kind is list:
        if len(value) > _MOST_ITEMS:
            raise RemoteError(f"a list of {len(value)} is longer than {_MOST_ITEMS}.")
        return [read(one, words, find, depth + 1) for one in value]
    if kind is dict and len(value) == 1:
        [(tag, inside)] = value.items()
        return _tagged(tag, inside, words, find, depth + 1)
    raise RemoteError("the message holds what is neither a number, a word, a list nor an object.")


def _tagged(tag: str, inside: Any, words: Collection[str], find: Find, depth: int) -> Any:
    kind = type(inside)
    if tag == "t" and kind is list:
        return tuple(read(inside, words, find, depth))
    whole = kind is list and all(part is None or type(part) is int for part in inside)
    if tag == "s" and whole and len(inside) == 3:
        return slice(*read(inside, words, find, depth))
    if tag == "e" and inside == 0:
        return Ellipsis
    if tag == "d" and kind is str and inside in DTYPES:
        return DTYPES[inside]
    if tag == "f" and kind is str and inside in _ODD:
        return _ODD[inside]
    raise RemoteError(f"the message holds a {tag[:_MOST_WORD]!r} that is none.")


def to_bytes(header: Mapping[str, Any], arrays: Mapping[str, Tensor] | None = None) -> bytes:
    """Write a message: plain JSON and arrays by name."""
    text = _ENCODER.encode(header).encode()
    return b"".join(
        (len(text).to_bytes(4, "little"), text, wire.to_bytes(dict(arrays)) if arrays else b"")
    )


def from_bytes(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `to_bytes` has written: the header as JSON, and arrays by name.

    Raises:
        RemoteError: If the bytes are none of that.
    """
    end = 4 + int.from_bytes(data[:4], "little")
    try:
        if end > len(data):
            raise ValueError("it was cut short")
        header = _DECODER.decode(data[4:end].decode())
        arrays, _ = wire.from_bytes(data[end:]) if len(data) > end else ({}, {})
    except (ValueError, RecursionError, CheckpointError) as error:
        raise RemoteError(f"{len(data)} bytes came that are no message.") from error
    if type(header) is not dict or not all(isinstance(one, Tensor) for one in arrays.values()):
        raise RemoteError(f"{len(data)} bytes came that are no message.")
    return header, arrays


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse)
