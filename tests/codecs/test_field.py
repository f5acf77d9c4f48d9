"""The field: unbiased whole numbers, and what is cut or refused to have them."""

import math

import numpy as np
import pytest
import torch

from folkmoot.codecs import clip, gaussian, gaussian_shares, to_field
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError


def ready(codec, size=4, clients=2, l2=1.0, **more):
    bounds = Bounds(l2=l2, weight=1.0, clients=clients, size=size, **more)
    return codec.init(bounds, Layout.of({"w": torch.zeros(size)}))


def key_of(client, round=1):
    return rng.derive(0, round=round, client=client, purpose="encode")


def most_of(bits):
    return 2 ** (bits - 1) - 1


def unit(values):
    return values / values.norm()


# Rounding


@pytest.mark.parametrize("bits", [16, 32])
def test_each_number_goes_to_one_of_its_two_neighbours(bits):
    codec = to_field(bits=bits)
    state, _ = ready(codec, size=5000)
    vector = unit(torch.randn(5000, generator=torch.Generator().manual_seed(1)))
    steps = vector.double().numpy() * float(state["scale"])

    for client in range(20):
        sent = codec.encode(state, vector.clone(), key_of(client))[:-1].double().numpy()
        assert np.isin(sent - np.floor(steps), [0, 1]).all()


def test_rounding_is_unbiased_and_has_the_variance_of_a_coin():
    codec, draws = to_field(bits=16), 4000
    state, _ = ready(codec, size=41)
    steps = torch.linspace(-20, 20, 41, dtype=torch.float64) * 1.0375
    vector = (steps / float(state["scale"])).float()
    steps = vector.double() * float(state["scale"])
    up = steps - steps.floor()

    sent = [codec.encode(state, vector.clone(), key_of(client))[:-1] for client in range(draws)]

    found = torch.stack(sent).double()
    coin = up * (1 - up)
    assert ((found.mean(0) - steps).abs() <= 5 * (coin / draws).sqrt() + 2.0**-31).all()
    # The variance of a mean of (x - p)^2 is that of a coin of p^2 and (1 - p)^2.
    allowed = 5 * (coin * (1 - 2 * up).square() / draws).sqrt() + 30 * coin / draws
    assert ((found.var(0) - coin).abs() <= allowed + 1e-9).all()


@pytest.mark.parametrize("bits", [16, 32])
def test_the_decoded_sum_is_the_sum_of_the_whole_numbers(bits):
    codec, clients = to_field(bits=bits), 9
    state, _ = ready(codec, size=300, clients=clients)
    draw = torch.Generator().manual_seed(2)
    given = [unit(torch.randn(300, generator=draw)) for _ in range(clients)]

    sent = [codec.encode(state, vector.clone(), key_of(at)) for at, vector in enumerate(given)]
    total, following = codec.decode(state, sum(sent), 0)

    exact = sum(one[:-1].double().numpy() for one in sent) / float(state["scale"])
    assert np.array_equal(total.numpy(), exact.astype(np.float32))
    mean = torch.stack(given).double().mean(0)
    # The mean is off by less than one quantum, before it is float32 again.
    assert np.abs(exact / clients - mean.numpy()).max() <= 1 / float(state["scale"])
    assert following["cut"].item() == 0


def test_what_is_drawn_follows_from_the_key_alone():
    codec = to_field(bits=16)
    state, _ = ready(codec, size=1000)
    vector = unit(torch.randn(1000, generator=torch.Generator().manual_seed(3)))

    first, again, other, later = (
        codec.encode(state, vector.clone(), key)
        for key in (key_of(1), key_of(1), key_of(2), key_of(1, round=2))
    )

    assert torch.equal(first, again)
    for different in (other, later):
        # Two coins with the chances p and 1 - p agree in 1 - 2 p (1 - p), which is 2/3 on average.
        assert 0.5 < (first == different).float().mean() < 0.8


def test_nothing_that_is_given_is_written_to():
    codec, vector = to_field(), torch.tensor([0.5, -0.25, 0.1, 0.0])
    state, _ = ready(codec)

    codec.encode(state, vector, 0)

    assert vector.tolist() == pytest.approx([0.5, -0.25, 0.1, 0.0])


# What a range cuts


@pytest.mark.parametrize(("bits", "dtype"), [(16, torch.int16), (32, torch.int32)])
def test_numbers_beyond_the_range_are_cut_and_counted(bits, dtype):
    codec = to_field(range=2.0, bits=bits)
    state, _ = ready(codec, l2=math.inf)
    given = [
        torch.tensor([2.5, -0.5, -math.inf, 2.0]),
        torch.tensor([math.nan, 1.0, math.inf, -1e30]),
    ]

    sent = [codec.encode(state, vector, key_of(at)) for at, vector in enumerate(given)]
    total, following = codec.decode(state, sum(sent), 0)

    assert {one.dtype for one in sent} == {dtype}
    # NaN counts as 0: nobody knows on which side of it the truth is.
    assert total.tolist() == pytest.approx([2.0, 0.5, 0.0, 0.0], abs=2 / float(state["scale"]))
    assert following["cut"].item() == 5
    assert state["cut"].item() == 0


@pytest.mark.parametrize(("bits", "clients"), [(16, 100), (16, 16_000), (32, 100)])
def test_a_count_of_what_was_cut_never_wraps_around(bits, clients):
    codec, size = to_field(range=1.0, bits=bits), 5000
    state, bounds = ready(codec, size=size, clients=clients)

    told = codec.encode(state, torch.full((size,), 3.0), 0)[-1].item()

    assert told == min(size, most_of(bits) // clients)
    assert told * clients <= most_of(bits)
    assert told <= bounds.largest


def test_the_bound_holds_with_the_count_of_what_was_cut():
    codec, size = to_field(range=1e-6), 5000
    state, bounds = ready(codec, size=size)

    sent = codec.encode(state, torch.full((size,), 1.0), 0)

    assert sent[-1].item() == size
    assert sent.double().norm() <= bounds.l2


def test_under_noise_nothing_is_counted():
    # A count would tell what noise is to hide, and moves a sum by more than its norm.
    codec = to_field(range=0.01, noise=1.0, bits=16)
    state, bounds = ready(codec, size=1000)

    sent = codec.encode(state, torch.ones(1000), 0)
    total, following = codec.decode(state, sent, 0)

    assert (len(sent), len(total), bounds.size) == (1000, 1000, 1000)
    assert following["cut"].item() == 0
    assert sent.double().norm() <= bounds.l2


def test_counting_is_left_out_on_request():
    codec = to_field(range=1.0, counted=False)
    state, bounds = ready(codec)

    sent = codec.encode(state, torch.tensor([5.0, 0.0, 0.0, 0.0]), 0)

    assert (len(sent), bounds.size) == (4, 4)


# What is refused


@pytest.mark.parametrize("bits", [0, 8, 15, 64, "16"])
def test_other_bits_are_refused(bits):
    with pytest.raises(SettingsError, match=f"bits must be 16 or 32.* but is {bits!r}"):
        to_field(bits=bits)


@pytest.mark.parametrize("range", [0, -1.0, math.nan, math.inf])
def test_a_range_that_is_none_is_refused(range):
    with pytest.raises(SettingsError, match="range must be a finite number above 0"):
        to_field(range=range)


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf])
def test_noise_that_is_none_is_refused(noise):
    with pytest.raises(SettingsError, match="noise must be a finite number of at least 0"):
        to_field(noise=noise)


@pytest.mark.parametrize(
    ("codec", "bounds", "message"),
    [
        (to_field(), Bounds(weight=1.0), "nothing bounds the vectors. Put a clip in front of it"),
        (to_field(noise=1.0, range=1.0), Bounds(weight=1.0), "nothing bounds the vectors"),
        (to_field(), Bounds(l2=1.0, weight=7.0), "one may count up to 7 times. Use a rule in"),
        (to_field(), Bounds(l2=1.0, weight=1.0, noise=0.5), "to_field stands behind a stage"),
        (chain(gaussian(1.0), to_field()), Bounds(l2=1.0, weight=1.0), "Put noise last"),
        (chain(clip(1.0), to_field()), Bounds(weight=math.inf), "count up to inf times"),
    ],
    ids=["no clip", "noise without a clip", "weights", "noise in front", "chained", "any weight"],
)
def test_vectors_of_which_too_little_is_known_are_refused(codec, bounds, message):
    with pytest.raises(SettingsError, match=message):
        codec.init(bounds._replace(size=3, clients=5), Layout.of({"w": torch.zeros(3)}))


@pytest.mark.parametrize(
    ("codec", "clients", "cure"),
    [
        (to_field(bits=16), 17_000, "Take bits=32"),
        (to_field(bits=16), 40_000, "Take bits=32"),
        (to_field(bits=16, noise=3000.0), 2, "Take bits=32"),
        (to_field(bits=32), 2**31, "Ask fewer clients"),
        (to_field(bits=32, noise=1e9), 2, "Ask fewer clients"),
    ],
)
def test_a_sum_that_could_wrap_around_is_refused_with_the_cure(codec, clients, cure):
    with pytest.raises(SettingsError, match=f"{clients} vectors .* could wrap around. {cure}"):
        ready(codec, clients=clients)


def test_a_field_that_was_not_told_of_noise_takes_none():
    codec = chain(to_field(bits=16), gaussian_shares(1.0, providers=2))
    state, _ = ready(codec)

    with pytest.raises(SettingsError, match=r"may come to .* field ends at 32767"):
        codec.encode(state, torch.zeros(4), 0)
