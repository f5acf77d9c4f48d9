"""Case R13: a noise search never overspends, and a sampling rate of 1 is a rate like any other."""

from pathlib import Path

import pytest
import yaml

from folkmoot.core.errors import SettingsError
from folkmoot.privacy import Ledger, PoissonGaussian, epsilon, epsilon_bound, noise_for

CASE = yaml.safe_load((Path(__file__).parent / "R13.yaml").read_text(encoding="utf-8"))
SEARCH, FULL, EDGE = (CASE["input"][part] for part in ("a_search", "b_full", "c_edge"))
EXPECTED, TOLERANCE = CASE["expected"], CASE["tolerance"]


def test_the_noise_found_for_a_budget_stays_within_it_and_uses_it():
    def charges_of(noise):
        return [(PoissonGaussian(noise, SEARCH["sampling_rate"]), SEARCH["steps"])]

    noise = noise_for(SEARCH["target_epsilon"], SEARCH["delta"], charges_of)

    least, most = EXPECTED["a_epsilon_at_returned_noise"]
    assert least <= epsilon(charges_of(noise), SEARCH["delta"]) <= most
    least, most = EXPECTED["a_noise_multiplier"]
    assert least <= noise <= most


@pytest.mark.parametrize("accountant", [epsilon, epsilon_bound])
def test_a_sampling_rate_of_1_is_sound_and_composes(accountant):
    event = PoissonGaussian(FULL["noise_multiplier"], FULL["sampling_rate"])

    found = accountant([(event, FULL["steps"])], FULL["delta"])

    assert found >= EXPECTED["b_exact_epsilon"] - 1e-4  # Given to four digits.
    assert found <= EXPECTED["b_classic_renyi_bound"]
    # Rounds compose to far less than their sum.
    assert found < FULL["steps"] * accountant([(event, 1)], FULL["delta"])


def test_full_participation_has_its_exact_epsilon():
    event = PoissonGaussian(FULL["noise_multiplier"], FULL["sampling_rate"])

    found = epsilon([(event, FULL["steps"])], FULL["delta"])

    assert found == pytest.approx(EXPECTED["b_exact_epsilon"], abs=TOLERANCE)


@pytest.mark.parametrize("accountant", [epsilon, epsilon_bound])
def test_no_step_costs_nothing_no_noise_costs_everything_and_delta_0_is_refused(accountant):
    event, open_event = PoissonGaussian(1.0, 0.1), PoissonGaussian(0.0, 0.1)

    assert accountant([], EDGE["delta"]) == EXPECTED["c_epsilon_of_no_step"]
    assert accountant([(event, 0)], EDGE["delta"]) == EXPECTED["c_epsilon_of_no_step"]
    assert accountant([(open_event, 1)], EDGE["delta"]) == float(EXPECTED["c_epsilon_of_no_noise"])
    with pytest.raises(SettingsError, match="delta must be above 0 and below 1, but is 0"):
        accountant([(event, 1)], 0)


def test_a_ledger_adds_up_events_and_not_epsilons():
    event = PoissonGaussian(FULL["noise_multiplier"], FULL["sampling_rate"])
    ledger = Ledger(delta=FULL["delta"])

    spent = []
    for step in range(FULL["steps"]):
        ledger.charge(event, key=(step,))
        spent.append(ledger.spent)

    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(EXPECTED["b_exact_epsilon"], abs=TOLERANCE)
    assert spent[-1] < FULL["steps"] * spent[0]
