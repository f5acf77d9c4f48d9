"""Read tf.train.Example, the protobuf message in which TensorFlow keeps one example.

Only the wire format is needed: Example { features: 1 }, Features { map<string, Feature> feature: 1
}, Feature { one of bytes_list: 1, float_list: 2, int64_list: 3 }, each list { repeated value: 1 }.
Source: https://protobuf.dev/programming-guides/encoding/ and tensorflow/core/example/feature.proto.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from folkmoot.core.errors import DataError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Value = list[bytes] | NDArray[np.float32] | NDArray[np.int64]
"""What a feature holds."""


def parse_example(message: bytes) -> dict[str, Value]:
    """Return the features of one serialized tf.train.Example by name.

    Raises:
        DataError: If the bytes are no such message.
    """
    features: dict[str, Value] = {}
    try:
        for _, body in _fields(message, 1):
            for _, entry in _fields(body, 1):
                name = b"".join(part for _, part in _fields(entry, 1)).decode("utf-8")
                feature = b"".join(part for _, part in _fields(entry, 2))
                features[name] = _value(feature)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise DataError(
            f"{len(message)} bytes are not a serialized tf.train.Example ({error})."
        ) from error
    return features


def _value(feature: bytes) -> Value:
    for _, values in _fields(feature, 1):
        return [bytes(value) for _, value in _fields(values, 1)]
    for _, values in _fields(feature, 2):
        # Packed floats come as one run of bytes, unpacked ones as one field each; both join.
        packed = b"".join(bytes(value) for _, value in _fields(values, 1))
        return np.frombuffer(packed, dtype="<f4").astype(np.float32)
    for _, values in _fields(feature, 3):
        numbers: list[int] = []
        for kind, value in _fields(values, 1):
            numbers += _varints(value) if kind == _LENGTH else [int.from_bytes(value, "little")]
        return np.array(numbers, dtype=np.uint64).astype(np.int64)
    return []


def _fields(message: bytes, wanted: int) -> Iterator[tuple[int, bytes]]:
    """Yield (wire type, bytes) of fields with this number; a varint as 8 little-endian bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            value = number.to_bytes(8, "little")
        elif kind in (_LENGTH, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(kind, 0)
            if kind == _LENGTH:
                size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
            if at > len(message):
                raise ValueError("it ends inside a field")
        else:
            raise ValueError(f"it has wire type {kind}")
        if key >> 3 == wanted:
            yield kind, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at


def _varints(run: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(run):
        number, at = _varint(run, at)
        numbers.append(number)
    return numbers
