"""Accountants: never below the truth, and near it; by closed forms, exact sums and vectors."""

import json
import logging
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from folkmoot.core.errors import SettingsError
from folkmoot.privacy import losses
from folkmoot.privacy.accountants import delta_of, epsilon, epsilon_bound, epsilon_curve
from folkmoot.privacy.closed_form import gaussian_epsilon
from folkmoot.privacy.divergences import epsilon_by_divergences
from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    LocalGaussian,
    PoissonGaussian,
    Pure,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())
SETTINGS = VECTORS["poisson_subsampled_gaussian"]
SLOWER = ("long_run", "fl_20k_of_1e8")
TIGHT = 1 + 1e-3
"""What a grid of losses may add."""


def named(row):
    """Name a setting by its noise and its lot."""
    rate = row.get("sampling_prob") or f"{row['cohort']} of {row['population']}"
    return f"noise {row['noise_multiplier']}, {rate}"


def poisson(row):
    return [(PoissonGaussian(row["noise_multiplier"], row["sampling_prob"]), row.get("steps", 1))]


def told_bits(spent, delta):
    """Exact epsilon of so many told bits, (epsilon of one, how many): their losses by binomials."""
    losses = {0.0: 1.0}
    for one, times in spent:
        true = 1 / (1 + math.exp(-one))
        chances = binom.pmf(range(times + 1), times, true)
        steps = [(one * (2 * k - times), chance) for k, chance in enumerate(chances)]
        losses = {a + b: p * q for a, p in losses.items() for b, q in steps}
    low, high = 0.0, sum(one * times for one, times in spent)
    while high - low > 1e-10:
        middle = (low + high) / 2
        over = sum(p * -math.expm1(middle - loss) for loss, p in losses.items() if loss > middle)
        low, high = (middle, high) if over > delta else (low, middle)
    return high


# Cohorts drawn by lot.


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.nightly] if row["name"] in SLOWER else [])
        for row in SETTINGS
    ],
    ids=lambda row: row["name"],
)
def test_epsilon_is_within_2_percent_above_the_reference(row):
    found = epsilon(poisson(row), row["delta"])

    reference = row["eps_pld_dp_accounting"]
    assert reference - 1e-3 <= found <= 1.02 * reference
    # What is printed is far nearer than what is promised.
    assert found <= TIGHT * reference


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row["name"])
def test_the_live_meter_shows_the_bound_by_divergences(row):
    found = epsilon_bound(poisson(row), row["delta"])

    assert found == pytest.approx(row["eps_rdp_dp_accounting"], rel=1e-9)
    assert found == pytest.approx(row["eps_rdp_opacus"], rel=2e-3)
    assert found >= row["eps_pld_dp_accounting"]


@pytest.mark.parametrize("row", VECTORS["one_step_poisson_exact"]["rows"], ids=named)
def test_one_round_costs_the_exact_divergence(row):
    found = epsilon(poisson(row), row["delta"])

    assert row["epsilon"] - 1e-9 <= found <= TIGHT * row["epsilon"]


def test_a_lot_that_all_win_is_no_lot():
    same = epsilon([(PoissonGaussian(2.0, 1.0), 3), (Gaussian(2.0), 7)], 1e-5)

    assert same == gaussian_epsilon(math.sqrt(10) / 2, 1e-5)


def test_rounds_with_different_noise_add_up_without_loss():
    event, other = PoissonGaussian(1.0, 0.1), PoissonGaussian(1.0 + 1e-12, 0.1)

    parted = epsilon([(event, 60), (other, 40)], 1e-5)

    assert parted == pytest.approx(epsilon([(event, 100)], 1e-5), rel=1e-6)


@pytest.mark.parametrize("delta", [1e-8, 1e-10, 1e-11, 1e-13, 1e-20], ids="{:g}".format)
@pytest.mark.parametrize(("noise", "times"), [(5.0, 50), (30.0, 2000), (100.0, 100_000)])
def test_rounding_of_the_transform_never_lowers_epsilon(noise, times, delta):
    # A lot that all win has a closed form, but goes the long way when it is asked of `losses`.
    lot, exact = PoissonGaussian(noise, 1.0), gaussian_epsilon(math.sqrt(times) / noise, delta)

    found, _ = losses.epsilon_by_losses([(lot, times)], delta, exact)

    assert found >= exact * (1 - 1e-9)


def test_a_delta_below_what_the_transform_can_resolve_is_left_to_divergences():
    charges = [(PoissonGaussian(1.0, 0.01), 100)]

    assert epsilon(charges, 1e-20) == epsilon_bound(charges, 1e-20)


# Cohorts of fixed size, and capped ones.


@pytest.mark.parametrize("row", VECTORS["fixed_size_vs_poisson"]["rows"], ids=named)
def test_a_cohort_of_fixed_size_is_never_sold_as_poisson(row):
    event = FixedSizeGaussian(row["noise_multiplier"], row["cohort"], row["population"])
    charges = [(event, row["steps"])]
    proved = row["rdp_replace_one_without_replacement (gaussian with z/2: sensitivity 2C)"]
    # Replacing one moves a sum by up to twice the norm, also where nothing is gained by the lot.
    no_lot = gaussian_epsilon(2 * math.sqrt(row["steps"]) / row["noise_multiplier"], row["delta"])

    found = epsilon(charges, row["delta"])

    assert epsilon_bound(charges, row["delta"]) == pytest.approx(proved, rel=2e-3)
    assert found == pytest.approx(min(proved, no_lot), rel=2e-3)
    assert found > 2 * row["pld_poisson_add_remove"]


def test_a_fixed_cohort_of_everyone_is_gaussian_noise_of_twice_the_norm():
    found = epsilon([(FixedSizeGaussian(3.0, 50, 50), 4)], 1e-5)

    assert found == gaussian_epsilon(2 * math.sqrt(4) / 3.0, 1e-5)


def test_noise_at_the_clients_is_gaussian_noise_beside_twice_the_norm():
    local, central = [(LocalGaussian(8.0), 3)], [(Gaussian(4.0), 3)]

    # Three releases of which each moves by 2 beside a deviation of 8: one of sqrt(3) / 4.
    exact = gaussian_epsilon(math.sqrt(3) / 4, 1e-5)
    assert epsilon(local, 1e-5) == pytest.approx(exact)
    assert epsilon_bound(local, 1e-5) == pytest.approx(epsilon_bound(central, 1e-5))
    assert delta_of(local, exact) == pytest.approx(1e-5)


def test_noise_at_the_clients_adds_up_with_cohorts_of_fixed_size_alone():
    local, drawn = (LocalGaussian(8.0), 3), (FixedSizeGaussian(3.0, 50, 50), 4)

    found = epsilon([local, drawn], 1e-5)

    shift = math.hypot(math.sqrt(3) * 2 / 8, math.sqrt(4) * 2 / 3)
    assert found == pytest.approx(gaussian_epsilon(shift, 1e-5))
    with pytest.raises(SettingsError, match="no common epsilon"):
        epsilon([local, (Gaussian(4.0), 1)], 1e-5)


def test_a_cap_that_is_never_reached_costs_nothing():
    capped = epsilon([(CappedPoissonGaussian(2.0, 0.1, 1000, 1000), 50)], 1e-5)
    high = epsilon([(CappedPoissonGaussian(2.0, 0.1, 1000, 220), 50)], 1e-5)

    free = epsilon([(PoissonGaussian(2.0, 0.1), 50)], 1e-5)
    assert capped == free
    assert high == pytest.approx(free, rel=1e-3)


def test_a_cap_that_is_reached_costs():
    # 100 are expected: half of the cohorts are cut to 100, and who joins then takes a place.
    free, cut = PoissonGaussian(2.0, 0.1), CappedPoissonGaussian(2.0, 0.1, 1000, 100)

    assert epsilon([(cut, 50)], 1e-5) > 1.2 * epsilon([(free, 50)], 1e-5)


@pytest.mark.parametrize("cap", [50, 100, 130, 160])
def test_the_bound_for_capped_cohorts_is_above_their_epsilon(cap):
    charges = [(CappedPoissonGaussian(2.0, 0.1, 1000, cap), 50)]

    assert epsilon(charges, 1e-5) <= epsilon_bound(charges, 1e-5) < math.inf


# Pure mechanisms, and mixtures.


@pytest.mark.parametrize(
    "spent", [[(1.0, 1)], [(0.1, 1000)], [(1.0, 20)], [(3.0, 4)], [(0.3, 40), (1.1, 9)]], ids=str
)
def test_pure_events_cost_what_told_bits_cost(spent):
    exact = told_bits(spent, 1e-5)

    found = epsilon([(Pure(one), times) for one, times in spent], 1e-5)

    # Losses that are few and far apart fit a grid by chance, so twice as much may be added.
    assert exact - 1e-9 <= found <= TIGHT**2 * exact
    assert exact <= epsilon_bound([(Pure(one), times) for one, times in spent], 1e-5)


def test_a_pure_event_is_not_accounted_as_laplace_noise():
    pure, laplace = epsilon([(Pure(0.1), 1000)], 1e-5), epsilon([(Laplace(10.0), 1000)], 1e-5)

    assert pure > laplace + 0.3


def test_without_a_delta_pure_events_add_up():
    charges = [(Pure(0.5), 3), (Laplace(4.0), 2)]

    assert epsilon(charges, 0) == epsilon_bound(charges, 0) == 0.5 * 3 + 2 / 4
    assert epsilon(charges, 1e-300) == 2.0


def test_one_laplace_noise_costs_its_closed_form():
    # delta = 1 - e^((epsilon - 1 / z) / 2), so epsilon = 1 / z + 2 log(1 - delta).
    assert epsilon([(Laplace(0.5), 1)], 1e-3) == pytest.approx(2 + 2 * math.log1p(-1e-3), rel=1e-6)


def test_mechanisms_of_all_kinds_compose():
    charges = [
        (Laplace(20.0), 4),
        (Pure(0.01), 9),
        (Gaussian(9.0), 5),
        (PoissonGaussian(2, 0.1), 8),
    ]

    together = epsilon(charges, 1e-5)

    parts = [epsilon([charge], 1e-5 / 4) for charge in charges]
    assert max(parts) < together < sum(parts)
    assert together <= epsilon_bound(charges, 1e-5)


# Gaussian noise without a lot: closed forms.


@pytest.mark.parametrize(
    "row", VECTORS["tree_aggregation"]["exact"], ids=lambda row: f"{row['rounds']} rounds"
)
def test_a_tree_costs_one_release_of_its_height(row):
    noise = row["noise_multiplier_per_node"] / math.sqrt(row["height"])

    found = epsilon([(Gaussian(noise), 1)], row["delta"])

    assert found == pytest.approx(row["epsilon_exact_gaussian"], rel=1e-8)


@pytest.mark.parametrize(
    "row", VECTORS["zcdp_to_dp"]["rows"], ids=lambda row: f"{row['rho']:g}, {row['delta']:g}"
)
def test_divergences_become_epsilon_by_the_tight_conversion(row):
    noise = 1 / math.sqrt(2 * row["rho"])

    found = epsilon_by_divergences([(Gaussian(noise), 1)], row["delta"])

    # Orders come in steps; Bun and Steinke's conversion is looser than any of them.
    assert row["epsilon_cks_tight"] - 1e-9 <= found <= 1.002 * row["epsilon_cks_tight"]
    assert found < row["epsilon_bun_steinke"]


def test_divergences_that_rounding_made_negative_are_no_perfect_privacy():
    charges = [(PoissonGaussian(2.0**40, 0.5), 1)]

    assert epsilon_bound(charges, 1e-5) > 0


# Edges.


def test_nothing_happened_and_nothing_hidden_are_the_ends_of_the_scale():
    assert epsilon([], 1e-5) == epsilon_bound([], 1e-5) == 0
    assert epsilon([(Gaussian(1.0), 0)], 1e-5) == 0
    for event in (
        Gaussian(0),
        LocalGaussian(0),
        PoissonGaussian(0, 0.1),
        FixedSizeGaussian(0, 1, 9),
        Laplace(0),
    ):
        assert epsilon([(event, 1)], 1e-5) == epsilon_bound([(event, 1)], 1e-5) == math.inf
        assert delta_of([(event, 1)], 3.0) == 1
    assert epsilon([(PoissonGaussian(1e-200, 0.1), 1)], 1e-5) == math.inf
    assert delta_of([], 1.0) == 0


@pytest.mark.parametrize("delta", [-1e-9, 1, 1.5, math.nan, "1e-5", True])
def test_an_impossible_delta_is_refused(delta):
    for account in (epsilon, epsilon_bound):
        with pytest.raises(SettingsError, match="delta must be above 0 and below 1, but is"):
            account([(Gaussian(1.0), 1)], delta)


def test_a_delta_of_0_is_refused_where_noise_has_a_tail():
    with pytest.raises(SettingsError, match="never hides anything for certain"):
        epsilon([(Gaussian(1.0), 1), (Pure(1.0), 1)], 0)


def test_events_whose_neighbours_differ_have_no_common_epsilon():
    mixed = [(Gaussian(1.0), 1), (FixedSizeGaussian(1.0, 5, 50), 1)]

    for account in (epsilon, epsilon_bound, delta_of):
        with pytest.raises(SettingsError, match=r"added or removed in some, .* replaced in others"):
            account(mixed, 1e-5)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(SettingsError, match=r"cannot have happened -1 times"):
        epsilon([(Gaussian(1.0), -1)], 1e-5)
    for times in (1.5, math.nan, math.inf, True, "3"):
        with pytest.raises(SettingsError, match=f"cannot have happened {times!r} times"):
            epsilon([(Gaussian(1.0), times)], 1e-5)


@pytest.mark.parametrize(
    ("charges", "found"),
    [
        (Gaussian(1.0), r"but are Gaussian\(noise_multiplier=1.0\)"),
        ((Gaussian(1.0), 1), r"but hold Gaussian\(noise_multiplier=1.0\)"),
        ([Gaussian(1.0)], r"but hold Gaussian\(noise_multiplier=1.0\)"),
        ([(1.0, 100)], r"but hold \(1.0, 100\)"),
        ("ab", "but hold 'a'"),
        (None, "but are None"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "account",
    [epsilon, epsilon_bound, delta_of, lambda charges, delta: epsilon_curve(charges, 3, delta)],
    ids=["epsilon", "bound", "delta", "curve"],
)
def test_charges_that_are_none_are_refused_with_how_they_are_written(account, charges, found):
    with pytest.raises(SettingsError, match=rf"a list of \(event, times\), such as .*, {found}"):
        account(charges, 0.1)


def test_the_library_keeps_its_warnings_and_its_handlers_to_itself(capfd, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    level = logging.getLogger("absl").level

    # At this rate dp-accounting leaves out orders, and says so.
    epsilon_bound([(PoissonGaussian(2.0123, 0.5), 50)], 1e-5)

    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == []
    assert logging.getLogger("absl").level == level


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)

    with pytest.raises(SettingsError, match=r"dp-accounting, .* pip install 'folkmoot\[privacy\]'"):
        epsilon([(PoissonGaussian(1.2345, 0.5), 1)], 1e-5)
    # What has a closed form needs none.
    assert epsilon([(Gaussian(1.0), 1)], 1e-5) == pytest.approx(4.377178095681224)


# Delta, and curves.


@pytest.mark.parametrize(
    "charges",
    [
        [(Gaussian(2.0), 3)],
        [(PoissonGaussian(1.0, 0.1), 30)],
        [(CappedPoissonGaussian(1.0, 0.1, 100, 12), 3)],
        [(FixedSizeGaussian(2.0, 10, 100), 9)],
        [(Pure(0.5), 9)],
        [(Laplace(2.0), 30)],
    ],
    ids=lambda charges: type(charges[0][0]).__name__,
)
def test_delta_of_an_epsilon_gives_that_epsilon_back(charges):
    spent = epsilon(charges, 1e-4)

    assert delta_of(charges, spent) == pytest.approx(1e-4, rel=0.02)
    assert 1e-4 < delta_of(charges, 0.9 * spent) <= delta_of(charges, 0.0) <= 1


def test_more_than_pure_events_can_lose_has_delta_0():
    assert delta_of([(Pure(0.5), 4)], 2.0) == 0


def test_a_negative_epsilon_has_no_delta():
    with pytest.raises(SettingsError, match="epsilon must be at least 0, but is -1"):
        delta_of([(Gaussian(1.0), 1)], -1)


def test_a_curve_begins_at_round_1_and_ends_with_the_run():
    charges = [(PoissonGaussian(1.0, 0.05), 120)]

    curve = epsilon_curve(charges, 120, 1e-5, points=6)

    assert [number for number, _ in curve] == [1, 20, 40, 60, 80, 100, 120]
    assert [spent for _, spent in curve] == sorted(spent for _, spent in curve)
    assert curve[0][1] == epsilon([(charges[0][0], 1)], 1e-5)
    assert curve[-1][1] == epsilon(charges, 1e-5)


def test_the_curve_of_correlated_noise_counts_a_tree_once_it_is_begun():
    # Three trees of ten rounds.
    curve = dict(epsilon_curve([(Gaussian(5.0), 3)], 30, 1e-5, points=30))

    one, two = (gaussian_epsilon(math.sqrt(trees) / 5, 1e-5) for trees in (1, 2))
    assert (curve[1], curve[10], curve[11], curve[20]) == (one, one, two, two)
    assert epsilon_curve([], 0, 1e-5) == []


def test_a_curve_builds_each_grid_of_one_release_once(monkeypatch):
    losses._once.cache_clear()
    built = []
    accounting = losses.accounting().pld.privacy_loss_distribution
    real = accounting.from_gaussian_mechanism
    monkeypatch.setattr(
        accounting,
        "from_gaussian_mechanism",
        lambda *given, **named: built.append(named) or real(*given, **named),
    )

    epsilon_curve([(PoissonGaussian(1.03, 0.05), 120)], 120, 1e-5)

    grids = [named["value_discretization_interval"] for named in built]
    assert len(grids) == len(set(grids)) <= 6


@settings(deadline=None, max_examples=5)
@given(
    noise=st.floats(0.8, 5),
    rate=st.floats(0.01, 0.5),
    times=st.integers(1, 100),
    more=st.floats(1.05, 2),
)
def test_more_noise_fewer_rounds_and_a_rarer_lot_never_cost_more(noise, rate, times, more):
    spent = epsilon([(PoissonGaussian(noise, rate), times)], 1e-6)

    assert epsilon([(PoissonGaussian(noise * more, rate), times)], 1e-6) <= spent * TIGHT
    assert epsilon([(PoissonGaussian(noise, rate / more), times)], 1e-6) <= spent * TIGHT
    assert epsilon([(PoissonGaussian(noise, rate), times * 2)], 1e-6) >= spent / TIGHT
    assert spent <= epsilon([(Gaussian(noise), times)], 1e-6)
