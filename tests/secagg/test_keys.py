"""Every derived key, sealed share and signed text is of one round, one pair and one direction."""

import copy
import pickle

import pytest

from folkmoot.secagg import keys
from folkmoot.secagg.primitives import exchange_key, public

DIGEST, OTHER = b"d" * 32, b"e" * 32
A, B = exchange_key(), exchange_key()
ENDS = {3: public(A), 8: public(B)}


def test_both_ends_of_a_pair_derive_the_same():
    assert keys.pair_key(b"mask", DIGEST, A, ENDS, 8) == keys.pair_key(b"mask", DIGEST, B, ENDS, 3)


def test_a_pair_derives_something_else_for_any_other_purpose_round_or_place():
    places = {4: ENDS[3], 8: ENDS[8]}

    found = {
        keys.pair_key(b"mask", DIGEST, A, ENDS, 8),
        keys.pair_key(b"channel", DIGEST, A, ENDS, 8),
        keys.pair_key(b"mask", OTHER, A, ENDS, 8),
        keys.pair_key(b"mask", DIGEST, A, places, 8),
    }

    assert len(found) == 4


def test_sealed_shares_open_for_their_receiver_from_their_sender_in_their_round():
    key, shares = b"k" * 32, (2**256 + 5, 7)
    sealed = keys.seal_shares(key, DIGEST, 3, 8, shares)

    assert len(sealed) == keys.SEALED_BYTES
    assert keys.open_shares(key, DIGEST, 3, 8, sealed) == shares
    assert keys.open_shares(key, OTHER, 3, 8, sealed) is None
    assert keys.open_shares(key, DIGEST, 8, 3, sealed) is None
    assert keys.open_shares(key, DIGEST, 3, 9, sealed) is None
    assert keys.open_shares(b"l" * 32, DIGEST, 3, 8, sealed) is None


def test_two_directions_of_a_pair_never_share_a_nonce():
    key, shares = b"k" * 32, (1, 2)

    there = keys.seal_shares(key, DIGEST, 3, 8, shares)
    back = keys.seal_shares(key, DIGEST, 8, 3, shares)

    assert there[:66] != back[:66]


def test_a_commitment_and_an_own_mask_are_of_one_seed_client_and_round():
    for derived in (keys.commitment, keys.own_mask):
        found = {
            derived(DIGEST, 1, bytes(32)),
            derived(OTHER, 1, bytes(32)),
            derived(DIGEST, 2, bytes(32)),
            derived(DIGEST, 1, b"\1" + bytes(31)),
        }
        assert len(found) == 4


def test_what_is_signed_says_what_it_is():
    texts = {
        keys.advert_text(DIGEST, 0, b"a" * 32, b"b" * 32, b"c" * 32),
        keys.advert_text(DIGEST, 1, b"a" * 32, b"b" * 32, b"c" * 32),
        keys.advert_text(OTHER, 0, b"a" * 32, b"b" * 32, b"c" * 32),
        keys.survivors_text(DIGEST, b"a" * 32, b"s"),
        keys.survivors_text(OTHER, b"a" * 32, b"s"),
        keys.survivors_text(DIGEST, b"b" * 32, b"s"),
        keys.survivors_text(DIGEST, b"a" * 32, b"t"),
    }

    assert len(texts) == 7


def test_an_attempt_is_told_by_every_key_and_whose_it_is():
    advert = (b"a" * 32, b"b" * 32, b"c" * 32, b"signature")
    changed = [(*advert[:at], b"x" * 32, *advert[at + 1 :]) for at in range(3)]

    found = {
        keys.attempt(DIGEST, {0: advert, 1: advert}),
        keys.attempt(OTHER, {0: advert, 1: advert}),
        keys.attempt(DIGEST, {0: advert}),
        keys.attempt(DIGEST, {0: advert, 2: advert}),
        *(keys.attempt(DIGEST, {0: advert, 1: other}) for other in changed),
    }

    assert len(found) == 7
    assert keys.attempt(DIGEST, {1: advert, 0: advert}) in found


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secrets_are_not_copied(take):
    with pytest.raises(TypeError, match="holds the secrets of one round"):
        take(keys.Keys())


def test_secrets_are_not_shown():
    assert repr(keys.Keys()) == "<Keys, hidden>"
