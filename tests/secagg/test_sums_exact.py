"""The opened sum is the plain modular sum to the bit, whoever drops out and whenever."""

import functools
import itertools
import random
import tracemalloc

import numpy as np
import parties
import pytest

from folkmoot.core.errors import ClientError, QuorumError, SettingsError
from folkmoot.secagg.book import PHASES
from folkmoot.secagg.messages import decode, encode
from folkmoot.secagg.terms import terms
from folkmoot.secagg.together import together

HONEST = [None, *(phase for phase in PHASES if phase != "consistency")]
MIXED = ((33, 16), (0, 32), (7, 64), (1001, 32))
KINDS = "Advert Adverts Shares Delivery Masked Survivors Signed Signatures Reveal"


def expected(agreed, drops):
    """Who is in the sum, by the rules of the phases; None if it is given up."""
    phases = PHASES if agreed.threat == "active" else [p for p in PHASES if p != "consistency"]
    left = summed = list(agreed.clients)
    for phase in phases:
        left = [name for name in left if drops.get(name) != phase]
        early = phase in ("advertise", "share", "mask")
        if len(left) < (agreed.quorum if early else agreed.threshold):
            return None
        summed = left if early else summed
    return tuple(summed)


def holds(agreed, drops):
    drops = {name: phase for name, phase in enumerate(drops) if phase}

    opened = parties.opens(agreed, drops)

    assert (opened and opened.survivors) == expected(agreed, drops), drops
    if opened:
        assert opened.dropped == drops
        assert not opened.faults


@pytest.mark.parametrize("first", HONEST)
def test_of_five_any_may_drop_out_in_any_phase(first):
    agreed = parties.five()

    for others in itertools.product(HONEST, repeat=4):
        holds(agreed, (first, *others))


@pytest.mark.parametrize("lost", [1, 2])
def test_of_five_any_two_may_drop_out_against_an_active_server(lost):
    agreed = parties.five(threat="active")

    for who in itertools.combinations(range(5), lost):
        for when in itertools.product(PHASES, repeat=lost):
            drops = dict(zip(who, when, strict=True))
            holds(agreed, [drops.get(name) for name in range(5)])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threat", ["honest", "active"])
def test_cohorts_of_any_size_lose_anybody_on_the_complete_graph(seed, threat):
    dice = random.Random(seed)
    agreed = terms(
        dice.randint(3, 40), [(dice.randint(0, 40), 32), (3, 16), (2, 64)], threat=threat
    )

    holds(agreed, drawn(dice, agreed))


@pytest.mark.parametrize("seed", range(4))
def test_cohorts_of_any_size_lose_anybody_on_a_sparse_graph(seed):
    dice = random.Random(seed)
    agreed = terms(dice.randint(129, 200), [(dice.randint(1, 40), 32), (3, 16)])

    holds(agreed, drawn(dice, agreed))


@pytest.mark.nightly
@pytest.mark.parametrize("threat", ["honest", "active"])
@pytest.mark.parametrize("degree", [None, "complete"])
@pytest.mark.parametrize("seed", range(40))
def test_many_cohorts_lose_anybody_on_both_graphs(seed, degree, threat):
    dice = random.Random(seed)
    n = dice.randint(3, 200)
    agreed = terms(n, [(9, 32)], degree=None if degree is None else n - 1, threat=threat)

    holds(agreed, drawn(dice, agreed))


def drawn(dice, agreed):
    """Dropouts up to what the terms allow, each in some phase."""
    phases = PHASES if agreed.threat == "active" else HONEST[1:]
    most = len(agreed.clients) - agreed.quorum
    lost = dice.sample(range(len(agreed.clients)), dice.randint(0, most))
    return [dice.choice(phases) if name in lost else None for name in agreed.clients]


def test_vectors_of_all_widths_share_one_sum():
    agreed = parties.five(vectors=((33, 16), (0, 32), (7, 64), (1001, 32)))

    opened = parties.opens(agreed, {2: "mask", 4: "unmask"})

    assert opened.survivors == (0, 1, 3, 4)
    assert [vector.dtype for vector in opened.vectors] == [
        np.uint16,
        np.uint32,
        np.uint64,
        np.uint32,
    ]


@pytest.mark.parametrize("threat", ["honest", "active"])
def test_messages_may_travel_as_bytes(threat):
    agreed = parties.five(
        vectors=((33, 16), (0, 32), (7, 64), (1001, 32)), threat=threat, corrupt=0
    )
    given = parties.inputs(agreed)
    clients, lead, _ = parties.parties(agreed, given)

    def wire(phase, name, message):
        return message and encode(message, agreed)

    opened, refused = parties.play(
        clients, lead, down=wire, up=lambda *said: [(said[1], wire(*said))]
    )

    assert not refused
    assert opened.survivors == agreed.clients
    assert parties.is_exact(agreed, given, opened)


def test_a_message_comes_back_from_its_bytes():
    agreed = parties.five(threat="active", vectors=((3, 16), (2, 32)))
    clients, lead, _ = parties.parties(agreed)
    said = []

    def listen(phase, name, message):
        said.append(message)
        return message

    parties.play(clients, lead, down=listen, up=lambda *heard: [(heard[1], listen(*heard))])

    kinds = {type(message).__name__ for message in said if message}
    assert kinds == set(KINDS.split())
    for message in filter(None, said):
        again = decode(encode(message, agreed), agreed)
        assert type(again) is type(message)
        assert repr(tuple(again)) == repr(tuple(message))


def test_ids_may_be_names():
    agreed = terms(["ghent", "york", "turin", "riga"], parties.SMALL)

    opened = parties.opens(agreed, {"turin": "mask"})

    assert opened.survivors == ("ghent", "york", "riga")
    assert opened.dropped == {"turin": "mask"}


def test_inputs_stay_as_they_were():
    agreed = parties.five()
    given = parties.inputs(agreed)
    before = {name: [vector.copy() for vector in given[name]] for name in given}

    together(agreed, given)

    assert all((given[n][0] == before[n][0]).all() for n in given)


def test_vectors_are_asked_for_only_when_they_are_due():
    agreed, asked = parties.five(), []
    given = parties.inputs(agreed)

    def bring(name):
        asked.append(name)
        return given[name]

    brought = {name: functools.partial(bring, name) for name in given}
    opened = together(agreed, brought, drops={1: "share", 3: "mask"})

    assert asked == [0, 2, 4]
    assert parties.is_exact(agreed, given, opened)


def test_whose_work_fails_drops_out():
    agreed = parties.five()
    given = parties.inputs(agreed)

    def fail():
        raise ClientError("Client 2's loss is not finite.")

    opened = together(agreed, given | {2: fail})

    assert opened.dropped == {2: "mask"}
    assert parties.is_exact(agreed, given, opened)


def test_memory_is_a_sum_and_not_a_cohort():
    agreed = terms(30, [(250_000, 32)])  # One megabyte each.
    vector = np.ones(250_000, dtype=np.uint32)
    tracemalloc.start()

    opened = together(agreed, {name: (lambda: (vector,)) for name in agreed.clients})

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (opened.vectors[0] == 30).all()
    assert peak < 6e6  # 30 masked vectors would be 30 MB.


@pytest.mark.parametrize(
    ("brought", "found"),
    [
        ((np.zeros(4, np.uint32),), "uint32', \\(4,\\)"),
        ((np.zeros(5, np.int32),), "int32', \\(5,\\)"),
        ((), "brings \\[\\]"),
    ],
)
def test_vectors_that_are_not_as_agreed_are_refused(brought, found):
    agreed = parties.five()

    with pytest.raises(SettingsError, match=found):
        together(agreed, parties.inputs(agreed) | {1: brought})


def test_a_phase_that_is_none_is_refused():
    agreed = parties.five()

    with pytest.raises(SettingsError, match="drop out in a phase of"):
        together(agreed, parties.inputs(agreed), drops={1: "masked"})


def test_too_few_answers_open_nothing_and_say_so():
    agreed = parties.five()

    with pytest.raises(
        QuorumError, match=r'nothing of it was opened: 2 of 4 .* "mask", of at .* 3'
    ):
        together(agreed, parties.inputs(agreed), drops={0: "share", 1: "mask", 2: "mask"})


@pytest.mark.parametrize("threat", ["honest", "active"])
def test_all_but_a_masked_vector_of_a_million_words_is_under_two_percent_of_it(threat):
    # A client sends and hears the same number of bytes for each peer, of whom it has 99 of 100.
    sent = traffic(terms(34, [(0, 32)], threat=threat))

    assert max(sent.values()) / 33 * 99 < 0.02 * 4_000_000


def test_on_a_sparse_graph_a_client_hears_of_its_peers_alone():
    agreed = terms(300, [(0, 32)])
    sent = traffic(agreed)

    # 24 peers: 24 * (100 + 86 + 86 + 38) bytes, the bits of 300 clients, and heads of 40 bytes.
    assert agreed.degree == 24
    assert max(sent.values()) < 24 * 310 + 96 + 38 + 9 * 40


def traffic(agreed):
    """Bytes that each client sends and hears, besides masked words."""
    clients, lead, _ = parties.parties(agreed)
    sent = dict.fromkeys(agreed.clients, 0)

    def count(phase, name, message):
        sent[name] += len(encode(message, agreed)) if message else 0
        return message

    parties.play(clients, lead, down=count, up=lambda *said: [(said[1], count(*said))])
    return sent
