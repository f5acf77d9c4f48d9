"""`evaluate_privately`: means over clients' tests that are bounded, noised and paid for."""

import math
import statistics

import pytest
import torch
from torch import nn

import folkmoot as fm

QUIET = {"engine": fm.engines.sequential()}
NO_NOISE = fm.DP(noise_multiplier=0.0, delta=1e-3)


def rows(right, wrong=0):
    """Examples of which a model that always says class 0 has so many right."""
    return torch.zeros(right + wrong, 1), torch.tensor([0] * right + [1] * wrong)


def federation(tests):
    return fm.data.from_function(tests, lambda client: rows(1, 1), test=tests.get)


def says_class_0():
    model = nn.Linear(1, 2)
    model.load_state_dict({"weight": torch.zeros(2, 1), "bias": torch.tensor([1.0, 0.0])})
    work = fm.local.sgd(fm.classifier(model), lr=1e-30)
    return fm.run(fm.fedavg(work), {0: rows(2)}, rounds=1, progress=False, **QUIET)


TESTS = {0: rows(4), 1: rows(1, 1), 2: rows(0, 100), 3: rows(3, 1)}


def judged(tests=TESTS, privacy=NO_NOISE, **more):
    return fm.evaluate_privately(says_class_0(), federation(tests), privacy, **QUIET, **more)


def test_each_client_counts_once_whatever_it_holds():
    found = judged()
    assert found.metrics == {"clients_accuracy": pytest.approx((1 + 0.5 + 0 + 0.75) / 4, abs=1e-5)}
    assert found.clients == pytest.approx(4, abs=1e-5)
    assert found.withheld == ("loss",)


def test_a_loss_counts_at_most_what_was_said():
    good, bad = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    tests = {0: rows(1), 1: rows(0, 1)}
    found = judged(tests, most={"loss": 1.0}).metrics["clients_loss"]
    assert found == pytest.approx((good + 1.0) / 2, abs=1e-5)
    found = judged(tests, most={"loss": 8.0}).metrics["clients_loss"]
    assert found == pytest.approx((good + bad) / 2, abs=1e-4)


def test_clients_without_tests_are_left_out_of_the_mean():
    found = judged(TESTS | {4: None, 5: None})
    assert found.metrics["clients_accuracy"] == pytest.approx(2.25 / 4, abs=1e-5)
    assert found.clients == pytest.approx(4, abs=1e-5)


def test_the_noise_has_the_deviation_that_is_stated():
    clients = federation({client: rows(3, 1) for client in range(60)})
    result, told, stated = says_class_0(), [], []
    for _ in range(150):
        found = fm.evaluate_privately(
            result, clients, fm.DP(noise_multiplier=3.0, delta=1e-3), **QUIET
        )
        told.append((found.metrics["clients_accuracy"] - 0.75, found.clients - 60))
        stated.append(found.deviations["clients_accuracy"])
    errors = torch.tensor(told)
    # Half of a client is told, in noise of 3 sqrt(2) / 2; the ratio by the delta method.
    one = 3 * math.sqrt(2) / 2
    expected = torch.tensor([one * math.sqrt(1.25) / 60, 2 * one])
    # Each is told from its own noisy numbers.
    assert statistics.median(stated) == pytest.approx(float(expected[0]), rel=0.05)
    # A chi of 150 lies within a fifth of its mean but for one time in a thousand.
    assert ((errors.square().mean(0).sqrt() / expected - 1).abs() < 0.2).all()
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("trust", ["central", "local"])
def test_what_it_costs_is_charged_to_the_ledger_before_anyone_is_asked(trust):
    asked = []

    def test(client):
        asked.append(client)
        return rows(1)

    clients = fm.data.from_function(range(50), lambda client: rows(1), test=test)
    result = says_class_0()
    with fm.privacy.Ledger(epsilon=3, delta=1e-3) as ledger:
        budget = fm.DP(epsilon=2, delta=1e-3, ledger=ledger, trust=trust)
        found = fm.evaluate_privately(result, clients, budget, **QUIET)
        assert 1.9 < ledger.spent <= 2 and found.privacy.epsilon == pytest.approx(ledger.spent)
        asked.clear()
        with pytest.raises(fm.BudgetError, match="over the budget of 3"):
            fm.evaluate_privately(result, clients, budget, **QUIET)
        assert not asked


def test_own_models_are_judged_too():
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(nn.Linear(1, 2)), lr=0.5)
    tests = {0: rows(4), 1: rows(0, 4)}
    clients = fm.data.from_function(tests, tests.get, test=tests.get)
    result = fm.run(fm.fedavg(work), clients, rounds=9, personal="*", progress=False, **QUIET)
    found = fm.evaluate_privately(result, clients, NO_NOISE, personal=True, **QUIET)
    assert found.metrics["clients_accuracy"] == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(fm.SettingsError, match="personal=True"):
        fm.evaluate_privately(result, clients, NO_NOISE, **QUIET)


def test_it_prints_what_was_released_and_what_it_cost():
    text = str(judged())
    assert "clients_accuracy 0.5625" in text and "most={" in text and "epsilon inf" in text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"most": {"accurancy": 1.0}}, "Did you mean 'accuracy'"),
        ({"most": {"loss": 0.0}}, r"most\['loss'\] must be a finite number above 0"),
        ({"privacy": fm.DP(epsilon=1, unit="example")}, "hides whole clients"),
        ({"privacy": None}, "privacy must be a budget"),
        ({"privacy": fm.DP(epsilon=1, delta=0.5)}, "delta"),
    ],
)
def test_what_cannot_be_released_is_refused(options, why):
    options = {"privacy": NO_NOISE} | options
    with pytest.raises(fm.SettingsError, match=why):
        fm.evaluate_privately(says_class_0(), federation(TESTS), **QUIET, **options)


def test_a_metric_without_a_largest_value_needs_one():
    model = nn.Linear(1, 1)
    work = fm.local.sgd(fm.regressor(model), lr=0.1)
    data = {0: (torch.zeros(2, 1), torch.zeros(2, 1))}
    clients = fm.data.from_function(data, data.get, test=data.get)
    result = fm.run(fm.fedavg(work), clients, rounds=1, progress=False, **QUIET)
    with pytest.raises(fm.SettingsError, match=r"has a largest value.*most="):
        fm.evaluate_privately(result, clients, NO_NOISE, **QUIET)
