"""Correlated noise: what is released has exactly its matrix's covariance, and hides integers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from folkmoot.codecs import banded_noise, clip, correlated, gaussian, tree_noise
from folkmoot.core import wire
from folkmoot.core.codec import Bounds, Layout, chain, public
from folkmoot.core.errors import SettingsError

RUNS = 20_000
SQRT_TOEPLITZ = [1.0, 0.5, 0.375, 0.3125, 0.2734375]
CODECS = {
    "tree": tree_noise(1.5, 6, simulation=True),
    "bands": banded_noise(1.5, SQRT_TOEPLITZ, simulation=True),
}


def ready(codec, size=RUNS):
    bounds = Bounds(l2=1.0, weight=1.0, clients=10, size=size, expected=10)
    return codec.init(bounds, Layout.of({"w": torch.zeros(size)}))


def released(codec, rounds, size=RUNS):
    """Noise of each round, in units of the largest norm: (rounds, size), each coordinate a run."""
    state, bounds = ready(codec, size)
    found = []
    for round in range(rounds):
        zero = codec.encode(public(state), torch.zeros(size), 0)
        noise, state = codec.decode(state, zero, round)
        found.append(noise.double().numpy() / bounds.l2)
    return np.stack(found)


def has_covariance(draws, expected, z):
    """Whether whitened draws of sums pass a chi-square test, in each direction and together."""
    white = np.linalg.solve(np.linalg.cholesky(expected) * z, draws)
    rounds, runs = white.shape
    total = stats.chi2(rounds * runs).sf((white**2).sum())
    products = white @ white.T / math.sqrt(runs)
    off = products[np.triu_indices(rounds, 1)]
    each = (np.diag(products) - math.sqrt(runs)) / math.sqrt(2)
    return 1e-6 < total < 1 - 1e-6 and abs(off).max() < 5.5 and abs(each).max() < 5.5


def tree_covariance(rounds, restart):
    """Nodes of a binary tree that the sums of two numbers of rounds have in common."""

    def nodes(t):
        found, begin = set(), 0
        # Whole trees first; of the last, a node for each binary digit, the largest first.
        sizes = [restart] * (t // restart) + [t % restart]
        for size in sizes:
            offset = begin
            for level in reversed(range(size.bit_length())):
                if size >> level & 1:
                    found.add((begin // restart, level, offset))
                    offset += 1 << level
            begin += size
        return found

    covers = [nodes(t) for t in range(1, rounds + 1)]
    return np.array([[len(a & b) for b in covers] for a in covers], dtype=float)


@pytest.mark.parametrize("restart", [1, 2, 6, 7, 8])
def test_sums_of_a_tree_share_noise_as_they_share_nodes(restart):
    z, rounds = 1.5, 13

    draws = released(tree_noise(z, restart, simulation=True), rounds)

    expected = tree_covariance(rounds, restart)
    assert expected[-1, -1] == sum(map(int.bit_count, [restart] * (13 // restart) + [13 % restart]))
    assert has_covariance(draws.cumsum(0), expected, z)


@pytest.mark.parametrize(
    "coefficients",
    [[1.0], [2.0], [1.0, 0.5], SQRT_TOEPLITZ, [0.8, 0.8, 0.1]],
    ids=str,
)
def test_sums_of_banded_noise_have_the_covariance_of_their_matrix(coefficients):
    z, rounds = 0.7, 12

    draws = released(banded_noise(z, coefficients, simulation=True), rounds)

    column = np.zeros(rounds)
    column[: len(coefficients)] = coefficients
    matrix = np.array([[column[i - j] if i >= j else 0 for j in range(rounds)] for i in range(12)])
    prefix = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(matrix)  # B of A = B C.
    assert has_covariance(draws.cumsum(0), prefix @ prefix.T, z)


@pytest.mark.parametrize(
    "codec",
    [
        gaussian(1.5, simulation=True),
        tree_noise(1.5, 1, simulation=True),
        banded_noise(1.5, [1.0], simulation=True),
    ],
    ids=["gaussian", "tree of one round", "one band"],
)
def test_noise_that_nothing_correlates_is_fresh_in_each_round(codec):
    assert has_covariance(released(codec, 3), np.eye(3), 1.5)


def streams(codec, given, noise, monkeypatch):
    """Release sums of integers with given noise."""
    state, _ = ready(codec, len(given[0]))
    drawn = iter(noise)
    monkeypatch.setattr(correlated, "integers", lambda size, sigma, words: next(drawn).clone())
    found = []
    for total in given:
        decoded, state = codec.decode(state, total, 0)
        found.append(decoded)
    return torch.stack(found)


def test_banded_releases_are_a_function_of_the_noisy_strategy_alone(monkeypatch):
    # Other sums, with noise that makes up for them in W = C S + Z, release the same bits.
    rounds, size, unit = 9, 500, 1 << 12
    codec = banded_noise(1.0, SQRT_TOEPLITZ, simulation=True)
    shares = [math.floor(c * unit) for c in SQRT_TOEPLITZ]
    draw = torch.Generator().manual_seed(0)
    sums = torch.randint(-(10**4), 10**4, (rounds, size), generator=draw)
    other = sums + torch.randint(-(10**3), 10**3, (rounds, size), generator=draw)
    noise = torch.randint(-(2**30), 2**30, (rounds, size), generator=draw)
    moved = noise.clone()
    for t in range(rounds):
        for back, share in enumerate(shares[: t + 1]):
            moved[t] += share * (sums[t - back] - other[t - back])

    first = streams(codec, sums, noise, monkeypatch)
    second = streams(codec, other, moved, monkeypatch)

    assert not torch.equal(sums, other)
    assert torch.equal(first, second)


def test_tree_releases_are_a_function_of_the_noisy_nodes_alone(monkeypatch):
    rounds, size = 8, 500
    codec = tree_noise(1.0, rounds, simulation=True)
    draw = torch.Generator().manual_seed(0)
    sums = torch.randint(-(10**4), 10**4, (rounds, size), generator=draw)
    other = sums + torch.randint(-(10**3), 10**3, (rounds, size), generator=draw)
    noise = torch.randint(-(2**18), 2**18, (rounds, size), generator=draw)
    # The node that round t completes holds as many rounds as the lowest binary digit 1 of t says.
    moved = noise.clone()
    for t in range(1, rounds + 1):
        moved[t - 1] += (sums - other)[t - (t & -t) : t].sum(0)

    first = streams(codec, sums, noise, monkeypatch)
    second = streams(codec, other, moved, monkeypatch)

    assert torch.equal(first, second)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_noise_of_the_past_is_kept_from_clients_and_survives_being_stored(codec):
    size = 400
    state, bounds = ready(codec, size)
    total = torch.zeros(size, dtype=torch.int32)
    for round in range(4):
        _, state = codec.decode(state, total, round)

    stored, _ = wire.from_bytes(wire.to_bytes(state))

    assert public(state).keys() == {"steps", "reach"}
    assert bounds.noise == 1.5
    assert torch.equal(codec.decode(stored, total, 9)[0], codec.decode(state, total, 9)[0])


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_decoding_leaves_the_state_that_it_is_given(codec):
    state, _ = ready(codec, 50)
    _, state = codec.decode(state, torch.zeros(50, dtype=torch.int32), 0)
    before, _ = wire.from_bytes(wire.to_bytes(state))

    codec.decode(state, torch.zeros(50, dtype=torch.int32), 1)

    assert wire.to_bytes(before) == wire.to_bytes(state)


@pytest.mark.parametrize("build", [tree_noise, banded_noise])
def test_two_runs_do_not_share_noise(build):
    codec = chain(clip(1.0), build(1.0, 4 if build is tree_noise else [1.0, 0.5]))
    state, _ = ready(codec, 10_000)
    total = torch.zeros(10_000, dtype=torch.int32)

    first, second = (codec.decode(state, total, 0)[0] for _ in range(2))

    assert (first == second).float().mean() < 0.01


@pytest.mark.parametrize("codec", [tree_noise(0.0, 4), banded_noise(0.0, [1.0, 0.5])])
def test_without_noise_sums_are_themselves(codec):
    state, _ = ready(codec, 3)
    vector = torch.tensor([0.5, -0.25, 0.125])

    for _ in range(5):
        decoded, state = codec.decode(state, codec.encode(state, vector.clone(), 0), 0)
        assert decoded.tolist() == pytest.approx(vector.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tree_noise(-1.0, 4), "noise_multiplier must be"),
        (lambda: tree_noise(1.0, 0), "restart must be a whole number of at least 1, but is 0"),
        (lambda: tree_noise(1.0, 2.5), "restart must be a whole number of at least 1"),
        (lambda: banded_noise(math.nan, [1.0]), "noise_multiplier must be"),
        (lambda: banded_noise(1.0, []), "must begin with a finite number above 0"),
        (lambda: banded_noise(1.0, [0.0, 0.0]), "must begin with a finite number above 0"),
        (lambda: banded_noise(1.0, [1.0, 1.5]), "number 1 is 1.5 after 1"),
        (lambda: banded_noise(1.0, [1.0, 0.5, -0.1]), "number 2 is -0.1 after 0.5"),
        (lambda: banded_noise(1.0, [1.0, math.nan]), "number 1 is nan"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(SettingsError, match=message):
        build()


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_sums_without_a_bound_are_refused(codec):
    with pytest.raises(SettingsError, match="Put a clip in front"):
        codec.init(Bounds(weight=1.0, size=2), Layout.of({"w": torch.zeros(2)}))
