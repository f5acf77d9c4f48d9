"""Quantizers: values on their grids, exact variances, the bits that they promise, few if coded."""

import math

import pytest
import torch

from folkmoot.codecs import entropy_coded, natural, qsgd, quantize, rotate, ternary, top_k
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import ClientError, SettingsError


def ready(codec, size, **known):
    return codec.init(Bounds(size=size, **known), Layout.of({"w": torch.zeros(size)}))


def drawn(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def key_of(client):
    return rng.derive(0, round=1, client=client, purpose="encode")


def bytes_of(message):
    return sum(leaf.numel() * leaf.element_size() for leaf in trees.leaves(message))


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 11, 16])
def test_each_number_goes_to_one_of_its_two_neighbours_on_the_grid(bits):
    vector = drawn(20_001)
    state, _ = ready(quantize(bits), len(vector))

    found = quantize(bits).encode(state, vector, key_of(1)).double()

    largest = vector.abs().max().double()
    step = 2 * largest / (2**bits - 1)
    place = (found + largest) / step
    assert (place - place.round()).abs().max() < 1e-2
    assert (found - vector).abs().max() < step * (1 + 1e-2)
    assert found.abs().max() <= largest * (1 + 1e-6)


@pytest.mark.parametrize("levels", [1, 16, 127, 128, 1000])
def test_levels_are_multiples_of_the_blocks_norm(levels):
    vector = drawn(1100)
    codec = qsgd(levels, block=500)
    state, _ = ready(codec, len(vector))

    found = codec.encode(state, vector, key_of(1)).double()

    for begin in (0, 500, 1000):
        part, given = found[begin : begin + 500], vector[begin : begin + 500]
        place = part / given.double().norm() * levels
        assert (place - place.round()).abs().max() < 1e-3
        assert (part * given >= 0).all()
    assert torch.equal(codec.encode(state, torch.zeros(1100), 1), torch.zeros(1100))


@pytest.mark.parametrize(
    ("codec", "half", "norm"),
    [(quantize(3), 3.5, math.inf), (qsgd(5, block=None), 5, 2), (ternary(), 1, math.inf)],
    ids=["quantize", "qsgd", "ternary"],
)
def test_the_variance_of_each_number_is_that_of_a_fair_lot(codec, half, norm):
    vector, count = drawn(12), 1200
    state, _ = ready(codec, 12)

    found = torch.stack([codec.encode(state, vector, key_of(at)) for at in range(count)]).double()

    # Up with the chance p of what is beyond the step below, by one step: p (1 - p).
    step = vector.double().norm(norm) / half
    chance = vector / step + half
    chance -= chance.floor()
    exact = chance * (1 - chance) * step**2
    assert (found.var(0) - exact).abs().max() < 6 * step**2 / math.sqrt(count) / 4


@pytest.mark.parametrize(
    ("codec", "bits"),
    [
        (quantize(8), 8),
        (quantize(3), 3),
        (quantize(4, block=512), 4 + 32 / 512),
        (qsgd(16), 6 + 32 / 512),
        (qsgd(7), 4 + 32 / 512),
        (ternary(), 2),
        (natural(), 9),
        (chain(rotate(), quantize(2)), 2),
        # A hundredth of the numbers in 8 bits each, and 2 + log2(100) for its place.
        (chain(top_k(0.01), quantize(8)), 0.01 * (8 + 2 + math.log2(100))),
    ],
    ids=lambda case: case.name if hasattr(case, "name") else f"{case:.4g}",
)
def test_a_vector_takes_the_bits_that_are_promised(codec, bits):
    size = 1 << 16
    state, _ = ready(codec, size)

    message = codec.pack(state, drawn(size), key_of(1))

    assert 8 * bytes_of(message) / size == pytest.approx(bits, rel=0.01, abs=0.002)


def test_entropy_coding_comes_near_the_entropy_and_loses_nothing():
    size = 1 << 17
    vector = drawn(size)
    for codec, most in ((ternary(), 0.87), (qsgd(16), 1.9), (quantize(4), 2.85)):
        coded = chain(codec, entropy_coded())
        state, plain = ready(coded, size)[0], ready(codec, size)[0]

        message = coded.pack(state, vector, 5)

        assert 8 * bytes_of(message) / size < most
        assert torch.equal(coded.unpack(state, message, 5), codec.encode(plain, vector, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int16, torch.int32])
def test_numbers_of_any_kind_are_read_back_from_their_code(dtype):
    vector, codec = (10 * drawn(500)).to(dtype), entropy_coded()
    state, _ = ready(codec, 500)

    found = codec.unpack(state, codec.pack(state, vector, 0), 0)

    assert found.dtype == dtype
    assert torch.equal(found, vector)


def test_what_cannot_be_coded_travels_as_it_is_and_what_is_no_code_is_refused():
    codec = entropy_coded()
    state, _ = ready(codec, 1000)
    vector = rng.generator(3).integers(256, size=4000, dtype="u1")
    vector = torch.from_numpy(vector).view(torch.float32).nan_to_num()

    message = codec.pack(state, vector, 0)
    assert message["vector"].numel() <= 4001
    assert torch.equal(codec.unpack(state, message, 0), vector)
    zeros = codec.pack(state, torch.zeros(1000), 0)["vector"]
    few, _ = ready(codec, 10)
    for wrong in (zeros[:-2], torch.zeros(0, dtype=torch.uint8), zeros.clone().fill_(255)):
        with pytest.raises(ClientError, match="entropy_coded"):
            codec.unpack(state, {"vector": wrong}, 0)
    # A short code of more numbers than were asked for is not unrolled.
    with pytest.raises(ClientError, match="waits for 40 bytes"):
        codec.unpack(few, {"vector": zeros}, 0)


def test_bounds_are_met_by_the_worst_vectors():
    spike = torch.eye(1, 64)[0]
    worst = {1: 0.0, 2: 0.0}
    for key in range(300):
        for bits in worst:
            state, bounds = ready(quantize(bits), 64, l2=1.0)
            found = quantize(bits).encode(state, spike, key_of(key))
            worst[bits] = max(worst[bits], found.norm().item() / bounds.l2)
    # One bit makes every number as large as the largest: the bound is reached.
    assert 0.99 < worst[1] <= 1
    assert 0.3 < worst[2] <= 1
    assert ready(qsgd(64, block=16), 64, l2=1.0)[1].l2 == pytest.approx(1 + 8 / 64, rel=1e-4)
    assert ready(natural(), 64, l2=1.0, largest=0.5)[1].largest == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda: quantize(0), "bits must be a whole number from 1 to 16, but is 0"),
        (lambda: quantize(17), "from 1 to 16, but is 17"),
        (lambda: quantize(True), "but is True"),
        (lambda: quantize(2.5), "but is 2.5"),
        (lambda: quantize(4, block=7), "block must be at least 8, but is 7"),
        (lambda: qsgd(0), "levels must be a whole number from 1 to 32767"),
        (lambda: ternary(block=-1), "block must be a whole number from 1 on"),
        (lambda: top_k(), "one of both"),
        (lambda: top_k(0.1, count=3), "one of both"),
        (lambda: top_k(1.5), "share must be above 0 and at most 1, but is 1.5"),
        (lambda: top_k(3), "A number to keep is count="),
    ],
)
def test_impossible_numbers_are_refused(build, found):
    with pytest.raises(SettingsError, match=found):
        build()
