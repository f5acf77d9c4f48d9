"""Adaptive clipping: the paper's trace, the paper's split of noise, and the quantile from afar."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from folkmoot.codecs import adaptive_clip, gaussian
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text("utf-8")
)["adaptive_clipping"]
TRACE = VECTORS["trace"]


def ready(codec, clients, size=2):
    bounds = Bounds(weight=1.0, clients=clients, size=size, expected=clients)
    return codec.init(bounds, Layout.of({"w": torch.zeros(size)}))


def of_length(length, size=2):
    vector = torch.zeros(size)
    vector[-1] = length
    return vector


def rounds(codec, norms, count, key=0):
    """Send updates of given lengths for some rounds; yields the decoded sum and the next norm."""
    state, _ = ready(codec, len(norms))
    for at in range(count):
        total = sum(codec.encode(state, of_length(norm), 0) for norm in norms)
        decoded, state = codec.decode(state, total, key + at)
        yield decoded, state.get("0", state)["norm"].item()


def test_the_trace_without_noise_is_the_papers():
    codec = adaptive_clip(
        TRACE["C0"], quantile=TRACE["target_unclipped_quantile"], rate=TRACE["lr"]
    )

    found = [norm for _, norm in rounds(codec, TRACE["norms"], max(TRACE["rounds"]))]

    expected = dict(zip(TRACE["rounds"], TRACE["C_after"], strict=True))
    # The bits are summed in float32.
    assert {at: found[at - 1] for at in expected} == pytest.approx(expected, rel=1e-5)


def test_the_sum_is_unscaled_by_the_norm_that_clipped_it():
    codec = adaptive_clip(1.0)

    found = [decoded[-1].item() for decoded, _ in rounds(codec, [0.5, 4.0], 1)]

    assert found == pytest.approx([0.5 + 1.0], rel=1e-5)


@pytest.mark.parametrize("start", [0.01, 100.0])
@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_the_norm_finds_the_quantile_from_a_hundredth_and_a_hundred_times(start, quantile):
    norms = np.linspace(0.5, 1.5, 31).tolist()
    clip = adaptive_clip(start, quantile=quantile, rate=0.5)

    found = [norm for _, norm in rounds(chain(clip, gaussian(0.2, simulation=True)), norms, 120)]

    # Noise of 1 beside 31 bits moves the norm by one or two hundredths a round.
    assert np.mean(found[-20:]) == pytest.approx(0.5 + quantile, rel=0.1)


@pytest.mark.parametrize("row", VECTORS["value_noise_multiplier"]["rows"], ids=str)
def test_update_and_bit_share_one_noise_as_in_the_paper(row):
    z, sigma_b = row["z"], row["sigma_b"]
    share, clients = (z / (2 * sigma_b)) ** 2, 10
    codec = chain(adaptive_clip(1.0, share=share), gaussian(z, simulation=True))

    def noisy(size, key):
        """Ten empty updates, all of whose bits say 1/2."""
        state, bounds = ready(codec, clients, size)
        sent = codec.encode(state, torch.zeros(size), 0)
        decoded, following = codec.decode(state, sent * clients, key)
        # The norm turns the noise of the sum of bits into its own logarithm.
        bits = -math.log(following["0"]["norm"].item()) / 0.2 * clients
        return decoded.std().item() / bounds.l2, bits / bounds.l2

    bits = np.array([noisy(2, key)[1] for key in range(400)])

    assert noisy(100_000, 0)[0] == pytest.approx(row["z_delta"], rel=0.015)
    assert bits.std() == pytest.approx(sigma_b, rel=0.2)
    assert bits.mean() == pytest.approx(clients / 2, abs=5 * sigma_b / math.sqrt(400))


def test_the_bit_is_one_more_coordinate_within_the_unit_ball():
    codec = adaptive_clip(1.0, share=0.3)
    state, bounds = ready(codec, 3, 5)

    for length, bit in [(0.0, 1), (1.0, 1), (1.0001, -1), (1e30, -1), (math.inf, -1)]:
        sent = codec.encode(state, of_length(length, 5), 0)
        assert sent.shape == (6,)
        assert sent[-1].item() == pytest.approx(bit * math.sqrt(0.3), rel=1e-5)
        assert math.fsum(number * number for number in sent.tolist()) <= 1.0
    assert (bounds.l2, bounds.size) == (1.0, 6)


def test_the_fraction_is_of_the_clients_expected_not_of_those_that_came():
    codec = adaptive_clip(1.0, quantile=0.5, rate=1.0)
    state, _ = codec.init(Bounds(weight=1.0, clients=50, size=2, expected=10.0), Layout.of({}))

    # One client of ten expected says 1/2: a fraction of 0.55.
    _, following = codec.decode(state, codec.encode(state, torch.zeros(2), 0), 0)
    _, nobody = codec.decode(state, torch.zeros(3), 0)

    assert following["norm"].item() == pytest.approx(math.exp(-0.05), rel=1e-5)
    assert nobody["norm"].item() == 1.0


def test_a_norm_neither_vanishes_nor_overflows():
    codec = adaptive_clip(1.0, rate=10.0)

    small = [norm for _, norm in rounds(codec, [0.0], 30)][-1]
    large = [norm for _, norm in rounds(codec, [3e38], 30)][-1]

    assert (small, large) == pytest.approx((2.0**-64, 2.0**64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0.0}, "initial must be a finite number above 0"),
        ({"initial": math.nan}, "initial must be a finite number above 0"),
        ({"initial": 1e-38}, r"between 2\^-100 and 2\^100"),
        ({"rate": -0.2}, "rate must be a finite number above 0"),
        ({"quantile": 1.0}, "quantile must be above 0 and below 1, but is 1.0"),
        ({"quantile": math.nan}, "quantile must be above 0 and below 1"),
        ({"share": 0.0}, "share must be above 0 and below 1, but is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        adaptive_clip(**options)
