"""Whatever a server tries, it is the client that refuses, and says by which rule."""

import dataclasses

import numpy as np
import parties
import pytest

from folkmoot.core.errors import QuorumError, SecureError, SettingsError
from folkmoot.secagg import messages
from folkmoot.secagg.client import client
from folkmoot.secagg.keys import advert_text, attempt, survivors_text
from folkmoot.secagg.primitives import exchange_key, public, sign, signing_key
from folkmoot.secagg.terms import Demands, terms

VECTOR = (np.zeros(5, np.uint32),)
LOW_ORDER = bytes(32)
NOT_REDUCED = (2**255 - 10).to_bytes(32, "little")
"""The base point, u = 9, plus the field's prime."""


def attack(phase, change, agreed=None, victim=0, up=None):
    """What the victim refuses when the server changes what it hears in a phase."""
    agreed = agreed or parties.five()
    clients, lead, keys = parties.parties(agreed)

    def down(now, name, message):
        return change(message, keys) if (now, name) == (phase, victim) else message

    opened, refused = parties.play(clients, lead, down=down, up=up)
    assert victim in refused or not isinstance(opened, QuorumError)
    return str(refused.get(victim)), opened, refused


def with_advert(message, peer, **fields):
    changed = message.by_peer[peer]._replace(**fields)
    return messages.Adverts(message.by_peer | {peer: changed})


def without(message, *peers):
    return type(message)({p: m for p, m in message.by_peer.items() if p not in peers})


@pytest.mark.parametrize(
    ("phase", "change", "rule", "said"),
    [
        # Keys
        ("share", lambda m, _: with_advert(m, 2, mask=LOW_ORDER), "keys of full order", "client 2"),
        ("share", lambda m, _: with_advert(m, 2, channel=LOW_ORDER), "keys of full order", "2"),
        ("share", lambda m, _: with_advert(m, 2, channel=b"short"), "keys of full order", "2"),
        ("share", lambda m, _: with_advert(m, 2, mask=NOT_REDUCED), "keys of full order", "2"),
        (
            "share",
            lambda m, _: with_advert(m, 2, mask=m.by_peer[3].mask),
            "distinct keys",
            "10 public keys, 9 distinct",
        ),
        (
            "share",
            lambda m, _: with_advert(m, 2, mask=m.by_peer[2].channel),
            "distinct keys",
            "9 distinct",
        ),
        (
            "share",
            lambda m, _: messages.Adverts(m.by_peer | {0: m.by_peer[1]}),
            "own peers",
            "keys of 0",
        ),
        (
            "share",
            lambda m, _: messages.Adverts(m.by_peer | {77: m.by_peer[1]}),
            "own peers",
            "position 77",
        ),
        ("share", lambda m, _: without(m, 1, 2, 3), "enough peers", "2 advertised keys, of at"),
        # Shares
        ("mask", lambda m, _: without(m, 1, 2, 3), "enough peers", "2 dealt shares, of at least 3"),
        (
            "mask",
            lambda m, _: messages.Delivery(m.by_peer | {2: m.by_peer[3]}),
            "sealed shares",
            "what 2 sealed",
        ),
        (
            "mask",
            lambda m, _: messages.Delivery(m.by_peer | {2: m.by_peer[2][:-1]}),
            "sealed shares",
            "what 2 sealed",
        ),
        (
            "mask",
            lambda m, _: messages.Delivery(m.by_peer | {2: b""}),
            "sealed shares",
            "what 2 sealed",
        ),
        (
            "mask",
            lambda m, _: messages.Delivery(m.by_peer | {0: m.by_peer[2]}),
            "own peers",
            "shares of 0",
        ),
        # Survivors
        ("unmask", lambda m, _: messages.Survivors(b"\x1e"), "own survival", "have dropped out"),
        ("unmask", lambda m, _: messages.Survivors(b"\x03"), "quorum", "2 survived, of at least 3"),
        ("unmask", lambda m, _: messages.Survivors(b"\x3f"), "survivors", "bits up to 5"),
        ("unmask", lambda m, _: messages.Survivors(b"\x1f\x00"), "survivors", "2 bytes"),
        ("unmask", lambda m, _: messages.Survivors(b""), "survivors", "0 bytes"),
        # Phases
        ("share", lambda m, _: messages.Delivery({}), "phases", "Adverts was due"),
        ("share", lambda m, _: None, "phases", "sent NoneType"),
        ("mask", lambda m, _: messages.Survivors(b"\x1f"), "phases", "Delivery was due"),
        ("unmask", lambda m, _: messages.Signatures({}), "phases", "Survivors was due"),
        ("mask", lambda m, _: b"noise", "these terms", "are no message"),
        ("share", lambda m, _: messages.Adverts(None), "these terms", "not of its types"),
        ("share", lambda m, _: with_advert(m, 2, mask=None), "these terms", "not of its types"),
        ("share", lambda m, _: messages.Adverts({2: b"advert"}), "these terms", "not of its types"),
        ("mask", lambda m, _: messages.Delivery({2: 5}), "these terms", "not of its types"),
        ("unmask", lambda m, _: messages.Survivors(31), "these terms", "not of its types"),
    ],
)
def test_a_client_refuses_what_breaks_a_rule(phase, change, rule, said):
    error, opened, refused = attack(phase, change)

    assert error.startswith(f"Client 0 leaves sum 0 of round 7, by the rule of {rule}: ")
    assert said.replace("client ", "") in error
    # The others do without it, or with what it had given.
    assert list(refused) == [0]
    assert opened.dropped[0] == phase


def test_a_survivor_that_dealt_no_shares_is_refused():
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)

    def down(phase, name, message):
        # Client 4 is kept from client 0 alone, who is told later that it survived.
        return without(message, 4) if (phase, name) == ("mask", 0) else message

    _, refused = parties.play(clients, lead, down=down)

    assert "rule of survivors: 4 dealt no shares" in str(refused[0])


def test_who_is_asked_twice_answers_once():
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)
    opened, refused = parties.play(clients, lead)
    assert opened.survivors == agreed.clients
    assert not refused

    with pytest.raises(SecureError, match="rule of one answer: asked again, by Survivors"):
        clients[0].send(messages.Survivors(b"\x0f"))
    with pytest.raises(StopIteration):
        clients[0].send(messages.Survivors(b"\x1f"))
    with pytest.raises(StopIteration):
        clients[1].send(None)


def test_of_each_peer_a_client_shows_one_share_and_of_itself_as_survivor_alone():
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)
    shown = {}

    def up(phase, name, message):
        if phase == "mask" and name == 3:
            return []
        shown.update({name: message.by_peer} if phase == "unmask" else {})
        return [(name, message)]

    parties.play(clients, lead, up=up)

    assert sorted(shown) == [0, 1, 2, 4]
    for by_peer in shown.values():
        kinds = {peer: kind for peer, (kind, _) in by_peer.items()}
        assert kinds == {peer: messages.MASK if peer == 3 else messages.SEED for peer in range(5)}


# Against an active server.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # The server puts keys of its own between two clients.
        (lambda m, _: with_advert(m, 2, channel=public(exchange_key())), "keys of 2"),
        (lambda m, _: with_advert(m, 2, mask=public(exchange_key())), "keys of 2"),
        (lambda m, _: with_advert(m, 2, commitment=b"c" * 32), "keys of 2"),
        (lambda m, _: with_advert(m, 2, signature=b""), "keys of 2"),
        # It gives out one client's keys as another's.
        (
            lambda m, _: messages.Adverts(
                {1: m.by_peer[2], 2: m.by_peer[1], 3: m.by_peer[3], 4: m.by_peer[4]}
            ),
            "keys of 1",
        ),
    ],
)
def test_keys_that_their_owner_did_not_sign_are_refused(change, said):
    error, _, _ = attack("share", change, parties.five(threat="active"))

    assert f"rule of signed keys: the {said} are not signed by its own key" in error


def test_a_signature_over_keys_holds_for_one_round():
    agreed = parties.five(threat="active")
    other = dataclasses.replace(agreed, round=6)

    def change(message, keys):
        *parts, _ = message.by_peer[2]
        again = sign(keys[2], advert_text(other.digest, 2, *parts))
        return with_advert(message, 2, signature=again)

    error, _, _ = attack("share", change, agreed)

    assert "rule of signed keys" in error


def attack_by_survivors(names, bitmap, forge=()):
    """Some clients sign some survivors; signatures to forge are by keys of nobody."""
    agreed, adverts = parties.five(threat="active"), {}

    def up(phase, name, message):
        adverts.update({name: message} if phase == "advertise" else {})
        return [(name, message)]

    def change(message, keys):
        text = survivors_text(agreed.digest, attempt(agreed.digest, adverts), bitmap)
        return messages.Signatures(
            {n: sign(signing_key() if n in forge else keys[n], text) for n in names}
        )

    return attack("unmask", change, agreed, up=up)


@pytest.mark.parametrize(
    ("names", "forge", "bitmap", "count"),
    [
        ((1,), (), b"\x1f", 2),  # With its own: two, of three.
        ((1, 2, 3, 4), (2, 3, 4), b"\x1f", 2),
        ((1, 2, 3, 4), (), b"\x0f", 1),  # They were told of others.
        ((), (), b"\x1f", 1),
    ],
)
def test_survivors_that_too_few_others_were_told_of_are_refused(names, forge, bitmap, count):
    error, _, _ = attack_by_survivors(names, bitmap, forge)

    assert f"rule of consistent survivors: {count} signed the survivors" in error
    assert "of at least 3" in error


def test_a_wrong_signature_among_enough_right_ones_stops_nobody():
    error, opened, _ = attack_by_survivors((1, 2, 3, 4), b"\x1f", (2, 3))

    assert error == "None"
    assert opened.survivors == (0, 1, 2, 3, 4)


def test_who_is_told_of_other_survivors_than_others_shows_nothing():
    # Both secrets of 0, 1, 4 and 5 would come out: some say they survived, some that they did not.
    agreed = terms(6, parties.SMALL, threat="active", dropped=1 / 3)  # Threshold and quorum 4.
    clients, lead, keys = parties.parties(agreed)
    halves = {name: b"\x0f" if name < 3 else b"\x3c" for name in range(6)}

    def down(phase, name, message):
        if phase == "consistency":
            return messages.Survivors(halves[name])
        if phase == "unmask":  # All that were signed, whatever for.
            return messages.Signatures({n: said[n] for n in said if n != name})
        return message

    said, adverts = {}, {}

    def up(phase, name, message):
        adverts.update({name: message} if phase == "advertise" else {})
        if phase == "consistency":
            said[name] = message.signature
            text = survivors_text(agreed.digest, attempt(agreed.digest, adverts), b"\x3f")
            return [(name, messages.Signed(sign(keys[name], text)))]
        return [(name, message)]

    opened, refused = parties.play(clients, lead, down=down, up=up)

    assert isinstance(opened, QuorumError)
    assert sorted(refused) == list(range(6))
    assert all("rule of consistent survivors: 3 signed" in str(e) for e in refused.values())


def test_an_active_server_is_faced_with_keys_in_hand():
    with pytest.raises(SettingsError, match="Client 0 signs against an active server"):
        next(client(parties.five(threat="active"), 0, VECTOR))


# Terms and models.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 1}, "A threshold of 1 shares is unsafe"),
        ({"quorum": 2}, "A quorum of 2 clients is unsafe"),
        ({"threat": "active", "threshold": 2}, "A threshold of 2 shares is unsafe"),
        ({"corrupt": 0.6}, "A threshold of 3 shares is unsafe"),
    ],
)
def test_terms_that_a_server_weakened_are_refused_before_anything_is_said(change, said):
    weak = dataclasses.replace(parties.five(), **change)

    with pytest.raises(SecureError, match=f"Client 0 .* rule of safe terms: {said}"):
        next(client(weak, 0, VECTOR))


def test_a_client_holds_out_for_its_own_least_cohort():
    with pytest.raises(SecureError, match="A quorum of 3 clients is unsafe"):
        next(client(parties.five(), 0, VECTOR, demands=Demands(quorum=4)))


def test_who_is_not_in_the_cohort_does_not_take_part():
    with pytest.raises(SettingsError, match="Client 9 is not in the cohort"):
        next(client(parties.five(), 9, VECTOR))


@pytest.mark.parametrize(
    "change",
    [{"model": b"x" * 32}, {"round": 6}, {"run": b"other"}, {"exchange": 1}, {"corrupt": 0.1}],
    ids=lambda change: next(iter(change)),
)
def test_who_was_told_something_else_shares_with_nobody(change):
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)
    clients[3] = client(dataclasses.replace(agreed, **change), 3, VECTOR)

    opened, refused = parties.play(clients, lead)

    assert isinstance(opened, QuorumError)
    assert len(refused) == 5
    assert "rule of sealed shares: what 3 sealed for it does not open" in str(refused[0])


@pytest.mark.parametrize("change", [{"model": b"x" * 32}, {"round": 6}, {"run": b"other"}])
def test_over_a_wire_the_server_names_who_was_told_something_else(change):
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)
    other = dataclasses.replace(agreed, **change)
    clients[3] = client(other, 3, VECTOR)

    def up(phase, name, message):
        return [(name, messages.encode(message, other if name == 3 else agreed))]

    opened, refused = parties.play(clients, lead, up=up)

    assert not refused
    assert opened.survivors == (0, 1, 2, 4)
    assert 'Client 3 in the phase "advertise": Advert is of other terms' in opened.faults[3]


def test_sealed_shares_of_an_old_round_do_not_open():
    agreed = parties.five()
    old = dataclasses.replace(agreed, round=6)
    kept: dict = {}

    def recorded(terms, replay):
        clients, lead, _ = parties.parties(terms)

        def down(phase, name, message):
            if phase == "mask" and name == 0:
                kept.setdefault("old", message)
                return kept["old"] if replay else message
            return message

        return parties.play(clients, lead, down=down)

    assert not recorded(old, replay=False)[1]
    _, refused = recorded(agreed, replay=True)

    assert "rule of sealed shares" in str(refused[0])
