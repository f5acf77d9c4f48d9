"""No client moves a private sum by more than is stated, whatever it sends: in exact integers."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import folkmoot as fm
from folkmoot.aggregators import uniform_mean
from folkmoot.codecs import (
    adaptive_clip,
    banded_noise,
    clip,
    clip_by_layer,
    gaussian,
    local_gaussian,
    local_laplace,
    tree_noise,
)
from folkmoot.core import fold

CLIPS = {
    "clip": lambda norm: clip(norm),
    "adaptive": lambda norm: adaptive_clip(norm, share=0.2),
    "layers": lambda norm: clip_by_layer(norm),
    "patterns": lambda norm: clip_by_layer({"0.*": norm, "*": 3 * norm}),
}
NOISES = {
    "gaussian": gaussian(1.0),
    "little": gaussian(1e-4),
    "none": gaussian(0.0),
    "tree": tree_noise(1.0, 8),
    "bands": banded_noise(1.0, [1.0, 0.5]),
}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
KINDS = ("zero", "normal", "spike", "constant", "overflow", "nan")
exactly = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

shapes = st.lists(st.integers(0, 6), max_size=2).map(tuple)
models = st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), min_size=1, max_size=4).map(
    lambda rest: [((2,), torch.float32), *rest]  # For the pattern "0.*".
)
contents = st.tuples(
    st.sampled_from(KINDS), st.integers(0, 10**6), st.floats(-45, 38), st.floats(0, 10**6)
)
norms = st.floats(-6, 6).map(lambda power: 10**power)


def leaf(shape, dtype, content, at):
    """One leaf of an update, also such as no honest client would send."""
    kind, seed, power, _ = content
    draw = torch.Generator().manual_seed(seed + at)
    found = torch.zeros(shape, dtype=torch.float64)
    if kind == "normal":
        found = torch.randn(shape, generator=draw, dtype=torch.float64) * 10**power
    elif kind == "constant":
        found += 10**power
    elif kind == "spike" and found.numel():
        found.view(-1)[seed % found.numel()] = -(10**power)
    elif kind == "overflow":
        found += 1e300
    elif kind == "nan":
        found += math.nan if seed % 2 else math.inf
    return found.to(dtype)


def update(model, content):
    value = {
        "params": {
            f"{at}.weight": leaf(shape, dtype, content, at)
            for at, (shape, dtype) in enumerate(model)
        },
        "buffers": {},
    }
    counts = {"n": torch.tensor(int(content[3]))}
    return fm.Update(value, weight=content[3], counts=counts)


def total(rule, state, updates):
    encoded = [rule.encode(state, one, at) for at, one in enumerate(updates)]
    added = fold.zero(rule.encode(state, updates[0], 0))
    for one in encoded:
        added = fold.add(added, one)
    numbers = added.value["vector"]
    assert not numbers.dtype.is_floating_point
    return numbers.tolist()


def squared(left, right):
    """Exact squared distance."""
    return sum((a - b) ** 2 for a, b in zip(left, right, strict=True))


def reach_of(state):
    """The largest norm of one client's part, in steps, exactly as the noise reads it."""
    return Fraction(state.codec["1"]["reach"].item())


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("before", CLIPS.values(), ids=CLIPS)
@exactly
@given(model=models, cohort=st.lists(contents, min_size=1, max_size=4), other=contents, norm=norms)
def test_sums_of_neighbouring_cohorts_are_no_further_apart_than_stated(
    before, noise, model, cohort, other, norm
):
    rule = uniform_mean(before(norm), noise, divisor=3.0)
    updates = [update(model, content) for content in cohort]
    state = rule.init(updates[0], 10)

    whole = total(rule, state, updates)
    without = total(rule, state, updates[1:]) if updates[1:] else [0] * len(whole)
    replaced = total(rule, state, [update(model, other), *updates[1:]])

    reach = reach_of(state)
    assert squared(whole, without) <= reach**2  # Add or remove one.
    assert squared(whole, replaced) <= (2 * reach) ** 2  # Replace one.
    # What the noise is made for is what the bounds say.
    steps = state.codec["1"]["steps"].item()
    assert state.bounds.l2 * steps == pytest.approx(float(reach), rel=1e-12)
    assert state.bounds.l2 <= 1 + 2.0**-8


@exactly
@given(model=models, left=contents, right=contents, norm=norms)
def test_what_local_noise_hides_is_no_further_apart_than_stated(model, left, right, norm):
    pair = [update(model, left), update(model, right)]

    for codecs in ([clip(norm), local_gaussian(0.0)], [local_laplace(0.0, norm)]):
        rule = uniform_mean(*codecs)
        state = rule.init(pair[0], 10)
        first, second = (total(rule, state, [one]) for one in pair)
        reach = Fraction(state.codec[f"{len(codecs) - 1}"]["reach"].item())
        if len(codecs) == 2:
            assert squared(first, second) <= (2 * reach) ** 2
        else:
            assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) <= 2 * reach


@exactly
@given(model=models, content=contents, norm=norms)
def test_an_update_with_nothing_wrong_is_only_scaled(model, content, norm):
    one = update(model, content)
    rule = uniform_mean(clip(norm), gaussian(0.0))
    state = rule.init(one, 1)
    flat = state.layout.pack(one.value).double()
    if not torch.isfinite(flat).all():
        return

    found = torch.tensor(total(rule, state, [one])) / state.codec["1"]["steps"].item()

    expected = flat / max(flat.norm().item(), norm)
    assert (found - expected).abs().max().item() <= 2.0**-19
