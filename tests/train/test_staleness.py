"""Rules of staleness against their papers' formulas, and what is no rule."""

import math

import numpy as np
import pytest
import torch

from folkmoot.aggregators import uniform_mean
from folkmoot.codecs import clip
from folkmoot.codecs.discount import discount
from folkmoot.core.aggregator import Update
from folkmoot.core.errors import SettingsError
from folkmoot.staleness import Staleness, as_staleness, hinge, polynomial
from folkmoot.train.gathering import discounted
from folkmoot.train.shielded import private_mean


@pytest.mark.parametrize(("stale", "weight"), [(0, 1.0), (3, 0.5), (8, 1 / 3), (99, 0.1)])
def test_the_default_is_fedbuffs(stale, weight):
    assert as_staleness(None).weight(stale) == pytest.approx(weight, rel=1e-15)
    assert as_staleness(None).at_most == 100


def test_a_polynomial_has_its_exponent_and_name():
    assert polynomial(2.0).weight(4) == 1 / 25
    assert polynomial(2.0).name == "(1 + staleness)^-2"
    assert {polynomial(0).weight(stale) for stale in range(50)} == {1.0}


def test_a_hinge_is_free_up_to_a_point_and_then_falls_as_in_the_paper():
    # Xie et al., section 5.2, with a = 10 and b = 4.
    assert [hinge(10.0, 4).weight(stale) for stale in (0, 4, 5, 6, 14)] == [
        1.0,
        1.0,
        1 / 11,
        1 / 21,
        1 / 101,
    ]


@pytest.mark.parametrize("rule", [polynomial(0.5), polynomial(3.0), hinge(), hinge(0.0, 0)])
def test_weights_never_grow_and_never_vanish(rule):
    weights = [rule.weight(stale) for stale in range(rule.at_most + 1)]

    assert weights[0] == 1 and weights == sorted(weights, reverse=True) and weights[-1] > 0
    assert as_staleness(rule) is rule


def test_a_function_is_a_rule_with_its_own_name():
    def halved(stale):
        return np.float32(0.5) ** stale

    rule = as_staleness(halved)

    assert (rule.name, rule.weight(2), rule.at_most) == ("halved", 0.25, 100)


def weighing(value, at=3):
    return lambda stale: value if stale == at else 1.0


@pytest.mark.parametrize(
    "value", [0.0, -0.5, 1.0001, math.nan, math.inf, None, "1", True, 1j], ids=repr
)
def test_a_weight_that_is_no_number_above_0_and_at_most_1_is_refused(value):
    with pytest.raises(SettingsError, match=r"An answer of staleness 3 would weigh .* at most 1"):
        as_staleness(weighing(value))


def test_weights_beyond_the_bound_are_not_looked_at():
    rule = Staleness("short", weighing(2.0), at_most=2)

    assert as_staleness(rule) is rule


@pytest.mark.parametrize("given", [0.5, "polynomial", 3])
def test_what_is_no_rule_is_refused(given):
    with pytest.raises(SettingsError, match=r"staleness must be a rule such as .*polynomial\(0\.5"):
        as_staleness(given)


@pytest.mark.parametrize("build", [polynomial, hinge])
@pytest.mark.parametrize("at_most", [-1, 2.0, True, "3"])
def test_a_bound_that_is_no_whole_number_is_refused(build, at_most):
    with pytest.raises(SettingsError, match="at_most must be a whole number of at least 0"):
        build(at_most=at_most)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: polynomial(-0.5), "exponent"),
        (lambda: hinge(-1), "slope"),
        (lambda: hinge(1.0, -1), "free"),
        (lambda: polynomial(math.nan), "exponent"),
    ],
)
def test_numbers_below_0_are_refused_by_name(build, name):
    with pytest.raises(SettingsError, match=f"{name} must be a finite number of at least 0"):
        build()


@pytest.mark.parametrize("rule", [polynomial(0.5), polynomial(0), hinge(10.0, 1), polynomial(3)])
def test_no_staleness_lets_a_client_move_the_sum_by_more_than_its_bound(rule):
    """The largest norm of what one client encodes, in front of the noise."""
    mean = private_mean("a", clip(0.5), (discount(),), 2.0, uniform_mean())
    generator = torch.Generator().manual_seed(0)
    example = Update({"w": torch.zeros(50)}, 1.0)
    state = mean.init(example, 4)

    lengths = []
    for stale in range(rule.at_most + 1):
        late = state._replace(codec=discounted(state.codec, rule.weight(stale)))
        value = {"w": 100 * torch.randn(50, generator=generator)}
        sent = mean.encode(late, Update(value, 1e6), 0)
        lengths.append(float(sent.value["vector"].double().norm()))
        assert sent.weight == 1.0

    assert state.bounds.l2 == 1.0
    assert max(lengths) <= 1.0
    weights = [rule.weight(stale) for stale in range(rule.at_most + 1)]
    assert lengths == pytest.approx(weights, rel=1e-5)
