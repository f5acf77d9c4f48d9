"""A discount makes vectors shorter by its weight, to the last bit never longer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from folkmoot.codecs import clip
from folkmoot.codecs.discount import discount
from folkmoot.core.codec import Bounds, Layout, chain

FLOATS = st.floats(-(2.0**126), 2.0**126, width=32)


def state_of(weight, bounds=None, size=3):
    bounds = bounds or Bounds(l2=1.0, clients=4, size=size)
    state, after = discount().init(bounds, Layout.of({"w": torch.zeros(size)}))
    assert after == bounds
    return {**state, "discount": torch.tensor(weight, dtype=torch.float64)}


def test_it_weighs_1_where_nobody_says_otherwise():
    vector = torch.tensor([0.1, -3.0, 1e-40])
    state, _ = discount().init(Bounds(size=3), Layout.of({"w": vector}))

    sent = discount().encode(state, vector.clone(), 0)

    assert torch.equal(sent, vector)


@pytest.mark.parametrize("weight", [0.5, 3**-0.5, 1 - 1e-12, 1e-6])
def test_a_vector_is_multiplied_by_the_weight(weight):
    vector = torch.tensor([0.1, -3.0, 1e4])

    sent = discount().encode(state_of(weight), vector.clone(), 0)

    assert sent.double().tolist() == pytest.approx((vector.double() * weight).tolist(), rel=3e-7)


@given(
    vector=arrays(np.float32, st.integers(1, 40), elements=FLOATS),
    weight=st.floats(1e-30, 1, exclude_max=True),
)
@settings(max_examples=300, deadline=None)
def test_no_coordinate_is_longer_than_its_weight_says(vector, weight):
    given_, state = torch.from_numpy(vector), state_of(weight, size=len(vector))

    sent = discount().encode(state, given_.clone(), 0)

    exact = np.abs(vector.astype(np.float64)) * weight
    # Below the least normal number rounding is coarser, but a coordinate still does not grow.
    normal = exact >= np.finfo(np.float32).tiny * 2
    found = sent.double().abs().numpy()
    assert (found[normal] <= exact[normal]).all()
    assert (found <= np.abs(vector.astype(np.float64))).all()
    assert (np.sign(sent.numpy()) * np.sign(vector) >= 0).all()


def test_a_clipped_vector_stays_in_the_unit_ball_whatever_its_weight():
    stages = chain(clip(1.0), discount())
    generator = torch.Generator().manual_seed(0)

    for size in (1, 3, 1000):
        state, bounds = stages.init(Bounds(size=size), Layout.of({"w": torch.zeros(size)}))
        assert bounds.l2 == 1
        for stale in range(0, 100, 7):
            weight = torch.tensor((1 + stale) ** -0.5, dtype=torch.float64)
            stale_state = {**state, "1": {"discount": weight}}
            vector = 1e3 * torch.randn(size, generator=generator)
            sent = stages.encode(stale_state, vector, 0)
            assert float(sent.double().norm()) <= float(weight) <= 1


def test_a_sum_is_decoded_as_it_is():
    total, state = torch.tensor([1.5, -2.0]), state_of(0.5, size=2)

    decoded, after = discount().decode(state, total, 0)

    assert torch.equal(decoded, total) and after == state
