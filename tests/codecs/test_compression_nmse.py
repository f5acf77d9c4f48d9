"""Errors of lossy codecs, beside those that an independent program has measured, and exact ones."""

import functools
import json
import math
from pathlib import Path

import pytest
import torch

from folkmoot import codecs
from folkmoot.codecs.eden import POINTS
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout, chain

FILE = Path(__file__).parents[1] / "vectors" / "compression_nmse.json"
KNOWN = json.loads(FILE.read_text(encoding="utf-8"))
SIZE, TIMES = KNOWN["meta"]["d"], 3


def rotated(bits):
    return chain(codecs.rotate(), codecs.quantize(bits))


LEVELS = round(math.sqrt(SIZE))
CODECS = {
    **{f"eden_unbiased_{bits}bit": codecs.eden(bits) for bits in POINTS},
    "drive_biased_min_mse_1bit": codecs.drive(unbiased=False),
    "sign_l1scale_1bit (scaled sign, biased)": codecs.sign(),
    **{f"qsgd_s{s}_whole_vector": codecs.qsgd(s, block=None) for s in (1, 4, 16, 256)},
    **{f"qsgd_s{s}_bucket512": codecs.qsgd(s, block=512) for s in (4, 16)},
    "qsgd_s=sqrt(d)": codecs.qsgd(LEVELS, block=None),
    "terngrad": codecs.ternary(),
    **{f"topk_{share:g}": codecs.top_k(share) for share in (0.001, 0.01, 0.1)},
    **{f"randk_unbiased_{share:g}": codecs.random_k(share) for share in (0.001, 0.01, 0.1)},
    "natural_compression": codecs.natural(),
    **{f"uniform_sr_{bits}bit_maxnorm": codecs.quantize(bits) for bits in (1, 2, 4, 8)},
    **{f"hadamard+uniform_sr_{bits}bit": rotated(bits) for bits in (1, 2, 4, 8)},
    "countsketch_5x(d/50)_median": codecs.count_sketch(SIZE // 50, rows=5),
}


def t3(draw):
    """Student's law with 3 degrees of freedom: a Gaussian over the root of a mean of 3 squares."""
    squares = torch.randn(3, SIZE, generator=draw).square().mean(0)
    return torch.randn(SIZE, generator=draw) / squares.sqrt()


def sparse(draw):
    """Gaussian numbers at exactly a hundredth of the places."""
    found, places = torch.zeros(SIZE), torch.randperm(SIZE, generator=draw)[: SIZE // 100]
    found[places] = torch.randn(len(places), generator=draw)
    return found


LAWS = {
    "gaussian": lambda draw: torch.randn(SIZE, generator=draw),
    "lognormal": lambda draw: (
        torch.randn(SIZE, generator=draw).exp() * torch.randn(SIZE, generator=draw).sign()
    ),
    "heavy(t3)": t3,
    "sparse1pct": sparse,
}


@functools.cache
def drawn(law):
    draw = torch.Generator().manual_seed(7)
    return [LAWS[law](draw) for _ in range(TIMES)]


def nmse(codec, vector, key):
    state, _ = codec.init(Bounds(size=len(vector)), Layout.of({"w": vector}))
    found, _ = codec.decode(state, codec.encode(state, vector.clone(), key), key)
    return ((found.double() - vector).square().sum() / vector.double().square().sum()).item()


def mean_nmse(codec, vectors):
    keys = [rng.derive(0, round=1, client=at, purpose="encode") for at in range(len(vectors))]
    return sum(map(nmse, [codec] * len(vectors), vectors, keys)) / len(vectors)


def test_every_setting_that_was_measured_is_compared():
    for law in LAWS:
        assert set(KNOWN["measured"][law]) == set(CODECS)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", CODECS)
def test_the_error_is_that_of_the_independent_program(name, law):
    known = KNOWN["measured"][law][name]

    found = mean_nmse(CODECS[name], drawn(law))

    tolerance = max(0.01 * known["mean_nmse"], 4 * known["std"])
    assert found == pytest.approx(known["mean_nmse"], abs=tolerance)


@pytest.mark.parametrize("bits", POINTS)
def test_the_points_are_those_of_lloyd_and_max(bits):
    table = KNOWN["exact"]["lloyd_max"][str(bits)]

    points = [-point for point in reversed(POINTS[bits])] + list(POINTS[bits])

    assert points == pytest.approx(table["centroids"], abs=1e-12)


@pytest.mark.parametrize("bits", POINTS)
@pytest.mark.parametrize("size", [100_000, 2**17 - 1, 3 * 2**15])
def test_edens_error_is_exact_at_sizes_that_are_no_power_of_two(bits, size):
    distortion = KNOWN["exact"]["lloyd_max"][str(bits)]["distortion"]
    draw = torch.Generator().manual_seed(size)
    vectors = [torch.randn(size, generator=draw) ** 3 for _ in range(8)]
    # Layers differ: what one transform does not reach stays unlike the rest.
    for vector in vectors:
        vector[: size // 3] *= 10

    unbiased = mean_nmse(codecs.eden(bits), vectors)
    shortest = mean_nmse(codecs.eden(bits, unbiased=False), vectors)

    assert unbiased == pytest.approx(1 / (1 - distortion) - 1, rel=0.01)
    assert shortest == pytest.approx(distortion, rel=0.01)


def test_means_of_unbiased_codes_are_better_by_the_number_of_clients():
    vector = drawn("gaussian")[0]
    found = []
    for codec in (codecs.drive(), codecs.drive(unbiased=False)):
        state, _ = codec.init(Bounds(size=SIZE), Layout.of({"w": vector}))
        keys = [rng.derive(1, client=at, purpose="encode") for at in range(50)]
        mean = sum(codec.encode(state, vector, key) for key in keys) / len(keys)
        found.append(((mean - vector).square().sum() / vector.square().sum()).item())

    known = KNOWN["eden_unbiasedness"]
    assert found[0] == pytest.approx(known["unbiased_mean_of_50"], rel=0.02)
    assert found[1] == pytest.approx(known["biased_mean_of_50"], rel=0.02)
