"""Bytes of messages: exact lengths, positions in order, one form each, nothing else is read."""

import functools

import numpy as np
import parties
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.errors import SecureError
from folkmoot.secagg import messages
from folkmoot.secagg.messages import decode, encode

HEAD = 8 + 32
AGREED = parties.five(threat="active", vectors=((3, 16), (2, 32)), seed=bytes(32))


@functools.cache
def examples():
    """One message of each kind, as bytes."""
    clients, lead, _ = parties.parties(AGREED)
    found = {}

    def listen(phase, name, message):
        if message is not None:
            found[type(message).__name__] = encode(message, AGREED)
        return message

    parties.play(clients, lead, down=listen, up=lambda *said: [(said[1], listen(*said))])
    found["Complaint"] = encode(messages.Complaint((0, 3), b"s" * 64), AGREED)
    return found


KINDS = sorted(examples())


def test_lengths_are_as_the_formats_say():
    lengths = {kind: len(data) - HEAD for kind, data in examples().items()}

    assert lengths == {
        "Advert": 3 * 32 + 64,
        "Adverts": 4 * (4 + 3 * 32 + 64),
        "Shares": 4 * (4 + 2 * 33 + 16),
        "Delivery": 4 * (4 + 2 * 33 + 16),
        "Masked": 3 * 2 + 2 * 4,
        "Survivors": 1,
        "Signed": 64,
        "Signatures": 4 * (4 + 64),
        "Reveal": 5 * (4 + 1 + 33),
        "Complaint": 64 + 2 * 4,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[: HEAD - 1]])
def test_another_length_is_refused(kind, change):
    with pytest.raises(SecureError, match=r"but found|are no message|has 68 bytes|for each client"):
        decode(change(examples()[kind]), AGREED)


@pytest.mark.parametrize("kind", KINDS)
def test_other_terms_are_refused(kind):
    data = examples()[kind]

    for other in (parties.five(seed=bytes(32)), parties.five(threat="active", seed=b"s" * 32)):
        with pytest.raises(SecureError, match=f"{kind} is of other terms"):
            decode(data, other)


@pytest.mark.parametrize(
    "data", [b"", b"secagg1", b"secagg2" + bytes(40), b"secagg1\x0a" + bytes(32)]
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(SecureError, match="are no message"):
        decode(data, AGREED)


@pytest.mark.parametrize("peers", [(2, 1), (1, 1), (1, 5), (1, 2**32 - 1)])
def test_positions_are_ascending_and_of_the_cohort(peers):
    head = encode(messages.Signatures({}), AGREED)
    body = b"".join(peer.to_bytes(4, "little") + bytes(64) for peer in peers)

    with pytest.raises(SecureError, match="twice, out of order, or one that is not there"):
        decode(head + body, AGREED)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_is_another_message_with_these_very_bytes(kind, at, flip):
    data = bytearray(examples()[kind])
    data[at % len(data)] ^= flip

    try:
        message = decode(bytes(data), AGREED)
    except SecureError:
        return

    assert encode(message, AGREED) == bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_somebody_made_up_are_refused(body):
    for kind in range(10):
        data = b"secagg1" + bytes([kind]) + AGREED.digest + body
        try:
            message = decode(data, AGREED)
        except SecureError:
            continue
        assert encode(message, AGREED) == data


@pytest.mark.parametrize("n", [3, 8, 9, 1000])
def test_a_bitmap_names_positions(n):
    agreed = parties.terms(n, parties.SMALL)
    some = np.arange(n) % 3 == 1

    bitmap = messages.as_bitmap(np.flatnonzero(some).tolist(), agreed)

    assert len(bitmap) == -(-n // 8)
    assert (messages.from_bitmap(bitmap, agreed) == some).all()


def test_masked_words_lie_where_they_were_received():
    agreed = parties.five(vectors=((1000, 32),))
    data = encode(messages.Masked((np.arange(1000, dtype=np.uint32),)), agreed)

    message = decode(data, agreed)

    assert isinstance(message, messages.Masked)
    [vector] = message.vectors
    assert np.shares_memory(vector, np.frombuffer(data, np.uint8))
    assert vector.flags.aligned
    assert vector.tolist() == list(range(1000))
