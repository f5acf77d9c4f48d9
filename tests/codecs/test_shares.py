"""Noise in shares: what adds up has the stated law, whoever is missing, and nobody shares noise."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from folkmoot.codecs import clip, gaussian_shares, rotate, skellam_shares, to_field
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError

RARE = 1e-6  # Most noise here is the system's: a test fails by chance once in a million runs.
SIZE, CLIENTS, PROVIDERS = 40_000, 20, 14
Z, REACH = 0.8, 20.0
"""Shares of about 4.3 steps, and sums whose every value is likely."""


def bounds_of(l2=REACH, size=SIZE, clients=CLIENTS, largest=100.0, weight=1.0):
    return Bounds(l2=l2, weight=weight, clients=clients, size=size, largest=largest)


def ready(codec, bounds=None):
    bounds = bounds or bounds_of()
    return codec.init(bounds, Layout.of({"w": torch.zeros(bounds.size)}))


def key_of(client, round=1):
    return rng.derive(0, round=round, client=client, purpose="encode")


def zeros(dtype=torch.int32, size=SIZE):
    return torch.zeros(size, dtype=dtype)


def gaussian_masses(sigma, most):
    """The discrete Gaussian's probabilities of -most, ..., most."""
    reach = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    values = np.arange(-most, most + 1)
    return np.exp(-(values**2) / (2 * sigma**2)) / np.exp(-(reach**2) / (2 * sigma**2)).sum()


def skellam_masses(sigma, most):
    return special.ive(abs(np.arange(-most, most + 1)), sigma**2)


KINDS = {
    # What makes a sum of shares private as a continuous Gaussian: 4 steps^2 more.
    "gaussian": (gaussian_shares, gaussian_masses, 4.0),
    "skellam": (skellam_shares, skellam_masses, 0.0),
}
kinds = pytest.mark.parametrize(("build", "masses", "more"), KINDS.values(), ids=KINDS)


def chi_square(draws, masses, sigma):
    """The p-value of draws against a law, by values up to 4 sigma and what is beyond."""
    most = math.ceil(4 * sigma)
    expected = masses(sigma, most)
    beyond = (1 - expected.sum()) / 2
    expected[0] += beyond
    expected[-1] += beyond
    counts = np.bincount(np.clip(draws, -most, most) + most, minlength=2 * most + 1)
    return stats.chisquare(counts, len(draws) * expected / expected.sum()).pvalue


# The law of sums


@kinds
@pytest.mark.parametrize("dropped", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_the_noise_in_a_sum_passes_its_distribution_test_whoever_drops_out(
    build, masses, more, dropped, dtype
):
    codec = build(Z, providers=PROVIDERS)
    state, _ = ready(codec)
    left = round((1 - dropped) * CLIENTS)
    # Numbers of the whole field: every sum wraps around, and so do single shares.
    ends = torch.iinfo(dtype)
    draw = torch.Generator().manual_seed(0)
    given = torch.randint(ends.min, ends.max, (left, SIZE), generator=draw, dtype=dtype)

    sent = [codec.encode(state, one.clone(), key_of(at)) for at, one in enumerate(given)]

    noise = (torch.stack(sent).sum(0, dtype=dtype) - given.sum(0, dtype=dtype)).numpy()
    # Each brings 1 / providers of the variance that the sum needs.
    sigma = math.sqrt(((Z * REACH) ** 2 + more) * left / PROVIDERS)
    assert sent[0].dtype == dtype
    assert chi_square(noise.astype(np.int64), masses, sigma) > RARE
    assert abs(noise.std() / sigma - 1) < 5 / math.sqrt(2 * SIZE)
    # At the quorum it is what was asked for, and with more clients more.
    assert sigma >= Z * REACH


@kinds
def test_a_share_is_one_part_of_the_variance_that_a_sum_needs(build, masses, more):
    for z, reach, providers in ((1.0, 300.0, 7), (0.5, 50.0, 1.5), (8.0, 3.0, 1), (1.0, 1e4, 60)):
        codec = build(z, providers=providers)
        state, bounds = ready(codec, bounds_of(l2=reach))

        sent = codec.encode(state, zeros(), key_of(0)).double()

        sigma = math.sqrt(((z * reach) ** 2 + more) / providers)
        assert float(state["share"]) == pytest.approx(sigma, rel=1e-12)
        assert abs(sent.std() / sigma - 1) < 5 / math.sqrt(2 * SIZE)
        assert bounds == bounds_of(l2=reach)._replace(noise=z)


@kinds
def test_a_private_sum_is_the_sum_and_noise_of_the_stated_deviation(build, masses, more):
    z, clients, size = 0.7, 10, 10_000
    field = to_field(noise=z * math.sqrt(clients / 8))
    codec = chain(clip(2.0), rotate(), field, build(z, providers=8))
    state, bounds = ready(codec, Bounds(weight=1.0, clients=clients, size=size))
    draw = torch.Generator().manual_seed(1)
    given = torch.randn(clients, size, generator=draw)
    given *= 1.5 / given.norm(dim=1, keepdim=True)

    sent = [codec.encode(state, one.clone(), key_of(at)) for at, one in enumerate(given)]
    total, _ = codec.decode(state, sum(sent), 0)

    off = total.double() - given.double().sum(0)
    # A unit of the clip is 2; rounding adds less than a hundredth to the variance.
    steps = float(state["2"]["scale"])
    sigma = 2 * math.sqrt((z * bounds.l2) ** 2 + more) * math.sqrt(clients / 8) / steps
    assert state["2"]["zero"].dtype == torch.int16
    assert off.std() == pytest.approx(sigma, rel=0.01 + 5 / math.sqrt(2 * size))
    assert abs(off.mean()) < 5 * sigma / math.sqrt(size)
    assert stats.kstest(off.numpy() / off.std().item(), "norm").pvalue > RARE


# Whose noise


@kinds
def test_two_clients_and_two_rounds_never_share_noise(build, masses, more):
    codec = build(20.0, providers=PROVIDERS)
    state, _ = ready(codec)

    found = []
    for key in (key_of(0), key_of(1), key_of(0, round=2), key_of(0), key_of(0)):
        np.random.seed(0)
        torch.manual_seed(0)
        found.append(codec.encode(state, zeros(), key).double())

    sigma = float(state["share"])
    for at, one in enumerate(found):
        for other in found[:at]:
            # Independent: they agree by chance, and are not each other's mirror images.
            assert (one == other).float().mean() < 0.3 / sigma + 0.01
            assert abs((one * other).mean()) < 5 * sigma**2 / math.sqrt(SIZE)


@kinds
def test_a_simulations_noise_follows_from_the_key_alone(build, masses, more):
    codec = build(20.0, providers=PROVIDERS, simulation=True)
    state, _ = ready(codec)

    first, again, other, later = (
        codec.encode(state, zeros(), key)
        for key in (key_of(0), key_of(0), key_of(1), key_of(0, round=2))
    )

    sigma = float(state["share"])
    assert torch.equal(first, again)
    for different in (other, later):
        assert abs((first * different).double().mean()) < 5 * sigma**2 / math.sqrt(SIZE)
    assert abs(first.double().std() / sigma - 1) < 5 / math.sqrt(2 * SIZE)


# What goes through


@kinds
def test_without_noise_whole_numbers_pass_and_bounds_say_so(build, masses, more):
    codec = build(0.0, providers=5)
    state, bounds = ready(codec)

    assert torch.equal(codec.encode(state, zeros() + 7, 0), zeros() + 7)
    assert bounds.noise == 0
    total, following = codec.decode(state, zeros() + 7, 0)
    assert torch.equal(total, zeros() + 7)
    assert following is state


@kinds
@pytest.mark.parametrize(("dtype", "width"), [(torch.int16, 2), (torch.int32, 4)])
def test_a_noisy_number_takes_no_more_bytes(build, masses, more, dtype, width):
    codec = build(Z, providers=PROVIDERS)
    state, _ = ready(codec)
    sent = codec.encode(state, zeros(dtype), 0)

    assert codec.pack is None
    assert (sent.dtype, sent.numel() * sent.element_size()) == (dtype, width * SIZE)


# What is refused


@kinds
def test_shares_below_three_steps_are_refused_with_the_cure(build, masses, more):
    # (z l2)^2 + more is what 9 clients need for a share of 3 steps each.
    enough = math.sqrt(9 * 9 - more)

    ready(build(1.0, providers=9), bounds_of(l2=enough * 1.000001))
    with pytest.raises(SettingsError, match=r"among 9 clients gives each a share of 3 .*Take 32"):
        ready(build(1.0, providers=9), bounds_of(l2=enough * 0.999999))
    with pytest.raises(SettingsError, match=r"a share of 2.12 steps, but shares below 3"):
        ready(build(1.0, providers=18), bounds_of(l2=enough))


@kinds
def test_numbers_out_of_range_are_refused(build, masses, more):
    for z in (-1.0, math.nan, math.inf):
        with pytest.raises(SettingsError, match="noise_multiplier must be a finite number of at"):
            build(z, providers=5)
    for providers in (0, -3, math.nan):
        with pytest.raises(SettingsError, match="providers must be a finite number above 0"):
            build(1.0, providers=providers)
    with pytest.raises(SettingsError, match=r"providers must be at least 1, but is 0.5"):
        build(1.0, providers=0.5)


@kinds
@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (bounds_of(l2=math.inf), "nothing bounds that part. Put a clip in front"),
        (bounds_of(weight=3.0), "a client may count up to 3 times"),
        (bounds_of()._replace(noise=1.0), "Put noise last"),
    ],
    ids=["no clip", "weights", "twice"],
)
def test_noise_that_could_not_hide_one_client_is_refused(build, masses, more, bounds, message):
    with pytest.raises(SettingsError, match=message):
        ready(build(1.0, providers=5), bounds)


@kinds
def test_noise_without_room_in_the_field_is_refused_before_it_is_added(build, masses, more):
    codec = build(1.0, providers=CLIENTS)
    # 20 vectors of 1,000 steps, and 13 deviations of 1,000 steps: 33,000 of 32,767.
    tight, _ = ready(codec, bounds_of(l2=1000.0, largest=1000.0))
    roomy, _ = ready(codec, bounds_of(l2=1000.0, largest=900.0))

    with pytest.raises(SettingsError, match=r"may come to 33000 .* ends at 32767\. Tell to_field"):
        codec.encode(tight, zeros(torch.int16), 0)
    codec.encode(tight, zeros(torch.int32), 0)
    codec.encode(roomy, zeros(torch.int16), 0)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_vectors_of_no_field_are_refused(build, masses, more, dtype):
    codec = build(1.0, providers=CLIENTS)
    state, _ = ready(codec)

    with pytest.raises(SettingsError, match=r"Put to_field\(noise=\.\.\.\) in front of it"):
        codec.encode(state, zeros(dtype), 0)
