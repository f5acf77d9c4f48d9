"""Clipping: the bound holds in float32, as it is added, and decoding undoes the scale."""

import math

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot.codecs import clip
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError


def vectors(count, size, scale, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=draw) * scale


def encoded(codec, vector):
    state, _ = codec.init(Bounds(), Layout.of({"w": vector}))
    return codec.encode(state, vector.clone(), 0)


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 0.3, 37.5])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e18])
def test_the_unit_ball_is_never_left_in_float32(scale, norm, size):
    codec = clip(norm)

    for vector in vectors(400 if size < 1_000 else 40, size, scale):
        sent = encoded(codec, vector)
        assert sent.dtype == torch.float32
        # The exact norm of the numbers that are sent, not of those that were meant.
        assert math.sqrt(math.fsum(number * number for number in sent.tolist())) <= 1.0


def test_the_bound_holds_where_rounding_is_worst():
    # In one dimension each norm is hit exactly; a scale without a guard rounds up half the time.
    for vector in vectors(400, 1, 1.0):
        assert abs(encoded(clip(abs(vector.item())), vector).item()) <= 1.0


@pytest.mark.parametrize(
    ("update", "norm", "expected"),
    [
        ([6.0, 8.0], 5.0, [3.0, 4.0]),
        ([3.0, 4.0], 5.0, [3.0, 4.0]),
        ([0.3, -0.4], 5.0, [0.3, -0.4]),
        ([0.0, 0.0], 5.0, [0.0, 0.0]),
        ([3.0, 4.0], 1.0, [0.6, 0.8]),
        ([-1e20, 0.0], 1.0, [-1.0, 0.0]),
    ],
)
def test_decoding_gives_the_clipped_update(update, norm, expected):
    codec, vector = clip(norm), tensor(update)
    state, _ = codec.init(Bounds(), Layout.of({"w": vector}))

    decoded, following = codec.decode(state, codec.encode(state, vector.clone(), 0), 0)

    assert decoded.tolist() == pytest.approx(expected, rel=1e-6)
    assert following == state
    assert vector.tolist() == tensor(update).tolist()


def test_a_clipped_sum_decodes_to_the_sum_of_the_clipped_updates():
    codec, given = clip(5.0), [tensor([6.0, 8.0]), tensor([1.0, 0.0]), tensor([0.0, -50.0])]
    state, _ = codec.init(Bounds(), Layout.of({"w": given[0]}))

    total, _ = codec.decode(
        state, sum(codec.encode(state, vector.clone(), 0) for vector in given), 0
    )

    assert total.tolist() == pytest.approx([3 + 1 + 0, 4 + 0 - 5], rel=1e-6)


def test_the_norm_is_over_all_leaves_together():
    update = fm.Update({"u": tensor([3.0]), "in": {"v": tensor([4.0])}})

    found = fm.aggregate(fm.aggregators.uniform_mean(clip(1.0)), [update])

    # Per leaf it were 1 and 1.
    assert found["u"].item() == pytest.approx(0.6, rel=1e-6)
    assert found["in"]["v"].item() == pytest.approx(0.8, rel=1e-6)


def test_integer_leaves_are_neither_clipped_nor_part_of_the_norm():
    update = fm.Update({"w": tensor([3.0, 4.0])}, counts={"n": tensor(12)})

    found = fm.aggregate(fm.aggregators.uniform_mean(clip(1.0)), [update])

    assert found["w"].tolist() == pytest.approx([0.6, 0.8], rel=1e-6)
    assert (found["n"].item(), found["n"].dtype) == (12, torch.int64)


def test_a_tied_weight_counts_once(local_update):
    model = nn.Sequential(nn.Embedding(1, 2), nn.Linear(2, 1, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.copy_(tensor([[1.0, 1.0]]))
    work = fm.local.sgd(fm.regressor(model), lr=1.0)

    # The output is w * w = 2, the target -1: the gradient is 2 * 3 * 2 w, both uses together.
    update = local_update(work, {"x": tensor([0]), "y": tensor([[-1.0]])})
    clipped = fm.aggregate(fm.aggregators.uniform_mean(clip(1.0)), [update])

    assert update.value["params"]["0.weight"].tolist() == [[-12.0, -12.0]]
    half = -math.sqrt(0.5)
    assert clipped["params"]["0.weight"].view(-1).tolist() == pytest.approx([half, half], rel=1e-6)


def test_what_stands_behind_a_clip_is_told_a_bound_of_one():
    seen = []
    probe = clip(2.0)._replace(init=lambda bounds, layout: (seen.append(bounds), ({}, bounds))[1])

    chain(clip(3.0), probe).init(Bounds(weight=1.0, clients=9, size=4), Layout.of({}))

    assert seen == [Bounds(l2=1.0, weight=1.0, clients=9, size=4)]
    assert clip(3.0).linear


@pytest.mark.parametrize("norm", [0, -1.0, math.nan, math.inf])
def test_a_norm_that_is_not_positive_and_finite_is_refused(norm):
    with pytest.raises(SettingsError, match="norm must be a finite number above 0"):
        clip(norm)


def test_fedavg_learns_through_a_clip_and_moves_no_further_than_its_norm(one_round, line, pull):
    work = fm.local.sgd(line(1.0), lr=1.0)
    clipped = fm.fedavg(work, aggregator=fm.aggregators.weighted_mean(clip(0.25)))

    snapshot, _ = one_round(clipped, {0: pull(8.0), 1: pull(-0.125)})

    # The deltas -8 and 0.125 become -0.25 and 0.125; their mean is -0.0625.
    assert snapshot.state["params"]["w"].item() == pytest.approx(1 - 0.0625, rel=1e-6)
