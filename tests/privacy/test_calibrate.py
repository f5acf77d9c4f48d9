"""Calibration: the accountant agrees with what is returned, and little of a budget is left."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.errors import SettingsError
from folkmoot.privacy import calibrate
from folkmoot.privacy.accountants import epsilon as epsilon_of
from folkmoot.privacy.calibrate import cohort_for, noise_for, refuse_delta, rounds_for
from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    PoissonGaussian,
    Pure,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())


def lot(rate, rounds):
    return lambda noise: [(PoissonGaussian(noise, rate), rounds)]


BUDGETS = {
    "8, 100 rounds of a tenth": (8.0, 1e-5, lot(0.1, 100)),
    "8, 500 rounds of 1,000 of 100,000": (8.0, 1e-5, lot(0.01, 500)),
    "4, one round of a hundredth": (4.0, 1e-6, lot(0.01, 1)),
    "0.1, 500 rounds of a hundredth": (0.1, 1e-5, lot(0.01, 500)),
    "0.01, 500 rounds of a hundredth": (0.01, 1e-6, lot(0.01, 500)),
    "1000, 100 rounds of a tenth": (1000.0, 1e-5, lot(0.1, 100)),
    "1 at delta 1e-13": (1.0, 1e-13, lot(0.01, 100)),
    "8, everyone": (8.0, 1e-5, lambda noise: [(Gaussian(noise), 500)]),
    "8, fixed size": (8.0, 1e-5, lambda noise: [(FixedSizeGaussian(noise, 100, 10_000), 500)]),
    "8, capped": (8.0, 1e-5, lambda noise: [(CappedPoissonGaussian(noise, 0.1, 1000, 100), 100)]),
    "5, Laplace": (5.0, 1e-6, lambda noise: [(Laplace(noise), 10)]),
    "5, three kinds": (
        5.0,
        1e-6,
        lambda noise: [
            (PoissonGaussian(noise, 0.01), 50),
            (Gaussian(20 * noise), 50),
            (Pure(0.01), 9),
        ],
    ),
}
SLOWER = {
    "2, 2000 rounds of a thousandth": (2.0, 1e-6, lot(0.001, 2000)),
    "0.1, fixed size": (0.1, 1e-6, lambda noise: [(FixedSizeGaussian(noise, 10, 10_000), 100)]),
    "1, a million rounds": (1.0, 1e-9, lot(1e-4, 1_000_000)),
}


@pytest.fixture
def asked(monkeypatch):
    """Count how often the accountant is asked."""
    calls = []

    def counted(charges, delta):
        calls.append(charges)
        return epsilon_of(charges, delta)

    monkeypatch.setattr(calibrate, "epsilon_of", counted)
    return calls


@pytest.mark.parametrize(
    "name", [*BUDGETS, *(pytest.param(name, marks=pytest.mark.nightly) for name in SLOWER)]
)
def test_the_noise_never_overspends_and_leaves_less_than_a_hundredth(name, asked):
    epsilon, delta, charges_of = {**BUDGETS, **SLOWER}[name]

    noise = noise_for(epsilon, delta, charges_of)

    assert 0.99 * epsilon <= epsilon_of(charges_of(noise), delta) <= epsilon
    # What an answer costs is the accountant's time.
    assert len(asked) <= 10


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.nightly] if row["steps"] > 100 else [])
        for row in VECTORS["calibration"]["rows"]
    ],
    ids=lambda row: f"epsilon {row['target_epsilon']}",
)
def test_the_noise_is_that_of_the_reference_to_half_a_percent(row):
    charges_of = lot(row["sampling_prob"], row["steps"])

    noise = noise_for(row["target_epsilon"], row["delta"], charges_of)

    assert row["z_pld"] * 0.9999 <= noise <= row["z_pld"] * 1.005


@pytest.mark.parametrize(
    "row", VECTORS["gaussian_exact"]["sigma"], ids=lambda row: str(row["epsilon"])
)
def test_the_noise_of_one_release_is_the_exact_one(row):
    noise = noise_for(row["epsilon"], row["delta"], lambda noise: [(Gaussian(noise), 1)])

    assert row["sigma"] * (1 - 1e-9) <= noise <= row["sigma"] * 1.005


@settings(deadline=None, max_examples=40)
@given(epsilon=st.floats(0.01, 500), delta=st.floats(1e-12, 1e-3), rounds=st.integers(1, 10**6))
def test_noise_without_a_lot_never_overspends(epsilon, delta, rounds):
    def charges_of(noise):
        return [(Gaussian(noise), rounds)]

    noise = noise_for(epsilon, delta, charges_of)

    assert 0.99 * epsilon <= epsilon_of(charges_of(noise), delta) <= epsilon


def test_a_budget_that_needs_next_to_no_noise_gets_the_least():
    assert noise_for(1e7, 1e-5, lambda noise: [(Gaussian(noise), 1)]) == 1 / 64


def test_what_no_noise_can_pay_for_is_refused_with_what_it_costs():
    def charges_of(noise):
        return [(Gaussian(noise), 10), (Pure(1.0), 3)]

    with pytest.raises(SettingsError, match=r"No noise is enough for epsilon 2 .* it costs 3\."):
        noise_for(2.0, 1e-5, charges_of)


@pytest.mark.parametrize("solve", [noise_for, rounds_for])
def test_charges_that_are_none_are_refused_with_how_they_are_written(solve):
    with pytest.raises(SettingsError, match=r"a list of \(event, times\), .* but are Gaussian"):
        solve(8, 1e-5, lambda free: Gaussian(1.0))
    with pytest.raises(SettingsError, match=r"charges_of must be a function .* but is \[\(Gauss"):
        solve(8, 1e-5, [(Gaussian(1.0), 1)])
    with pytest.raises(SettingsError, match=r"delta must be a finite number .* but is '1e-5'"):
        solve(8, "1e-5", lambda free: [(Gaussian(1.0), 1)])


@pytest.mark.parametrize("epsilon", [0, -1, math.nan, math.inf])
def test_an_impossible_epsilon_is_refused(epsilon):
    for solve in (noise_for, rounds_for):
        with pytest.raises(SettingsError, match="epsilon must be a finite number above 0, but is"):
            solve(epsilon, 1e-5, lambda free: [(Gaussian(1.0), 1)])


@pytest.mark.parametrize(
    "charges_of",
    [
        lambda rounds: [(PoissonGaussian(1.0, 0.1), rounds)],
        lambda rounds: [(Gaussian(10.0), rounds)],
        lambda rounds: [(Pure(0.5), rounds)],
    ],
    ids=["a lot", "everyone", "pure"],
)
def test_one_round_more_than_the_most_would_overspend(charges_of):
    rounds = rounds_for(8.0, 1e-5, charges_of)

    assert epsilon_of(charges_of(rounds), 1e-5) <= 8.0 < epsilon_of(charges_of(rounds + 1), 1e-5)


def test_one_client_more_than_the_largest_cohort_would_overspend():
    def charges_of(cohort):
        return [(PoissonGaussian(3.0, cohort / 1000), 60)]

    cohort = cohort_for(2.0, 1e-5, charges_of, 1000)

    assert epsilon_of(charges_of(cohort), 1e-5) <= 2.0 < epsilon_of(charges_of(cohort + 1), 1e-5)


def test_a_budget_for_everyone_pays_for_the_whole_population():
    assert cohort_for(50.0, 1e-5, lambda m: [(PoissonGaussian(1.0, m / 7), 2)], 7) == 7
    assert cohort_for(50.0, 1e-5, lambda m: [(Gaussian(1.0), 1)], 1) == 1


def test_a_budget_that_pays_for_nothing_is_refused_with_the_price():
    with pytest.raises(SettingsError, match=r"does not pay for one round, which costs 4.377"):
        rounds_for(1.0, 1e-5, lambda rounds: [(Gaussian(1.0), rounds)])
    with pytest.raises(SettingsError, match="does not pay for one client a round"):
        cohort_for(1.0, 1e-5, lambda cohort: [(Gaussian(1.0), 1)], 10)


@pytest.mark.parametrize("delta", [1e-2, 0.5])
def test_a_delta_that_would_allow_publishing_someone_is_refused_with_a_better_one(delta):
    with pytest.raises(SettingsError, match=r"not below 1 / population, 0.01 .* such as 1e-03"):
        refuse_delta(delta, 100)


def test_a_delta_below_1_over_the_population_passes():
    refuse_delta(9e-3, 100)
