"""The field has room: no sum wraps around, also not with noise for rounded vectors."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.codecs import rotate, to_field
from folkmoot.codecs.field import FAR, reach_of
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError

VECTORS = Path(__file__).parents[1] / "vectors"
NORMS = json.loads((VECTORS / "dp_epsilon.json").read_text())["conditional_rounding_norm_bound"]
WIDTHS = json.loads((VECTORS / "secagg_primitives.json").read_text())["modulus_bits"]["cases"]
ends = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def ready(codec, size=4, clients=2, l2=1.0, **more):
    bounds = Bounds(l2=l2, weight=1.0, clients=clients, size=size, **more)
    return codec.init(bounds, Layout.of({"w": torch.zeros(size)}))


def key_of(client, round=1):
    return rng.derive(0, round=round, client=client, purpose="encode")


def most_of(bits):
    return 2 ** (bits - 1) - 1


def width(clients, most, weight=1):
    """ceil(log2(2 n W Q + 1)), in whole numbers."""
    return (2 * clients * weight * most).bit_length()


def unit(values):
    return values / values.norm()


def long_vectors(size):
    """Unit vectors: one number, all equal, most of them near half a step, and any."""
    draw = torch.Generator().manual_seed(size)
    spike = torch.zeros(size)
    spike[size // 2] = -1.0
    return [spike, torch.ones(size) / math.sqrt(size), unit(torch.randn(size, generator=draw))]


# Head-room


@ends
@given(
    bits=st.sampled_from([16, 32]),
    clients=st.integers(1, 10_000),
    size=st.integers(1, 200),
    power=st.floats(-30, 30),
    noise=st.one_of(st.just(0.0), st.floats(1e-3, 100)),
    share=st.one_of(st.none(), st.floats(-6, 0)),
    key=st.integers(0, 2**63),
)
def test_no_sum_of_the_worst_vectors_and_the_worst_noise_wraps_around(
    bits, clients, size, power, noise, share, key
):
    l2 = 10.0**power
    codec = to_field(bits=bits, noise=noise, range=None if share is None else l2 * 10**share)
    try:
        state, bounds = ready(codec, size=size, clients=clients, l2=l2)
    except SettingsError:
        return
    largest = min(float(state["range"]), 3e38)
    worst = torch.full((size,), -largest if key % 2 else largest)

    sent = codec.encode(state, worst, key)

    most = int(sent.long().abs().max())
    loud = FAR * math.sqrt((noise * bounds.l2) ** 2 + 4) if noise else 0.0
    assert sent.dtype == {16: torch.int16, 32: torch.int32}[bits]
    assert most <= bounds.largest
    assert clients * most + loud <= most_of(bits) + 1e-6 * loud
    assert width(clients, most) <= bits


@pytest.mark.parametrize(("bits", "clients"), [(16, 3), (16, 500), (32, 500)])
def test_a_sum_with_wrap_around_is_the_sum_of_whole_numbers(bits, clients):
    codec = to_field(bits=bits, range=0.5)
    state, _ = ready(codec, size=50, clients=clients)
    worst = torch.full((50,), 0.5)

    sent = [codec.encode(state, worst.clone(), key_of(client)) for client in range(clients)]

    wrapped = torch.stack(sent).sum(0, dtype=sent[0].dtype)
    assert torch.equal(wrapped.long(), torch.stack(sent).long().sum(0))


@pytest.mark.parametrize(("size", "clients"), [(10**6, 1000), (10**6, 100), (10**4, 3000)])
def test_room_is_left_for_noise_that_hides_rounded_vectors(size, clients):
    # With few steps rounding makes vectors many times longer, and so the noise.
    field = to_field(bits=16, noise=1.0)
    try:
        state, bounds = ready(field, size=size, clients=clients)
    except SettingsError as error:
        assert "do not fit into 16 bits" in str(error)
        return

    assert bounds.l2 > 1.5 * float(state["scale"])
    assert clients * bounds.largest + FAR * bounds.l2 <= most_of(16)


@pytest.mark.parametrize("case", WIDTHS, ids=lambda case: f"{case['n']}-{case['Q']}-{case['W']}")
def test_the_width_of_a_sum_is_that_of_the_reference_values(case):
    assert width(case["n"], case["Q"], case["W"]) == case["bits"]


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("clients", [1, 2, 100, 10_000])
def test_no_bit_of_the_field_is_left_unused(bits, clients):
    state, _ = ready(to_field(bits=bits, range=0.75), clients=clients)

    most = math.floor(0.75 * float(state["scale"])) + 1
    # 32 bits need no finer steps than 2^30 of the range.
    if clients > 1 or bits == 16:
        assert clients * (most + 1) > most_of(bits) - clients
    assert width(clients, most) <= bits


def test_clients_of_a_round_may_be_fewer_than_the_bounds_say():
    state, _ = ready(to_field(range=1.0, bits=16, clients=10), clients=1000)
    same, _ = ready(to_field(range=1.0, bits=16), clients=10)

    assert state["scale"] == same["scale"]


# Rounding under noise


@pytest.mark.parametrize("row", NORMS["rows"], ids=lambda row: f"{row['granularity']}")
def test_the_length_of_rounded_vectors_is_that_of_the_reference_values(row):
    step = row["granularity"]

    found = step * reach_of(row["clip"] / step, row["d"], math.log(1 / row["beta"]))

    assert found == pytest.approx(row["bound"], rel=1e-12)


def test_no_rounded_vector_is_longer_than_by_a_step_in_each_coordinate():
    assert reach_of(1.0, 100, log_chance=1e6) == 1.0 + 10.0
    assert reach_of(5.0, 0) == 5.0


@pytest.mark.parametrize("log_chance", [0.5, 2.0])
@pytest.mark.parametrize("begin", [0.01, 0.25, 0.5, 7.5])
def test_rounded_vectors_are_seldom_longer_than_stated(begin, log_chance):
    draws, size = 20_000, 50
    generator = np.random.default_rng(0)
    vector = np.linspace(begin, begin + 0.2, size)

    lengths = np.linalg.norm(np.floor(vector + generator.random((draws, size))), axis=1)

    often = (lengths > reach_of(np.linalg.norm(vector), size, log_chance)).mean()
    assert often <= math.exp(-log_chance) + 3 / math.sqrt(draws)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("size", [1, 2, 1000, 100_000])
def test_under_noise_no_rounded_vector_is_longer_than_stated(bits, size):
    codec = to_field(bits=bits, noise=2.0)
    state, bounds = ready(codec, size=size, clients=50)

    # Longer vectors than there may be are brought to the bound, as are bad numbers.
    honest = long_vectors(size)
    lies = [50 * vector for vector in honest] + [torch.full((size,), math.nan)]
    for at, vector in enumerate([*honest, *lies]):
        for client in range(3):
            sent = codec.encode(state, vector.clone(), key_of(client, at)).long()
            assert int((sent * sent).sum()) <= bounds.l2**2


def test_honest_vectors_are_drawn_again_and_not_shortened():
    # Half a step in each coordinate: the longest that rounding can make of a short vector.
    codec, size = to_field(bits=16, noise=0.5), 4096
    state, bounds = ready(codec, size=size, clients=1000)
    vector = torch.full((size,), 1 / math.sqrt(size))
    steps = vector.double() * float(state["scale"])

    sent = torch.stack([codec.encode(state, vector.clone(), key_of(at)) for at in range(200)])

    off = sent.double() - steps.floor()
    assert ((off == 0) | (off == 1)).all()
    up = float(steps[0] - steps[0].floor())
    # Leaving out the longest draws lowers the mean by less than a deviation of the whole sum.
    allowed = math.sqrt(up * (1 - up)) * (5 / math.sqrt(sent.numel()) + 1 / math.sqrt(size))
    assert abs(off.mean() - up) <= allowed
    assert bounds.l2 <= reach_of(float(state["scale"]), size)


# Bits


def test_without_noise_32_bits_are_taken():
    for clients in (1, 10_000):
        state, _ = ready(to_field(), clients=clients)
        assert state["zero"].dtype == torch.int32


@pytest.mark.parametrize("size", [100, 2**17, 2**24])
@pytest.mark.parametrize("clients", [3, 100, 1000, 20_000])
@pytest.mark.parametrize("noise", [0.01, 0.5, 1.0, 4.0, 50.0])
def test_16_bits_are_taken_where_rounding_costs_next_to_nothing(size, clients, noise):
    largest = 8 / math.sqrt(size)

    chosen, _ = ready(to_field(noise=noise), size=size, clients=clients, largest=largest)

    try:
        short, _ = ready(to_field(noise=noise, bits=16), size, clients, largest=largest)
    except SettingsError:
        enough = False
    else:
        length = float(short["scale"])
        # A coin's variance is at most 1/4.
        hidden = clients / 4 <= 0.01 * (noise * length) ** 2
        enough = hidden and float(short["reach"]) <= 1.04 * length
    assert chosen["zero"].dtype == (torch.int16 if enough else torch.int32)


def test_16_bits_are_enough_for_a_hundred_clients_behind_a_rotation():
    state, bounds = ready(chain(rotate(), to_field(noise=1.0)), size=2**17, clients=100)

    assert state["1"]["zero"].dtype == torch.int16
    assert bounds.l2 <= 1.04 * (1 + 2.0**-12) * float(state["1"]["scale"])


@pytest.mark.parametrize(("bits", "bytes_each"), [(16, 2), (32, 4)])
def test_a_number_takes_as_many_bytes_as_it_is_said_to(bits, bytes_each):
    for noise, more in ((1.0, 0), (0.0, 1)):
        codec, size = to_field(bits=bits, noise=noise), 10_000
        state, _ = ready(codec, size=size)
        sent = codec.encode(state, unit(torch.ones(size)), 0)

        assert codec.pack is None
        assert sent.numel() * sent.element_size() == bytes_each * (size + more)
