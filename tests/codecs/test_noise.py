"""Gaussian noise in the sum: once, of the stated deviation, from nobody's seed."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

import folkmoot as fm
from folkmoot.aggregators import uniform_mean, weighted_mean
from folkmoot.codecs import adaptive_clip, clip, clip_by_layer, gaussian
from folkmoot.core import fold
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError

SIZE = 200_000
BOUNDS = Bounds(weight=1.0, clients=10, size=SIZE, expected=10)
ZEROS = torch.zeros(SIZE)


def ready(codec, bounds=BOUNDS):
    return codec.init(bounds, Layout.of({"w": torch.zeros(bounds.size)}))


def noise_of(codec, bounds=BOUNDS, key=0):
    """What decoding adds to a sum of nobody."""
    state, _ = ready(codec, bounds)
    total = codec.encode(state, torch.zeros(bounds.size), 0)
    return codec.decode(state, total, key)[0].double()


def is_deviation(found, expected):
    return abs(found.std().item() / expected - 1) < 5 / math.sqrt(2 * found.numel())


@pytest.mark.parametrize(("z", "norm"), [(1.0, 1.0), (0.5, 3.0), (20.0, 0.01)])
def test_the_deviation_is_the_multiplier_times_the_largest_norm(z, norm):
    codec = chain(clip(norm), gaussian(z))
    _, bounds = ready(codec)

    found = noise_of(codec)

    assert bounds.noise == z
    assert is_deviation(found, z * norm * bounds.l2)
    assert abs(found.mean()) < 5 * z * norm / math.sqrt(SIZE)
    exact = stats.norm(scale=z * norm * bounds.l2)
    assert stats.kstest(found[:50_000].numpy(), exact.cdf).pvalue > 1e-6


def test_noise_is_on_the_grid_and_so_is_the_sum():
    codec = chain(clip(1.0), gaussian(1.0))
    state, _ = ready(codec)
    steps = state["1"]["steps"].item()
    sent = codec.encode(state, torch.randn(SIZE, generator=torch.Generator().manual_seed(0)), 0)

    noisy = gaussian(1.0).decode(state["1"], sent, 0)[0].double() * steps

    assert sent.dtype == torch.int32
    assert torch.equal(noisy, noisy.round())


def test_noise_is_added_once_however_many_clients_answer():
    update = fm.Update({"w": torch.zeros(SIZE)})
    rule = uniform_mean(clip(2.0), gaussian(1.0), divisor=10.0)

    # A deviation of z C / n = 0.2; once for each client it were sqrt(10) times that.
    for count in (1, 10):
        found = fm.aggregate(rule, [update] * count)["w"]
        assert is_deviation(found, 0.2 * ready(chain(clip(2.0), gaussian(1.0)))[1].l2)


def test_a_sum_of_nobody_is_noise():
    rule = uniform_mean(clip(1.0), gaussian(1.0), divisor=10.0)
    state = rule.init(fm.Update({"w": torch.zeros(SIZE)}), 10)
    template = rule.encode(state, fm.Update({"w": torch.zeros(SIZE)}), 0)

    value, _, _ = rule.decode(state, fold.zero(template), 0)

    assert is_deviation(value["w"], 0.1 * state.bounds.l2)


def test_noise_is_drawn_anew_whatever_is_seeded_and_decoded_again():
    codec, found = chain(clip(1.0), gaussian(1.0)), []

    for _ in range(3):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        found.append(noise_of(codec, key=5))

    for left, right in ((0, 1), (0, 2), (1, 2)):
        # Two independent draws agree nowhere but by chance.
        assert (found[left] == found[right]).float().mean() < 0.01
        assert abs((found[left] * found[right]).mean()) < 5 / math.sqrt(SIZE)


def test_a_simulations_noise_follows_from_the_key_alone():
    codec = chain(clip(1.0), gaussian(1.0, simulation=True))

    assert torch.equal(noise_of(codec, key=1), noise_of(codec, key=1))
    assert not torch.equal(noise_of(codec, key=1), noise_of(codec, key=2))
    assert is_deviation(noise_of(codec, key=3), 1.0)


def test_a_simulated_larger_cohort_has_less_noise_and_says_so():
    codec = chain(clip(1.0), gaussian(2.0, scale=0.1))
    _, bounds = ready(codec)

    assert bounds.noise == pytest.approx(0.2)
    assert is_deviation(noise_of(codec), 0.2 * bounds.l2)


@pytest.mark.parametrize("before", [clip(1.0), adaptive_clip(1.0), clip_by_layer(1.0)])
def test_no_noise_is_legal_and_leaves_the_sum(before):
    rule = uniform_mean(before, gaussian(0.0), divisor=2.0)
    updates = [fm.Update({"w": torch.tensor([0.25, -0.5, 0.125])})] * 2

    found = fm.aggregate(rule, updates)["w"]

    assert found.tolist() == pytest.approx([0.25, -0.5, 0.125], abs=2e-6)


@pytest.mark.parametrize("clients", [3, 32_000, 33_000, 10**6])
def test_no_sum_wraps(clients):
    size = 10**5
    codec = gaussian(1.0)
    state, _ = ready(codec, Bounds(l2=1.0, weight=1.0, clients=clients, size=size))
    spike = torch.zeros(size)
    spike[0], spike[1] = 1.0, -1.0

    sent = codec.encode(state, spike.clone(), 0)
    total = sent * clients

    assert total[:2].tolist() == [clients * 2**16, -clients * 2**16]
    decoded, _ = codec.decode(state, total, 0)
    assert decoded[:2].tolist() == pytest.approx([clients, -clients], abs=8)


@pytest.mark.parametrize("z", [-1.0, math.nan, math.inf])
def test_a_multiplier_that_is_negative_or_no_number_is_refused(z):
    with pytest.raises(SettingsError, match="noise_multiplier must be a finite number of at least"):
        gaussian(z)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, math.nan])
def test_a_scale_outside_of_zero_and_one_is_refused(scale):
    with pytest.raises(SettingsError, match="scale"):
        gaussian(1.0, scale=scale)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (uniform_mean(gaussian(1.0)), r"Put a clip in front .*fm.chain\(fm.codecs.clip\(1.0\)"),
        (weighted_mean(clip(1.0), gaussian(1.0)), "uniform_mean"),
        (uniform_mean(clip(1.0), gaussian(1.0), gaussian(1.0)), "Put noise last"),
        (uniform_mean(clip(1.0), gaussian(1.0), clip(1.0)), "Put noise last"),
        (uniform_mean(clip(1.0), gaussian(1.0), adaptive_clip()), "Put noise last"),
        (uniform_mean(clip(1.0), gaussian(1.0), clip_by_layer(1.0)), "Put noise last"),
    ],
    ids=["no clip", "weighted", "twice", "clip behind", "adaptive behind", "layers behind"],
)
def test_a_chain_in_which_noise_hides_nobody_is_refused(rule, message):
    with pytest.raises(SettingsError, match=message):
        rule.init(fm.Update({"w": torch.zeros(2)}), 5)
