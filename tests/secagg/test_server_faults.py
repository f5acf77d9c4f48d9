"""Whoever answers what it must not is left out and named; the sum goes on, or nothing is opened."""

import numpy as np
import parties
import pytest

from folkmoot.core.errors import QuorumError, SettingsError
from folkmoot.secagg import messages
from folkmoot.secagg.primitives import signing_key, stream
from folkmoot.secagg.shamir import PRIME
from folkmoot.secagg.terms import terms
from folkmoot.secagg.together import together

CULPRIT = 3


def run(phase, change, agreed=None, drops=()):
    """A sum in which the culprit's answer of one phase is changed: to a message, or to a list."""
    agreed = agreed or parties.five()
    given = parties.inputs(agreed)
    clients, lead, _ = parties.parties(agreed, given)

    def up(now, name, message):
        if (name, now) in drops:
            return []
        if (now, name) != (phase, CULPRIT):
            return [(name, message)]
        changed = change(message)
        return changed if isinstance(changed, list) else [(name, changed)]

    opened, refused = parties.play(clients, lead, up=up)
    assert not refused
    if not isinstance(opened, QuorumError):
        assert parties.is_exact(agreed, given, opened)
    return opened


def high_bit(key):
    return key[:-1] + bytes([key[-1] | 0x80])


def shares_of(message, change):
    return messages.Reveal({p: (kind, change(p, s)) for p, (kind, s) in message.by_peer.items()})


@pytest.mark.parametrize(
    ("phase", "change", "said"),
    [
        ("advertise", lambda m: m._replace(mask=bytes(32)), "points of low order"),
        ("advertise", lambda m: m._replace(channel=b"\1" + bytes(31)), "points of low order"),
        ("advertise", lambda m: m._replace(channel=b""), "its keys are no keys"),
        ("advertise", lambda m: m._replace(commitment=b""), "its keys are no keys"),
        ("advertise", lambda m: m._replace(mask=m.channel), "not its own alone"),
        # u = 11 and the prime: one point by other bytes, to which a pair's mask is bound.
        ("advertise", lambda m: m._replace(mask=(2**255 - 8).to_bytes(32, "little")), "no keys"),
        ("advertise", lambda m: m._replace(mask=high_bit(m.mask)), "its keys are no keys"),
        ("advertise", lambda m: m._replace(channel=high_bit(m.channel)), "its keys are no keys"),
        # What no bytes are read to, from whoever passes objects.
        ("advertise", lambda m: m._replace(commitment=5), "parts are not of its types"),
        ("advertise", lambda m: m._replace(mask=None), "parts are not of its types"),
        ("advertise", lambda m: m._replace(channel=[]), "parts are not of its types"),
        ("advertise", lambda m: m._replace(signature=7), "parts are not of its types"),
        ("advertise", lambda m: None, "Advert was due, but found NoneType"),
        ("share", lambda m: messages.Shares(None), "parts are not of its types"),
        ("share", lambda m: messages.Shares(m.by_peer | {0: 5}), "parts are not of its types"),
        ("share", lambda m: messages.Shares(m.by_peer | {"0": b""}), "parts are not of its types"),
        ("mask", lambda m: messages.Masked(None), "parts are not of its types"),
        ("mask", lambda m: messages.Masked(([1, 2],)), "parts are not of its types"),
        ("mask", lambda m: messages.Complaint(None, b""), "parts are not of its types"),
        ("mask", lambda m: messages.Complaint(([],), b""), "parts are not of its types"),
        ("unmask", lambda m: messages.Reveal({0: None}), "parts are not of its types"),
        ("unmask", lambda m: messages.Reveal({0: (0, 1.5)}), "parts are not of its types"),
        ("unmask", lambda m: messages.Reveal({0: (0, 1, 2)}), "parts are not of its types"),
        ("advertise", lambda m: b"noise", "5 bytes that begin with b'noise' are no message"),
        ("advertise", lambda m: messages.Signed(b""), "Advert was due, but found Signed"),
        ("share", lambda m: messages.Shares({}), "not one share of each secret to each"),
        ("share", lambda m: messages.Shares(m.by_peer | {9: m.by_peer[0]}), "not one share"),
        ("share", lambda m: messages.Shares(m.by_peer | {0: b"short"}), "not one share"),
        ("mask", lambda m: messages.Masked(()), "its vectors are [], and not"),
        ("mask", lambda m: messages.Masked((m.vectors[0][:4],)), "(4,))], and not"),
        ("mask", lambda m: messages.Masked((m.vectors[0].astype(np.int64),)), "int64"),
        ("unmask", lambda m: messages.Reveal({}), "not one share, of the kind that was due"),
        ("unmask", lambda m: shares_of(m, lambda p, s: s + PRIME), "not one share"),
        ("unmask", lambda m: shares_of(m, lambda p, s: -1), "not one share"),
        (
            "unmask",
            lambda m: messages.Reveal({p: (1 - k, s) for p, (k, s) in m.by_peer.items()}),
            "of the kind that was due",
        ),
    ],
)
def test_an_answer_that_is_none_counts_as_lost_and_is_named(phase, change, said):
    opened = run(phase, change)

    assert opened.dropped == {CULPRIT: phase}
    assert opened.faults.keys() == {CULPRIT}
    assert opened.faults[CULPRIT].startswith(f'Client 3 in the phase "{phase}": ')
    assert said in opened.faults[CULPRIT]


@pytest.mark.parametrize("phase", ["advertise", "share", "mask", "unmask"])
def test_a_second_answer_changes_nothing_and_is_named(phase):
    opened = run(phase, lambda m: [(CULPRIT, m), (CULPRIT, m)])

    assert opened.survivors == (0, 1, 2, 3, 4)
    assert "it answered twice; the first answer counts" in opened.faults[CULPRIT]


@pytest.mark.parametrize("phase", ["advertise", "share", "mask", "unmask"])
@pytest.mark.parametrize("sender", [77, "nobody"])
def test_an_answer_of_a_stranger_changes_nothing_and_is_named(phase, sender):
    opened = run(phase, lambda m: [(sender, m), (CULPRIT, m)])

    assert opened.survivors == (0, 1, 2, 3, 4)
    assert "it was not asked" in opened.faults[sender]


def test_who_was_lost_stays_lost():
    agreed, kept = parties.five(), []
    clients, lead, _ = parties.parties(agreed)

    def up(phase, name, message):
        if (phase, name) == ("share", CULPRIT):
            kept.append((name, message))
            return []
        return [(name, message), *(kept if phase == "mask" else [])]

    opened, _ = parties.play(clients, lead, up=up)

    assert opened.survivors == (0, 1, 2, 4)
    assert opened.dropped == {CULPRIT: "share"}
    assert "it was not asked" in opened.faults[CULPRIT]


@pytest.mark.parametrize("phase", ["share", "mask", "unmask"])
def test_a_late_copy_of_an_earlier_answer_does_not_stand_in_for_the_one_that_is_due(phase):
    agreed = parties.five()
    said: dict = {}
    given = parties.inputs(agreed)
    clients, lead, _ = parties.parties(agreed, given)

    def up(now, name, message):
        earlier = said.get(name)
        said[name] = message
        return [(name, earlier)] * (now == phase) + [(name, message)]

    opened, _ = parties.play(clients, lead, up=up)

    assert opened.survivors == agreed.clients
    assert f'in the phase "{phase}": ' in opened.faults[0]
    assert parties.is_exact(agreed, given, opened)


def test_answers_come_in_any_order():
    agreed = parties.five()
    given = parties.inputs(agreed)
    clients, lead, _ = parties.parties(agreed, given)
    asked = next(lead)
    try:
        while True:
            answers = [(n, clients[n].send(m)) for n, m in asked.messages.items()]
            asked = lead.send(dict(reversed(answers)))
    except StopIteration as done:
        assert parties.is_exact(agreed, given, done.value)


def test_who_takes_another_ones_key_for_its_own_is_left_out():
    taken = []

    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)

    def up(phase, name, message):
        if (phase, name) == ("advertise", 1):
            taken.append(message.mask)
        if (phase, name) == ("advertise", CULPRIT):
            message = message._replace(mask=taken[0])
        return [(name, message)]

    opened, _ = parties.play(clients, lead, up=up)

    assert opened.dropped == {CULPRIT: "advertise"}
    assert "not its own alone" in opened.faults[CULPRIT]


@pytest.mark.parametrize("signature", [None, 5, "s"])
@pytest.mark.parametrize("phase", ["advertise", "consistency"])
def test_what_is_no_signature_is_a_fault(phase, signature):
    agreed = parties.five(threat="active")

    opened = run(phase, lambda m: m._replace(signature=signature), agreed)

    assert opened.dropped == {CULPRIT: phase}
    assert "parts are not of its types" in opened.faults[CULPRIT]


@pytest.mark.parametrize(
    ("phase", "said"),
    [("advertise", "its keys are not signed"), ("consistency", "its signature over the survivors")],
)
def test_who_signs_with_another_key_is_left_out(phase, said):
    agreed = parties.five(threat="active")

    opened = run(phase, lambda m: m._replace(signature=b"s" * 64), agreed)

    assert opened.dropped == {CULPRIT: phase}
    assert said in opened.faults[CULPRIT]


def test_without_an_identity_nobody_takes_part_against_an_active_server():
    agreed = parties.five(threat="active")
    keys: dict = {name: signing_key() for name in agreed.clients if name != 2}

    with pytest.raises(SettingsError, match="Client 2 signs against an active server"):
        together(agreed, parties.inputs(agreed), identities=keys)


# Wrong shares


# Of shares that are not needed nobody asks whether they are right: one client is lost, so that
# the three shares that are used are of clients 0, 2 and 3.
ONE_LOST = [(1, "mask")]


def test_a_wrong_share_is_noticed_and_who_showed_it_is_named():
    opened = run("unmask", lambda m: shares_of(m, lambda p, s: (s + 1) % PRIME), drops=ONE_LOST)

    assert opened.survivors == (0, 2, 3, 4)
    assert opened.dropped == {1: "mask"}
    assert "its share of a secret of client 0 is wrong" in opened.faults[CULPRIT]


def test_one_wrong_share_among_right_ones_is_found():
    def change(message):
        return shares_of(message, lambda peer, s: (s ^ 1) % PRIME if peer == 4 else s)

    opened = run("unmask", change, drops=ONE_LOST)

    assert opened.faults == {
        3: 'Client 3 in the phase "unmask": its share of a secret of client 4 is wrong.'
    }


def test_two_liars_are_found_where_shares_are_to_spare():
    agreed = terms(9, parties.SMALL, dropped=0.5)  # Threshold five.
    given = parties.inputs(agreed)
    clients, lead, _ = parties.parties(agreed, given)

    def up(phase, name, message):
        if phase == "unmask" and name in (1, 4):
            message = shares_of(message, lambda p, s: (s + name) % PRIME)
        return [(name, message)]

    opened, _ = parties.play(clients, lead, up=up)

    assert opened.faults.keys() == {1, 4}
    assert parties.is_exact(agreed, given, opened)


def test_wrong_shares_without_one_to_spare_open_nothing():
    lost = [(0, "unmask"), (1, "unmask")]

    error = run("unmask", lambda m: shares_of(m, lambda p, s: (s + 1) % PRIME), drops=lost)

    assert isinstance(error, QuorumError)
    assert "a secret of client 0 cannot be rebuilt from 3 shares: some are wrong" in str(error)
    assert "nothing of it was opened" in str(error)


def test_who_deals_wrong_shares_is_named_when_its_secret_is_needed():
    # It commits to another seed than the one that it shares.
    error = run("advertise", lambda m: m._replace(commitment=b"c" * 32))

    assert isinstance(error, QuorumError)
    assert "a secret of client 3 cannot be rebuilt from 5 shares" in str(error)


@pytest.mark.parametrize("came", [0, 1, 2])
def test_below_the_threshold_nothing_is_opened(came):
    agreed = parties.five()
    drops: dict = dict.fromkeys(range(5 - came), "unmask")

    with pytest.raises(QuorumError, match=f'{came} of 5 answered in the phase "unmask"'):
        together(agreed, parties.inputs(agreed), drops=drops)


def test_on_a_sparse_graph_who_loses_its_neighbours_is_left_out_in_time():
    agreed = terms(300, parties.SMALL, seed=bytes(32))
    ring = np.argsort(np.frombuffer(stream(agreed.seed, 8 * 300), dtype="<u8")).tolist()
    # Of 24 neighbours, 12 on each side, 13 are left, and it takes 14. Others keep one more.
    gone = [ring[100 + step] for step in (-11, -10, -3, -2, -1, 1, 2, 3, 10, 11, 12)]
    drops: dict = dict.fromkeys(gone, "share")

    opened = parties.opens(agreed, drops)

    assert (agreed.degree, agreed.threshold) == (24, 14)
    assert opened.dropped == drops | {ring[100]: "share"}
    assert "too few of its peers are left" in opened.faults[ring[100]]


def test_on_a_sparse_graph_a_secret_without_shares_is_named():
    agreed = terms(300, parties.SMALL, seed=bytes(32))
    drops: dict = dict.fromkeys(agreed.peers(0)[:11], "unmask")

    with pytest.raises(QuorumError, match="13 shares of a secret of client 0 came, of 14"):
        together(agreed, parties.inputs(agreed), drops=drops)
