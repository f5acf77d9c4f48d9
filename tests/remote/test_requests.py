"""What the rules keep can be asked for; the owner sees what it is, and says yes or no."""

import pytest
import torch
from remote.hand import ByHand

import folkmoot as fm


def test_a_request_waits_is_denied_with_a_reason_and_approved(alice, digits):
    first = alice.request(alice.data["digits"].x[0], "an outlier?")
    second = alice.request(alice.data["digits"].x[1], "another one")

    with pytest.raises(fm.remote.Refused, match="waiting for the worker's owner"):
        first.get()
    alice.owner.deny(1, "it is a patient")
    alice.owner.approve(2)

    with pytest.raises(fm.remote.Refused, match="denied request 1: it is a patient"):
        first.get()
    assert torch.equal(second.get(), digits[0][1])


def test_an_owner_sees_what_is_asked(alice, digits):
    alice.request(alice.data["digits"].x[3:5], "two rows")

    [asked] = alice.owner.requests()

    assert asked["shape"] == [2, 12] and asked["dtype"] == "float32"
    assert asked["label"] == "private rows" and asked["state"] == "waiting"
    assert torch.equal(alice.owner.look(1), digits[0][3:5])


def test_what_is_approved_is_what_was_asked(alice, digits):
    copied = alice.send(torch.zeros(12))
    request = alice.request(copied, "zeros")

    copied.copy_(alice.data["digits"].x[7])
    alice.owner.approve(1)

    assert request.get().tolist() == [0.0] * 12


def test_a_request_of_another_session_is_none(alice):
    alice.request(alice.data["digits"].x[0], "mine")
    alice.owner.approve(1)

    answer = ByHand(alice).run(want=["collect", 1])

    assert "no such request" in answer["text"]


def test_a_user_cannot_approve(by_hand):
    by_hand.run(["data", [1], [0, 0]], want=["request", {"p": 1}, "all of it"])

    for header in (
        {"asked": "decide", "number": 1, "approved": True, "reason": ""},
        {"session": by_hand.session, "asked": "decide", "number": 1, "approved": True},
    ):
        assert by_hand.ask(header)["error"] == "failed"
    assert "waiting" in by_hand.run(want=["collect", 1])["text"]


def test_requests_and_denials_say_why(alice):
    with pytest.raises(fm.remote.RemoteError, match="says why"):
        alice.request(alice.data["digits"].x[0], "")
    alice.request(alice.data["digits"].x[0], "please")
    with pytest.raises(fm.SettingsError, match="says why"):
        alice.owner.deny(1, "")
    with pytest.raises(fm.remote.RemoteError, match="no request 7"):
        alice.owner.approve(7)
    with pytest.raises(fm.remote.RemoteError, match="of this session"):
        alice.request(torch.ones(3), "mine")
