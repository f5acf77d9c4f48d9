"""Whoever is dealt what does not open says so before it leaves, and the server names the dealer."""

import parties
import pytest

from folkmoot.core.errors import QuorumError, SecureError
from folkmoot.secagg import messages
from folkmoot.secagg.keys import SEALED_BYTES, seal_shares
from folkmoot.secagg.messages import Complaint, Masked, Shares
from folkmoot.secagg.primitives import signing_key
from folkmoot.secagg.shamir import PRIME
from folkmoot.secagg.terms import terms

CULPRIT = 3
THREATS = pytest.mark.parametrize("threat", ["honest", "active"])


def play(agreed, deal=None, answer=None, bytewise=False):
    """A sum in which the culprit deals something else, or client 0 answers so in "mask"."""
    given = parties.inputs(agreed)
    clients, lead, _ = parties.parties(agreed, given)

    def wire(message):
        return messages.encode(message, agreed) if bytewise and message else message

    def up(phase, name, message):
        said = [message]
        if deal and (phase, name) == ("share", CULPRIT):
            said = [deal(message, clients[name])]
        if answer and (phase, name) == ("mask", 0):
            said = answer(message)
        return [(name, wire(one)) for one in said]

    opened, refused = parties.play(clients, lead, down=lambda *told: wire(told[2]), up=up)
    if not isinstance(opened, QuorumError):
        assert parties.is_exact(agreed, given, opened)
    return opened, refused


def garbage_for(*peers):
    def deal(message, _):
        return Shares(message.by_peer | dict.fromkeys(peers, bytes(SEALED_BYTES)))

    return deal


@THREATS
@pytest.mark.parametrize("bytewise", [False, True])
def test_garbage_for_one_client_costs_that_client_and_names_who_dealt_it(threat, bytewise):
    agreed = parties.five(threat=threat)

    opened, refused = play(agreed, garbage_for(0), bytewise=bytewise)

    assert opened.survivors == (1, 2, 3, 4)
    assert opened.dropped == {0: "mask"}
    assert opened.faults == {
        3: 'Client 3 in the phase "share": what it dealt client 0 does not open, says client 0.'
    }
    assert list(refused) == [0]
    assert "rule of sealed shares: what 3 sealed for it does not open" in str(refused[0])


@THREATS
def test_garbage_for_everybody_is_named_where_nothing_is_opened(threat):
    error, refused = play(parties.five(threat=threat), garbage_for(0, 1, 2, 4))

    assert isinstance(error, QuorumError)
    assert str(error).endswith(
        'Client 3 in the phase "share": what it dealt 4 clients does not open, say 0, 1, 2, 4. '
        "Ask again, with fresh keys, without those of whom most complain."
    )
    assert sorted(refused) == [0, 1, 2, 4]


def test_on_a_sparse_graph_who_deals_garbage_is_named():
    agreed = terms(300, parties.SMALL)
    victims = agreed.peers(CULPRIT)[:2]

    opened, refused = play(agreed, garbage_for(*victims))

    assert sorted(refused) == victims
    assert "what it dealt 2 clients does not open" in opened.faults[CULPRIT]


def test_what_is_no_share_is_taken_for_one_that_does_not_open():
    # Shown to the server it would cost its holder, who did nothing wrong.
    agreed = parties.five()

    def deal(message, dealer):
        key = dealer.gi_frame.f_locals["own"].channels[0]
        sealed = seal_shares(key, agreed.digest, CULPRIT, 0, (5, PRIME))
        return Shares(message.by_peer | {0: sealed})

    opened, _ = play(agreed, deal)

    assert opened.dropped == {0: "mask"}
    assert opened.faults.keys() == {CULPRIT}


def test_the_largest_number_below_the_prime_is_a_share():
    agreed = parties.five()

    def deal(message, dealer):
        key = dealer.gi_frame.f_locals["own"].channels[0]
        sealed = seal_shares(key, agreed.digest, CULPRIT, 0, (0, PRIME - 1))
        return Shares(message.by_peer | {0: sealed})

    _, refused = play(agreed, deal)

    assert not refused


def test_who_complains_shows_nothing_more_and_keeps_nothing():
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)
    asked, own = next(lead), None
    for _ in range(2):
        asked = lead.send([(name, clients[name].send(m)) for name, m in asked.messages.items()])
    own = clients[0].gi_frame.f_locals["own"]
    heard = asked.messages[0].by_peer

    said = clients[0].send(messages.Delivery(heard | {1: b"", 3: heard[2]}))

    assert said == Complaint((1, 3), b"")
    assert not own.held
    assert not own.pair_masks
    assert not own.channels
    assert not hasattr(own, "keys")
    with pytest.raises(SecureError, match="sealed shares: what 1, 3 sealed for it does not open"):
        clients[0].send(messages.Survivors(b"\x1f"))


# A complaint is a claim.


@pytest.mark.parametrize("peers", [(), (0,), (1, 1), (77,), (-1,)])
def test_a_complaint_of_what_was_not_sent_is_a_fault_of_its_own(peers):
    opened, _ = play(parties.five(), answer=lambda _: [Complaint(peers, b"")])

    assert opened.survivors == (1, 2, 3, 4)
    assert opened.faults.keys() == {0}
    assert "complains of nobody, or of shares that it was not sent" in opened.faults[0]


@pytest.mark.parametrize("signature", [b"", b"s" * 64])
def test_against_an_active_server_a_complaint_is_signed(signature):
    agreed = parties.five(threat="active")

    opened, _ = play(agreed, answer=lambda _: [Complaint((2,), signature)])

    assert opened.faults.keys() == {0}
    assert "its complaint is not signed by the key of the roster" in opened.faults[0]


def test_a_lie_about_others_stands_beside_their_name_and_costs_the_liar():
    opened, _ = play(parties.five(), answer=lambda _: [Complaint((2, 4), b"")])

    assert opened.survivors == (1, 2, 3, 4)
    assert opened.dropped == {0: "mask"}
    assert opened.faults.keys() == {2, 4}
    assert all("says client 0" in fault for fault in opened.faults.values())


def test_who_complained_has_answered():
    opened, _ = play(parties.five(), answer=lambda masked: [Complaint((2,), b""), masked])

    assert opened.dropped == {0: "mask"}
    assert "it answered twice; the first answer counts" in opened.faults[0]


def test_a_complaint_in_another_phase_is_no_answer():
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)

    def up(phase, name, message):
        early = [(name, Complaint((2,), b""))] * ((phase, name) == ("share", 0))
        return [*early, (name, message)]

    opened, _ = parties.play(clients, lead, up=up)

    assert opened.survivors == agreed.clients
    assert opened.faults.keys() == {0}
    assert "Shares was due, but found Complaint" in opened.faults[0]


def test_no_lesser_fault_hides_a_complaint_and_no_liar_hides_who_has_many():
    agreed = terms(9, parties.SMALL)
    clients, lead, _ = parties.parties(agreed)

    def up(phase, name, message):
        if (phase, name) == ("share", 8):
            message = garbage_for(*range(1, 8))(message, None)
            return [(name, message), (name, message)]
        if (phase, name) == ("mask", 0):
            return [(name, Complaint((1, 2, 4, 5, 6, 7), b""))]
        return [(name, message)]

    error, _ = parties.play(clients, lead, up=up)

    assert isinstance(error, QuorumError)
    assert (
        'the phase "mask", of at least 6. Client 8 in the phase "share": what it dealt 7 clients '
        "does not open, say 1, 2, 3, 4, 5, ..." in str(error)
    )


def test_a_complaint_is_bound_to_its_attempt():
    agreed = parties.five(threat="active")
    keys = {name: signing_key() for name in range(5)}
    said = []

    def up(phase, name, message):
        if isinstance(message, Complaint):
            said.append(message)
        if phase == "share" and name == CULPRIT and not said:
            message = garbage_for(0)(message, None)
        return [(name, said[0] if said and isinstance(message, Masked) and name == 0 else message)]

    for _ in range(2):
        clients, lead, _ = parties.parties(agreed, keys=keys)
        opened, _ = parties.play(clients, lead, up=up)

    assert opened.faults.keys() == {0}
    assert "its complaint is not signed" in opened.faults[0]
