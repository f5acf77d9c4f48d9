"""The reader of tf.train.Example, against bytes written by hand from the wire format."""

import struct

import numpy as np
import pytest

from folkmoot.core.errors import DataError
from folkmoot.data.formats.tf_example import parse_example


def varint(number: int) -> bytes:
    number &= 0xFFFFFFFFFFFFFFFF
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def floats(*values: float) -> bytes:
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def integers(*values: int) -> bytes:
    return field(3, field(1, b"".join(varint(value) for value in values)))


def texts(*values: bytes) -> bytes:
    return field(1, b"".join(field(1, value) for value in values))


def example(**features: bytes) -> bytes:
    entries = [
        field(1, field(1, name.encode()) + field(2, body)) for name, body in features.items()
    ]
    return field(1, b"".join(entries))


def test_bytes_written_by_tensorflow_are_read():
    # Example with label = int64 7, as protoc --decode shows it: features, map entry, list, packed
    # 7.
    message = bytes.fromhex("0a10 0a0e 0a05 6c6162656c 1205 1a03 0a01 07")

    parsed = parse_example(message)

    assert list(parsed) == ["label"]
    assert parsed["label"].tolist() == [7]
    assert parsed["label"].dtype == np.int64


def test_the_three_kinds_of_features_are_read():
    parsed = parse_example(
        example(pixels=floats(0.5, -1.25, 3.0), label=integers(300, -2), words=texts(b"a", b"bc"))
    )

    assert parsed["pixels"].tolist() == [0.5, -1.25, 3.0]
    assert parsed["pixels"].dtype == np.float32
    assert parsed["label"].tolist() == [300, -2]
    assert parsed["words"] == [b"a", b"bc"]


def test_lists_that_are_not_packed_are_read_too():
    loose_floats = field(2, b"".join(b"\x0d" + struct.pack("<f", v) for v in (1.0, 2.0)))
    loose_integers = field(3, b"\x08\x05" + b"\x08" + varint(-1))

    parsed = parse_example(example(f=loose_floats, i=loose_integers, none=b""))

    assert parsed["f"].tolist() == [1.0, 2.0]
    assert parsed["i"].tolist() == [5, -1]
    assert parsed["none"] == []


def test_fields_that_are_not_known_are_passed_over():
    unknown = b"\x10\x05" + b"\x19" + bytes(8) + b"\x25" + bytes(4) + field(9, b"later")

    assert parse_example(unknown + example(y=integers(1)))["y"].tolist() == [1]


@pytest.mark.parametrize(
    "message", [b"\x0a\x7f\x00", b"\x0a", b"\x0b\x00", example(y=integers(1))[:-1] + b"\x80"]
)
def test_bytes_that_are_no_example_are_refused(message):
    with pytest.raises(DataError, match=r"bytes are not a serialized tf.train.Example"):
        parse_example(message)
