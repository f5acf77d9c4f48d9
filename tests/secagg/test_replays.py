"""What was said in one attempt at a sum is worth nothing in the next, under the very same terms."""

import parties
import pytest

from folkmoot.core.errors import SecureError
from folkmoot.secagg.messages import Adverts, Delivery, Signatures, Survivors, as_bitmap
from folkmoot.secagg.primitives import signing_key
from folkmoot.secagg.terms import terms


class Attempt:
    """One attempt, led by a server that clients cannot trust."""

    def __init__(self, agreed, keys):
        self.agreed = agreed
        self.clients, _, _ = parties.parties(agreed, keys=keys)
        self.adverts = {name: next(party) for name, party in self.clients.items()}
        self.sealed: dict = {}

    def hear_adverts(self, name, adverts):
        """Have a client deal to whom it is said to share the sum with."""
        peers = self.agreed.peers(name)
        told = Adverts({peer: adverts[peer] for peer in peers})
        self.sealed[name] = self.clients[name].send(told).by_peer

    def hear_shares(self, name, senders):
        """Have a client mask its vector with those whose shares it gets."""
        peers = [peer for peer in self.agreed.peers(name) if peer in senders]
        return self.clients[name].send(Delivery({p: senders[p][name] for p in peers}))

    def mask(self):
        """Go on to the masked vectors, honestly."""
        for name in self.clients:
            self.hear_adverts(name, self.adverts)
        for name in self.clients:
            self.hear_shares(name, self.sealed)
        return self

    def sign(self, name, alive):
        """Have a client sign who is said to be alive."""
        told = Survivors(as_bitmap(alive, self.agreed))
        return self.clients[name].send(told).signature

    def unmask(self, name, signatures):
        """What a client says to signatures of others: by which rule it leaves."""
        others = {peer: text for peer, text in signatures.items() if peer != name}
        with pytest.raises(SecureError) as left:
            self.clients[name].send(Signatures(others))
        return str(left.value)


def identities(agreed):
    return {name: signing_key() for name in agreed.clients}


def test_signatures_of_attempts_that_were_given_up_open_no_smaller_sum():
    # Six lists of eight have six clients in common: everybody else is alive to four of twelve and
    # dropped to eight, the threshold, so that a sum of six would come out.
    agreed = terms(12, parties.SMALL, threat="active")
    assert agreed.quorum == agreed.threshold == 8
    keys, lists = identities(agreed), [{*range(6), 6 + k, 6 + (k + 1) % 6} for k in range(6)]
    stock = []
    for alive in lists:
        attempt = Attempt(agreed, keys).mask()
        stock.append({name: attempt.sign(name, alive) for name in alive})

    last, said = Attempt(agreed, keys).mask(), []
    for name in range(12):
        last.sign(name, lists[name % 6])
        said.append(last.unmask(name, stock[name % 6]))

    assert all("rule of consistent survivors: 1 signed the" in refusal for refusal in said)


def test_on_a_sparse_graph_an_old_signature_is_worth_nothing_too():
    agreed = terms(24, parties.SMALL, threat="active", degree=8, corrupt=0, dropped=0)
    keys, everybody = identities(agreed), set(range(24))
    first = Attempt(agreed, keys).mask()
    stock = {name: first.sign(name, everybody) for name in everybody}

    last = Attempt(agreed, keys).mask()
    last.sign(0, everybody)

    assert "rule of consistent survivors: 0 signed the" in last.unmask(0, stock)


def test_who_was_shown_other_keys_of_somebody_signs_for_nobody_else():
    # The server starts client 4 again, and shows its new keys to clients 2 and 3 alone: attempts
    # woven into each other, so that 4 would sign two lists of survivors.
    agreed = parties.five(threat="active")
    keys = identities(agreed)
    attempt, again = Attempt(agreed, keys), Attempt(agreed, keys).adverts[4]
    for name in range(4):
        attempt.hear_adverts(name, attempt.adverts | ({4: again} if name in (2, 3) else {}))
    for name in range(4):
        attempt.hear_shares(name, attempt.sealed)

    signed = {name: attempt.sign(name, {0, 1, 2, 3}) for name in range(4)}

    assert "consistent survivors: 2 signed the" in attempt.unmask(0, signed)  # 1, and itself.


def test_old_keys_are_of_one_who_deals_nothing_that_opens():
    agreed = parties.five(threat="active")
    keys, given = identities(agreed), parties.inputs(agreed)
    old = Attempt(agreed, keys).adverts[3]
    clients, lead, _ = parties.parties(agreed, given, keys=keys)

    def down(phase, name, message):
        replay = (phase, name) == ("share", 0)
        return Adverts(message.by_peer | {3: old}) if replay else message

    opened, refused = parties.play(clients, lead, down=down)

    assert "rule of sealed shares: what 3 sealed for it does not open" in str(refused[0])
    assert "rule of sealed shares: what 0 sealed for it does not open" in str(refused[3])
    assert opened.survivors == (1, 2, 4)
    assert parties.is_exact(agreed, given, opened)


def test_without_shares_of_whom_old_keys_are_nothing_is_masked_with_them():
    agreed = parties.five(threat="active")
    keys = identities(agreed)
    old = Attempt(agreed, keys).adverts[3]
    attempt = Attempt(agreed, keys)
    for name in range(3):
        attempt.hear_adverts(name, attempt.adverts | {3: old})

    attempt.hear_shares(0, {peer: attempt.sealed[peer] for peer in (1, 2)})

    with pytest.raises(SecureError, match="rule of survivors: 3 dealt no shares"):
        attempt.sign(0, {0, 1, 2, 3})


def test_old_shares_do_not_open():
    agreed = parties.five(threat="active")
    keys = identities(agreed)
    old = Attempt(agreed, keys).mask().sealed
    clients, lead, _ = parties.parties(agreed, keys=keys)

    def down(phase, name, message):
        replay = (phase, name) == ("mask", 0)
        return Delivery(message.by_peer | {3: old[3][0]}) if replay else message

    _, refused = parties.play(clients, lead, down=down)

    assert "rule of sealed shares: what 3 sealed for it does not open" in str(refused[0])
