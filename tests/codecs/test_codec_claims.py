"""Chains in any order: what cannot stand there is refused by name, and bounds know the sizes."""

import itertools

import pytest
import torch

from folkmoot import codecs
from folkmoot.core.codec import Bounds, chain
from folkmoot.core.errors import SettingsError

STAGES = {
    "bf16": codecs.bf16(),
    "fp16": codecs.fp16(),
    "natural": codecs.natural(),
    "quantize": codecs.quantize(8),
    "qsgd": codecs.qsgd(16),
    "sign": codecs.sign(),
    "eden": codecs.eden(2),
    "top_k": codecs.top_k(0.3),
    "random_k": codecs.random_k(0.5),
    "count_sketch": codecs.count_sketch(7, rows=3),
    "rotate": codecs.rotate(),
    "entropy_coded": codecs.entropy_coded(),
}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 50])
def test_any_two_stages_give_a_vector_back_or_are_refused(size):
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0))
    refused = []
    for names in itertools.product(STAGES, repeat=2):
        codec = chain(*(STAGES[name] for name in names))
        try:
            state, bounds = codec.init(Bounds(size=size), None)
            sent = codec.encode(state, vector.clone(), 5)
        except SettingsError:
            refused.append(names)
            continue

        arrived, _ = codec.decode(state, sent.clone(), 5)

        assert arrived.shape == vector.shape, names
        assert bounds.size == len(sent), names
    assert ("top_k", "quantize") not in refused
    assert ("quantize", "top_k") in refused


def test_numbers_cannot_be_taken_from_codes():
    with pytest.raises(SettingsError, match=r"top_k\(0.3\) packs numbers, but a stage in front"):
        chain(codecs.quantize(8), codecs.top_k(0.3)).init(Bounds(size=8), None)


def test_behind_a_sketch_that_is_packed_bounds_tell_the_sketch_s_size():
    codec = chain(codecs.count_sketch(7, rows=3), codecs.quantize(8))

    _, bounds = codec.init(Bounds(size=100), None)

    assert bounds.size == 21
