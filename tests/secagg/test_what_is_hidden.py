"""What server and colluders see says nothing of an honest client but what the sum says.

Each law is also held against an implementation that breaks it: a test that lets a planted fault
pass shows nothing.
"""

import hashlib
import importlib

import battery
import numpy as np
import parties
import pytest

from folkmoot.core.errors import QuorumError
from folkmoot.secagg import keys, masks, messages, primitives, shamir
from folkmoot.secagg.terms import terms
from folkmoot.secagg.together import together

CLIENT = importlib.import_module("folkmoot.secagg.client")  # The package's `client` is a function.
QUICK = 1 << 20  # Words of 32 bits: 2^21 of 16.


@pytest.fixture
def replayed(monkeypatch):
    """Have all randomness follow from a number, so that a run can be had again; for tests alone."""

    def seed(number):
        count = 0

        def entropy(size):
            nonlocal count
            count += 1
            return hashlib.shake_256(b"%d %d" % (number, count)).digest(size)

        for module in (primitives, keys, shamir):
            monkeypatch.setattr(module, "entropy", entropy)

    return seed


@pytest.fixture
def expanded(monkeypatch):
    """Note the seeds that every client expands, in the order in which they mask: (plus, minus)."""
    noted = []

    def add_masks(total, plus, minus=()):
        noted.append((list(plus), list(minus)))
        masks.add_masks(total, plus, minus)

    monkeypatch.setattr(CLIENT, "add_masks", add_masks)
    return noted


def honest_view(agreed, given, expanded, honest):
    """Masked vectors of honest clients, less all masks that colluders know or the opening shows.

    The colluders know what they share with each; the opening shows everybody's own mask. Left are
    the masks that honest clients share with one another.
    """
    expanded.clear()
    record: list = []
    together(agreed, given, record=record)
    masked = {seen.client: seen.message.vectors[0] for seen in record if seen.phase == "mask"}
    all_of = {name: {*plus, *minus} for name, (plus, minus) in zip(masked, expanded, strict=True)}
    found = []
    for name in honest:
        others = set().union(*(all_of[other] for other in honest if other != name))
        plus, minus = expanded[list(masked).index(name)]
        vector = [masked[name].copy()]
        masks.add_masks(
            vector,
            [seed for seed in minus if seed not in others],
            [seed for seed in plus if seed not in others],
        )
        found += vector
    return found


def two_inputs(size):
    """Inputs of five clients that differ much and have equal sums over the honest three."""
    zeros = {name: (np.zeros(size, np.uint32),) for name in range(5)}
    ramp = np.arange(size, dtype=np.uint32)
    return zeros, zeros | {0: (ramp,), 1: (0 - ramp,), 2: (np.zeros(size, np.uint32),)}


def check_views(size, expanded):
    agreed = parties.five(vectors=((size, 32),))
    a, b = (honest_view(agreed, given, expanded, (0, 1, 2)) for given in two_inputs(size))

    for one, other in zip(a, b, strict=True):
        assert not battery.failures(one)
        assert not battery.failures(other)
        assert battery.alike(one, other) > battery.CHANCE
        assert abs(battery.equal_words(one, other)) < 6
    # Together they show the honest sum, which is the same, and nothing else does.
    assert not sum(a).any()
    assert not sum(b).any()


def test_honest_vectors_look_random_to_server_and_colluders(expanded):
    check_views(QUICK, expanded)


@pytest.mark.nightly
def test_honest_vectors_look_random_over_many_words(expanded):
    check_views(1 << 23, expanded)


def test_a_vector_without_its_own_mask_is_seen_through(expanded, monkeypatch):
    # Whoever is late has its mask key rebuilt: only its own mask then hides what it sent.
    agreed, (given, _) = parties.five(vectors=((QUICK, 32),)), two_inputs(QUICK)

    def stripped():
        """A masked vector less the masks of all pairs."""
        expanded.clear()
        record: list = []
        together(agreed, given, record=record)
        [vector] = next(seen.message.vectors for seen in record if seen.phase == "mask")
        (_, *plus), minus = expanded[0]
        left = [vector.copy()]
        masks.add_masks(left, minus, plus)
        return left[0]

    assert not battery.failures(stripped())
    add = CLIENT.add_masks
    monkeypatch.setattr(
        CLIENT, "add_masks", lambda total, plus, minus: add(total, [bytes(32), *plus[1:]], minus)
    )
    public = [np.zeros(QUICK, np.uint32)]
    masks.add_masks(public, [bytes(32)])
    assert (stripped() == public[0]).all()


def test_the_battery_catches_words_of_which_one_is_never_drawn():
    fine = np.random.default_rng(0).integers(0, 1 << 16, size=2 * QUICK, dtype=np.uint16)
    biased = np.random.default_rng(0).integers(0, (1 << 16) - 1, size=2 * QUICK, dtype=np.uint16)

    assert not battery.failures(fine)
    assert battery.failures(biased) == {"missing"}


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (lambda w: np.where(w & 0xFF == 7, w ^ 1, w), "words"),  # Of 256, one becomes another.
        (lambda w: np.where(w & 0xFF == 7, w | 0xFFF, w), "frequency"),
        (lambda w: np.repeat(w[::2], 2), "serial"),
        (lambda w: np.where(w & 0xFF == 7, 0xAAAA, w), "runs"),
    ],
    ids=["words", "frequency", "serial", "runs"],
)
def test_the_battery_catches_words_that_are_not_uniform(spoil, caught):
    words = np.random.default_rng(0).integers(0, 1 << 16, size=2 * QUICK, dtype=np.uint16)

    assert caught in battery.failures(spoil(words).astype(np.uint16))


# Seeds


def pair_seeds(expanded):
    """Seeds of all masks in some sums of six."""
    expanded.clear()
    agreed = terms(6, parties.SMALL)
    for _ in range(10):
        together(agreed, parties.inputs(agreed))
    return [seed for plus, minus in expanded for seed in plus + minus]


def test_seeds_have_256_bits_and_each_of_them_matters(expanded):
    def stream(seed):
        return primitives.stream(seed, 64)

    assert battery.dead_bits(pair_seeds(expanded)) == 0
    assert battery.deaf_bits(stream) == 0


@pytest.mark.parametrize("kept", [4, 16, 31])
def test_a_seed_cut_short_is_caught(expanded, monkeypatch, kept):
    derive = primitives.derive
    monkeypatch.setattr(keys, "derive", lambda *given: derive(*given)[:kept] + bytes(32 - kept))

    assert battery.dead_bits(pair_seeds(expanded)) == 8 * (32 - kept)
    short = battery.deaf_bits(lambda s: primitives.stream(s[:kept] + bytes(32 - kept), 64))
    assert short == 8 * (32 - kept)


def rounds(number, expanded):
    """Everything that should be fresh, over rounds of three clients with equal inputs."""
    agreed = terms(3, ((64, 32),), seed=bytes(32))
    given: dict = {name: (np.zeros(64, np.uint32),) for name in range(3)}
    expanded.clear()
    fresh: list = []
    last: list = []
    for _ in range(number):
        record: list = []
        together(agreed, given, record=record)
        for seen in record:
            if isinstance(seen.message, messages.Advert):
                fresh += seen.message[:3]
            if isinstance(seen.message, messages.Shares):
                fresh += seen.message.by_peer.values()
            if isinstance(seen.message, messages.Masked):
                last.append(seen.message.vectors[0])
    own = [plus[0] for plus, _ in expanded]
    # A pair's seed is expanded by both ends.
    pairs = [seed for plus, minus in expanded for seed in [*plus[1:], *minus]]
    return fresh + own, pairs, last


def test_keys_seeds_and_ciphertexts_are_fresh_in_each_of_a_thousand_rounds(expanded):
    fresh, pairs, masked = rounds(1000, expanded)

    # Of each client two keys, a commitment, two sealed texts and its own seed.
    assert len(set(fresh)) == len(fresh) == 1000 * 3 * 6
    assert len(set(pairs)) == len(pairs) / 2 == 1000 * 3
    equal = sum(
        abs(battery.equal_words(a, b)) > 6 for a, b in zip(masked, masked[3:], strict=False)
    )
    assert not equal


def test_masks_that_repeat_are_caught(expanded, replayed):
    # Of one round's terms: in another round even the same keys would give other masks.
    replayed(1)
    first = rounds(1, expanded)[2]
    replayed(1)
    again = rounds(1, expanded)[2]

    assert all(battery.equal_words(a, b) > 6 for a, b in zip(first, again, strict=True))


# Simulation


def transcript(agreed, given, drops, identities, pads, pair, monkeypatch):
    """All that server and colluders see, as bytes; one pair's mask is a pad, not a key stream."""

    def add_masks(total, plus, minus=()):
        rest = [seed for seed in plus if seed != pair], [seed for seed in minus if seed != pair]
        masks.add_masks(total, *rest)
        for vector, pad in zip(total, pads, strict=True):
            vector += pad * (pair in plus) - pad * (pair in minus)

    with monkeypatch.context() as patched:
        patched.setattr(CLIENT, "add_masks", add_masks)
        record: list = []
        opened = together(agreed, given, drops=drops, identities=identities, record=record)
    said = [(seen.client, messages.encode(seen.message, agreed)) for seen in record]
    return said, [vector.tolist() for vector in opened.vectors], opened.survivors


@pytest.mark.parametrize("threat", ["honest", "active"])
@pytest.mark.parametrize(
    "drops", [{}, {2: "mask"}, {2: "share", 4: "unmask"}, {3: "mask", 4: "mask"}, {0: "unmask"}]
)
def test_other_inputs_with_the_same_sum_explain_what_was_seen_as_well(
    drops, threat, replayed, expanded, monkeypatch
):
    """With masks to fit, inputs x + shift and y - shift give the very transcript of x and y.

    Clients 0 and 1 are honest. Their mask is a key stream, which nobody tells from a random pad
    without its seed; of a random pad, both values are as likely. All else is equal to the bit.
    """
    agreed = parties.five(threat=threat, vectors=((9, 32), (4, 16)), seed=bytes(32))
    identities: dict = {name: primitives.signing_key() for name in range(5)}
    replayed(3)
    together(agreed, parties.inputs(agreed), identities=identities)
    [pair] = {*expanded[0][0], *expanded[0][1]} & {*expanded[1][0], *expanded[1][1]}
    x = parties.inputs(agreed)
    pads, shifts = parties.inputs(agreed, 1)[0], parties.inputs(agreed, 2)[0]
    y = x | {
        0: tuple(v + shift for v, shift in zip(x[0], shifts, strict=True)),
        1: tuple(v - shift for v, shift in zip(x[1], shifts, strict=True)),
    }

    seen = []
    for given, pad in ((x, pads), (y, [p - s for p, s in zip(pads, shifts, strict=True)])):
        replayed(3)
        seen.append(transcript(agreed, given, drops, identities, pad, pair, monkeypatch))

    assert seen[0] == seen[1]
    assert seen[0][2][:2] == (0, 1)


def test_a_sum_with_one_honest_client_in_it_is_never_opened():
    agreed = terms(9, parties.SMALL, corrupt=0.4, dropped=0.4)  # Three of nine may collude.
    honest_lost: dict = dict.fromkeys(range(4), "mask")

    assert agreed.quorum >= 3 + 2
    with pytest.raises(QuorumError, match="nothing of it was opened"):
        together(agreed, parties.inputs(agreed), drops=honest_lost)
