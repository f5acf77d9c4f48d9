"""Scores of canaries are log-likelihood ratios, also where noise hangs together over rounds."""

import math

import numpy as np
import pytest
import torch

from folkmoot import codecs
from folkmoot.audit.directions import directions
from folkmoot.audit.evidence import covariance_of, evidence
from folkmoot.audit.watched import Sighting
from folkmoot.core.codec import Bounds, Layout
from folkmoot.privacy.dp import Banded, Tree
from folkmoot.privacy.matrix import optimal_bands, participations, sensitivity


def sighting(pull, noise=2.0, drawn=True, exchange=0):
    pulls = np.atleast_1d(np.array(pull, dtype=float))
    return Sighting(exchange, noise, np.full(len(pulls), drawn), pulls)


def density(at, mean, noise):
    return math.exp(-((at - mean) ** 2) / (2 * noise**2))


def test_a_known_round_is_worth_the_ratio_of_two_normal_densities():
    [found] = evidence([sighting(0.7)], share=None, opposed=False)
    [against] = evidence([sighting(0.7)], share=None, opposed=True)

    assert found == pytest.approx(math.log(density(0.7, 1, 2) / density(0.7, 0, 2)))
    assert against == pytest.approx(math.log(density(0.7, 1, 2) / density(0.7, -1, 2)))


def test_a_round_that_did_not_draw_the_seat_is_worth_nothing():
    assert evidence([sighting(0.7, drawn=False)], share=None, opposed=False).tolist() == [0.0]


def test_a_secret_lot_makes_a_mixture_whoever_was_drawn():
    mixed = (0.9 * density(0.7, 0, 2) + 0.1 * density(0.7, 1, 2)) / density(0.7, 0, 2)
    turned = (0.9 * density(0.7, 0, 2) + 0.1 * density(0.7, -1, 2)) / density(0.7, 0, 2)

    for drawn in (True, False):
        [found] = evidence([sighting(0.7, drawn=drawn)], share=0.1, opposed=False)
        [against] = evidence([sighting(0.7, drawn=drawn)], share=0.1, opposed=True)
        assert found == pytest.approx(math.log(mixed))
        assert against == pytest.approx(math.log(mixed / turned))


def test_rounds_and_exchanges_add_up():
    seen = [sighting(0.7), sighting(0.1, noise=1.0, exchange=1), sighting(-1.0)]

    [found] = evidence(seen, share=None, opposed=False)

    parts = [evidence([one], share=None, opposed=False)[0] for one in seen]
    assert found == pytest.approx(sum(parts))


def test_without_noise_what_was_seen_is_the_score():
    found = evidence([sighting([1.0, 0.0, 2.0], noise=0.0)], share=None, opposed=False)

    assert found.argsort().tolist() == [1, 0, 2]


# Correlated noise


def measured_covariance(noise, rounds, size=20_000):
    """The covariance over rounds of what a codec adds to sums of nobody."""
    chain = torch.zeros(size)
    state, _ = noise.init(Bounds(l2=1.0, weight=1.0, size=size), Layout.of({"w": chain}))
    silent = noise.encode(state, chain, 0)
    seen = []
    for number in range(rounds):
        found, state = noise.decode(state, silent.clone(), number)
        seen.append(found.double().numpy())
    return np.cov(np.array(seen))


@pytest.mark.parametrize(
    ("mechanism", "noise"),
    [
        (Tree(restart=4), codecs.tree_noise(2.0, 4, simulation=True)),
        (Banded(bands=3), codecs.banded_noise(2.0, optimal_bands(6, 3), simulation=True)),
    ],
    ids=["tree", "banded"],
)
def test_the_covariance_is_that_of_what_is_released(mechanism, noise):
    expected = 4.0 * covariance_of(mechanism, 6)

    # 20,000 draws: five deviations of a covariance of two numbers of variance up to 12.
    assert measured_covariance(noise, 6) == pytest.approx(expected, abs=5 * 12 / 20_000**0.5)


def test_noise_that_is_drawn_anew_has_no_covariance():
    assert covariance_of(None, 5) is None


def shift(covariance, rounds_of_one):
    """How many deviations apart the best test sees one client's rounds."""
    drawn = np.zeros(len(covariance))
    drawn[list(rounds_of_one)] = 1.0
    return math.sqrt(drawn @ np.linalg.solve(covariance, drawn))


def test_no_round_of_a_tree_shows_more_than_its_height_allows():
    covariance = covariance_of(Tree(restart=8), 8)

    shifts = [shift(covariance, [round]) for round in range(8)]

    # A client of round 1 is in nodes of 1, 2, 4 and 8 rounds: height 4, and that is met.
    assert max(shifts) == pytest.approx(math.sqrt(4))
    assert shift(covariance_of(Tree(restart=8), 16), [0, 8]) == pytest.approx(math.sqrt(8))


def test_no_rounds_of_a_client_show_more_than_the_sensitivity_of_the_bands():
    rounds, bands = 9, 3
    covariance = covariance_of(Banded(bands=bands), rounds)
    stated = sensitivity(optimal_bands(rounds, bands), rounds, participations(rounds, bands), bands)

    shifts = [shift(covariance, range(first, rounds, bands)) for first in range(bands)]

    assert max(shifts) == pytest.approx(stated, rel=1e-6)


def test_correlated_rounds_are_scored_with_their_covariance():
    covariance = np.array([[1.0, -0.5], [-0.5, 1.25]])
    seen = [sighting([0.7, 0.2], noise=3.0), sighting([0.1, 0.4], noise=3.0)]
    seen[1].drawn[1] = False

    found = evidence(seen, share=None, opposed=False, covariance=covariance)

    for place, pulls, mean in ((0, [0.7, 0.1], [1, 1]), (1, [0.2, 0.4], [1, 0])):
        inverse = np.linalg.inv(9 * covariance)
        there, back = np.array(pulls) - mean, np.array(pulls)
        ratio = (back @ inverse @ back - there @ inverse @ there) / 2
        assert found[place] == pytest.approx(ratio)


# Directions


@pytest.mark.parametrize(("size", "canaries"), [(100, 7), (7, 7), (300, 300), (5, 9)])
def test_directions_are_orthonormal(size, canaries):
    found = directions(size, canaries, seed=3)
    every = torch.stack([found.of(canary) for canary in range(canaries)]).double()

    speaking = min(size, canaries)
    expected = torch.diag(torch.tensor([1.0] * speaking + [0.0] * (canaries - speaking)))
    assert torch.allclose(every @ every.T, expected.double(), atol=1e-6)
    assert [found.speaks(canary) for canary in range(canaries)] == [
        canary < size for canary in range(canaries)
    ]


def test_all_inner_products_are_found_at_once():
    found, vector = directions(50, 8, seed=0), torch.randn(50)

    every = torch.stack([found.of(canary) for canary in range(8)])

    assert found.along(vector) == pytest.approx((every @ vector).numpy(), abs=1e-5)


def test_each_seed_and_each_exchange_has_directions_of_its_own():
    found = [directions(500, 5, seed, exchange) for seed, exchange in ((0, 0), (1, 0), (0, 1))]

    signs = [np.sign(one.signed) for one in found]
    assert all(abs(np.mean(signs[a] * signs[b])) < 0.2 for a, b in ((0, 1), (0, 2), (1, 2)))
