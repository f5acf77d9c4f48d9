"""Halves and signs: rounded to the nearest, with the scales that they say."""

import torch

from folkmoot.codecs import bf16, fp16, sign
from folkmoot.core.codec import Bounds, Layout


def ready(codec, size, **known):
    return codec.init(Bounds(size=size, **known), Layout.of({"w": torch.zeros(size)}))


def drawn(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_halves_are_rounded_to_the_nearest():
    vector = torch.cat([drawn(1000), torch.tensor([70_000.0, -65_505.0, 1e-9, 0.0])])
    for codec, share, tiny in ((bf16(), 2.0**-8, 0.0), (fp16(), 2.0**-11, 2.0**-39)):
        state, _ = ready(codec, len(vector))

        found = codec.encode(state, vector, 0)

        allowed = share * vector.abs() + tiny * vector.abs().max()
        assert ((found - vector).abs() <= allowed).all()
    # The scale is a power of two, so what half precision holds arrives as it is.
    exact = torch.tensor([1.0, 0.5, -3.25, 2048.0])
    assert torch.equal(fp16().encode(ready(fp16(), 4)[0], exact, 0), exact)


def test_signs_arrive_with_the_mean_absolute_value():
    vector = torch.tensor([1.0, -2.0, 0.0, 3.0])

    found = sign().encode(ready(sign(), 4)[0], vector, 0)

    assert found.tolist() == [1.5, -1.5, 1.5, 1.5]
