"""Rules as sums of whole numbers: the mean within a step, weights exact, and nothing else told."""

import math

import pytest
import torch

import folkmoot as fm
from folkmoot.core import fold
from folkmoot.core.aggregator import Update
from folkmoot.core.errors import QuorumError

FIELD = fm.chain(fm.codecs.rotate(), fm.codecs.to_field())
CAP = 1000


def update(values, weight=1.0):
    return Update({"w": torch.tensor(values)}, weight, {"n": torch.tensor(3)})


def summed(rule, updates, state=None, clients=None):
    """Add what clients send, and decode it; integers wrap around, as the protocol's do."""
    state = state or rule.init(updates[0], clients or len(updates))
    total = fold.zero(rule.encode(state, updates[0], 0))
    for key, one in enumerate(updates):
        total = fold.add(total, rule.encode(state, one, key))
    return rule.decode(state, total, 0)


def fielded(rule, norm=8.0, cap=CAP, field=FIELD):
    """A rule whose clip begins at a norm: 2^16 public lengths, or 2^5 under weights."""
    weighed = rule.name == "weighted_mean"
    return rule.fielded(field, cap, norm / 2.0 ** (5 if weighed else 16))


def a_step(state, norm):
    """Return one step of the field, in units of the updates."""
    *_, inner = state.codec["field"].values()
    return norm / float(inner["scale"])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (fm.aggregators.weighted_mean(), [(1 * 2 + 30 * -1) / 31, (1 * 0.5 + 30 * 3) / 31]),
        (fm.aggregators.uniform_mean(), [0.5, 1.75]),
        (fm.aggregators.uniform_mean(divisor=4), [0.25, 0.875]),
        (fm.aggregators.total(), [1.0, 3.5]),
    ],
    ids=["weighted", "uniform", "expected", "total"],
)
def test_a_rule_gives_what_it_gives_in_floats_within_a_step_for_each_client(rule, expected):
    secure = fielded(rule)
    given = [update([2.0, 0.5], 1.0), update([-1.0, 3.0], 30.0)]

    value, counts, following = summed(secure, given)

    step = a_step(secure.init(given[0], 2), 8.0)
    # A weight is a share of the largest one, and so is what it weighs.
    rounding = 2 * step * (CAP / 31 if "weighted" in secure.name else 1.0)
    assert (value["w"] - torch.tensor(expected)).abs().max() <= rounding + 1e-6
    # Integer leaves stay at home.
    assert counts == {"n": torch.tensor(3)}
    assert {name: int(n) for name, n in following.codec["told"].items()} == {
        "clipped": 0,
        "capped": 0,
        "faint": 0,
        "cut": 0,
    }


def test_nothing_but_whole_numbers_leaves_a_client():
    secure = fielded(fm.aggregators.weighted_mean())
    sent = secure.encode(secure.init(update([2.0, 0.5]), 3), update([2.0, 0.5], 7.0), 1)

    assert {name: leaf.dtype for name, leaf in sent.value.items()} == {
        "vector": torch.int32,
        "told": torch.int32,
    }
    # The weight that the engine adds is the same for all.
    assert (sent.weight, sent.counts) == (1.0, {})


def test_weights_beyond_the_cap_count_as_the_cap_and_are_told():
    given = [update([1.0], 3000.0), update([4.0], 1000.0), update([4.0], 1001.0)]

    value, _, following = summed(fielded(fm.aggregators.weighted_mean()), given)

    assert value["w"].item() == pytest.approx(3.0, abs=1e-5)
    assert int(following.codec["told"]["capped"]) == 2


def test_weights_need_not_be_whole_where_there_is_room_for_parts():
    given = [update([1.0], 0.25), update([5.0], 0.75)]

    value, _, _ = summed(fielded(fm.aggregators.weighted_mean()), given)
    assert value["w"].item() == pytest.approx(4.0, abs=1e-3)


@pytest.mark.parametrize(("weight", "faint"), [(0.5, 0), (0.3, 2), (2.0**-22, 2), (0.0, 0)])
def test_weights_too_small_for_their_cap_are_told(weight, faint):
    # 65,536 clients leave steps of 1: parts of a weight are rounded away.
    rule = fielded(fm.aggregators.weighted_mean(), cap=1 << 15)
    given = [update([1.0], weight), update([5.0], weight), update([3.0], 8.0)]

    _, _, following = summed(rule, given, clients=65_535)

    assert int(following.codec["told"]["faint"]) == faint


def test_a_client_that_weighs_nothing_adds_nothing_but_itself():
    given = [update([1.0], 0.0), update([5.0], 2.0)]

    value, _, _ = summed(fielded(fm.aggregators.weighted_mean()), given)

    assert value["w"].item() == pytest.approx(5.0, abs=1e-4)
    with pytest.raises(QuorumError, match="weights are 0"):
        summed(fielded(fm.aggregators.weighted_mean()), given[:1])


def test_updates_beyond_the_norm_are_clipped_and_told_and_the_norm_grows():
    # Of 4 clients 1 is too long: the log of the norm grows by 0.2 (1 / 4 - 0.01).
    given = [update([6.0]), update([-32.0]), update([1.0]), update([8.0])]

    value, _, following = summed(fielded(fm.aggregators.uniform_mean()), given)

    assert value["w"].item() == pytest.approx((6 - 8 + 1 + 8) / 4, abs=1e-5)
    assert int(following.codec["told"]["clipped"]) == 1
    assert float(following.codec["norm"]) == pytest.approx(8 * math.exp(0.2 * (0.25 - 0.01)))


def test_a_norm_below_most_updates_is_left_behind_in_a_few_rounds():
    rule, state = fielded(fm.aggregators.uniform_mean()), None
    norms = []
    for _ in range(6):
        value, _, state = summed(rule, [update([3000.0]), update([-4000.0]), update([2.0])], state)
        norms.append(float(state.codec["norm"]))

    # 8, 128, 2048 are below two of three; 32,768 is more than eight times the longest.
    assert norms == pytest.approx([128, 2048, 32768, 8192, 8192 * math.exp(-0.002), norms[-1]])
    assert value["w"].item() == pytest.approx(-998 / 3, rel=1e-5)


def test_the_norm_comes_down_to_the_updates_and_stays_above_them():
    rule = fielded(fm.aggregators.uniform_mean(), norm=1e6)
    draw = torch.Generator().manual_seed(0)
    state = None
    for _ in range(40):
        given = [update((torch.randn(3, generator=draw) / 3).tolist()) for _ in range(100)]
        _, _, state = summed(rule, given, state)

    norm, longest = float(state.codec["norm"]), max(u.value["w"].norm() for u in given)
    assert longest / 2 < norm < 8 * longest


def test_a_stage_that_bounds_updates_takes_the_place_of_the_clip():
    rule = fielded(fm.aggregators.uniform_mean(fm.codecs.clip(2.0)), norm=8.0)

    value, _, following = summed(rule, [update([10.0]), update([1.0])])

    assert value["w"].item() == pytest.approx(1.5, abs=1e-5)
    assert float(following.codec["norm"]) == 0


def test_a_bit_of_a_stage_is_one_clients_whatever_the_client_weighs():
    # Half of the updates are longer than 2: the norm stays where it is.
    stage = fm.codecs.adaptive_clip(2.0)
    rule = fielded(fm.aggregators.weighted_mean(stage))

    _, _, following = summed(rule, [update([10.0], 900.0), update([1.0], 1.0)])

    assert float(following.codec["stages"]["0"]["norm"]) == pytest.approx(2.0, rel=1e-4)


def test_too_many_clients_for_a_cap_are_refused_with_the_largest_that_fits():
    rule = fielded(fm.aggregators.weighted_mean(), cap=1 << 16)
    rule.init(update([1.0]), 65535)
    with pytest.raises(fm.SettingsError, match=r"weight_cap=65535\)"):
        rule.init(update([1.0]), 65537)
