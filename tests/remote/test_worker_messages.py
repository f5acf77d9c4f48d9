"""What crosses is names, numbers and arrays, and what is none of that is not read."""

import json

import pytest
import torch
import torch.nn.functional as F
from remote.hand import header_of
from safetensors.torch import load

from folkmoot.remote.errors import RemoteError
from folkmoot.remote.messages import from_bytes, plain, read, to_bytes
from folkmoot.remote.operators import DTYPES, KEYWORDS, OPERATORS, WORDS
from folkmoot.remote.verbs import VERBS

PLAIN = {
    "numbers": [0, -3, 2.5, True, None, 1 << 62],
    "odd floats": [float("inf"), -float("inf")],
    "shapes": (torch.Size([2, 3]), (), [4]),
    "an index": (slice(1, None, 2), Ellipsis, 3, None),
    "dtypes": list(DTYPES.values()),
    "words": ["mean", "none"],
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
def test_plain_values_come_back_as_they_were(value):
    text = json.dumps(plain(value), allow_nan=False)

    assert read(json.loads(text), WORDS, int) == value


@pytest.mark.parametrize(
    "value", [print, object(), {"a": 1}, {1}, b"bytes", 1j, torch.strided, range(3), type]
)
def test_nothing_else_can_be_written(value):
    with pytest.raises(RemoteError, match="cannot cross to a worker"):
        plain([value])


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os')",
        {"p": "1"},
        {"p": 1.0},
        {"x": 1},
        {"p": 1, "t": []},
        {},
        {"t": 3},
        {"s": [1, 2]},
        {"s": [{"p": 1}, 2, 3]},
        {"e": 1},
        {"d": "object"},
        {"f": "1"},
        1 << 63,
        [[[[[[[1]]]]]]],
        [0] * 1025,
    ],
    ids=repr,
)
def test_nothing_else_is_read(value):
    with pytest.raises(RemoteError):
        read(value, WORDS, int)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        b"\xff\xff\xff\xff{}",
        b"\x02\x00\x00\x00[]",
        b"\x05\x00\x00\x00[NaN]",
        b"\x03\x00\x00\x00\xff\xfe\xfd",
        (200_000).to_bytes(4, "little") + b"[" * 200_000,
        to_bytes({}) + b"no safetensors at all",
        to_bytes({}, {"a": {"b": torch.ones(1)}}),
    ],
    ids=range(9),
)
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(RemoteError, match="bytes came that are no message"):
        from_bytes(data)


def test_a_session_of_training_is_names_numbers_and_arrays(alice, watched, perceptron):
    there = alice.send(perceptron())
    optimizer = torch.optim.Adam(there.parameters())
    x, y = alice.data["digits"]
    for begin in range(0, 128, 64):
        optimizer.zero_grad()
        loss = F.cross_entropy(there(x[begin : begin + 64]), y[begin : begin + 64])
        loss.backward()
        optimizer.step()
        loss.item()
    there.get()

    words = {*OPERATORS, *VERBS, *KEYWORDS, *WORDS, *DTYPES, "p", "t", "s", "e", "d", "f"}
    words |= {"session", "program", "free", "want", "get", "item"}
    assert len(watched.sent) == 3
    for message in watched.sent:
        header = header_of(message)
        words.add(header["session"])
        assert set(_strings(header)) <= words
        length = 4 + int.from_bytes(message[:4], "little")
        if len(message) > length:
            # Our parameters, which were sent with the first message; no array beside them.
            arrays = load(message[length:])
            assert sorted(tuple(a.shape) for a in arrays.values()) == [(4,), (4, 8), (8,), (8, 12)]
    for answer in watched.came[:-1]:
        assert set(header_of(answer)) == {"item"}
        assert len(answer) == 4 + int.from_bytes(answer[:4], "little")


def _strings(value):
    """Every string in plain JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif not isinstance(value, str):
        assert value is None or isinstance(value, bool | int | float)
