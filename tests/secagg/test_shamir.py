"""Shamir's shares: known answers, every subset of holders, and nothing from one share too few."""

import itertools
import json
import os
from pathlib import Path

import pytest

from folkmoot.secagg import shamir

FILE = Path(__file__).parents[1] / "vectors/secagg_primitives.json"
KNOWN = json.loads(FILE.read_text("utf-8"))["shamir_prime_2^256+297"]
COEFFICIENTS = [int(KNOWN["secret"], 16), *(int(c, 16) for c in KNOWN["coefficients_low_to_high"])]
SHARES = {int(point): int(share, 16) for point, share in KNOWN["shares"].items()}
LARGEST = b"\xff" * 32


def test_shares_are_the_known_values_of_the_polynomial():
    assert shamir.evaluate(COEFFICIENTS, list(SHARES)) == list(SHARES.values())


def test_weights_are_the_known_ones():
    assert shamir.weights([1, 3, 5]) == [int(w, 16) for w in KNOWN["lagrange_at_0_for_1_3_5"]]


@pytest.mark.parametrize("points", list(itertools.combinations(SHARES, 3)))
def test_any_three_shares_give_the_known_secret_back(points):
    secret = shamir.join([SHARES[point] for point in points], shamir.weights(points))

    assert secret == int(KNOWN["secret"], 16).to_bytes(32, "little")


@pytest.mark.parametrize("secret", [bytes(32), LARGEST, b"\1" + bytes(31)])
@pytest.mark.parametrize(("threshold", "holders"), [(1, 1), (2, 3), (5, 5), (33, 40), (67, 100)])
def test_as_many_shares_as_the_threshold_are_enough(secret, threshold, holders):
    points = list(range(1, 3 * holders, 3))[:holders]

    shares = shamir.split(secret, points, threshold)

    last = points[-threshold:]
    assert shamir.join(shares[-threshold:], shamir.weights(last)) == secret
    assert all(0 <= share < shamir.PRIME for share in shares)


def test_one_share_too_few_fits_every_secret():
    # For any guess there is a last share that makes it the secret, so the others exclude none.
    shares = shamir.split(b"a secret of thirty-two bytes ...", [1, 2, 3], 3)[:2]
    w = shamir.weights([1, 2, 3])
    for guess in (bytes(32), LARGEST):
        rest = int.from_bytes(guess, "little") - w[0] * shares[0] - w[1] * shares[1]
        last = rest * pow(w[2], -1, shamir.PRIME) % shamir.PRIME
        assert shamir.join([*shares, last], w) == guess


def test_the_same_secret_is_never_cut_the_same_way_twice():
    cuts = {tuple(shamir.split(bytes(32), [1, 2, 3], 2)) for _ in range(100)}

    assert len(cuts) == 100


def test_shares_of_no_secret_of_256_bits_are_noticed():
    # Points 1 and 2 of the line through 2^256 at 0: the one above all secrets.
    shares = shamir.evaluate([2**256, 5], [1, 2])

    assert shamir.join(shares, shamir.weights([1, 2])) is None


def test_right_shares_tell_what_every_other_has_to_be():
    shares = dict(enumerate(shamir.split(os.urandom(32), range(1, 8), 3), start=1))
    three = {point: shares[point] for point in (2, 5, 7)}

    assert {point: shamir.value_at(point, three) for point in shares} == shares
