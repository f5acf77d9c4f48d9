"""Membership inference: what shadow models tell, by closed forms, and of a model that overfits."""

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.audit.membership import Membership, confidence, likelihood_ratios
from folkmoot.core.errors import SettingsError


def found(scores, members):
    members = np.array(members, dtype=bool)
    return Membership(
        name="m", scores=np.array(scores, float), members=members, examples=len(scores), models=1
    )


@pytest.fixture(scope="module")
def clients():
    """Labels without a reason: whoever knows one has seen it."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 20, generator=draw), torch.randint(3, (80,), generator=draw)
    return {client: (x[at : at + 20], y[at : at + 20]) for client, at in enumerate((0, 20, 40, 60))}


@pytest.fixture(scope="module")
def algorithm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 3))
    return fm.fedavg(fm.local.sgd(fm.classifier(model), lr=0.3, epochs=4, batch_size=5))


def test_the_area_under_the_curve_is_the_chance_that_a_member_scores_higher():
    # Of the four pairs: 3 > 2, 3 > 0, 1 < 2, 1 > 0.
    assert found([3, 1, 2, 0], [1, 1, 0, 0]).auc == pytest.approx(0.75)
    assert found([1, 1, 1, 1], [1, 0, 1, 0]).auc == pytest.approx(0.5)
    assert found([2, 2, 1], [1, 0, 0]).auc == pytest.approx(0.75)


def test_rates_of_true_positives_are_counted_above_the_highest_false_ones():
    scores = [9, 8, 4, 2, *range(-10, 0), 5]
    members = [1, 1, 1, 1, *[0] * 10, 0]

    report = found(scores, members)

    # The highest of 11 outsiders scores 5; a tenth of 11 is one, who may then be mistaken.
    assert report.true_positives_at(0.0) == 0.5
    assert report.true_positives_at(0.1) == 1.0
    assert report.true_positives_at(1.0) == 1.0


def test_confidence_is_the_log_odds_of_the_label():
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    data = {"x": torch.tensor([[2.0, 0.0], [0.0, 0.0]]), "y": torch.tensor([0, 1])}

    told = confidence(model, data)

    # log(e^2 / (1 + 1)) and log(1 / 2).
    assert told == pytest.approx([2 - np.log(2), -np.log(2)], abs=1e-6)


def test_ratios_are_those_of_normal_distributions_of_the_other_models():
    seen = np.array([[1], [1], [0], [0], [1]], dtype=bool)
    values = np.array([[5.0], [4.0], [0.0], [1.0], [6.0]])

    [score] = likelihood_ratios(values, seen)[0]

    # Others in: 4, 6, mean 5, variance 2; out: 0, 1, mean 0.5, variance 0.5; the mean of two has
    # half a variance of its own.
    expected = -(0**2) / (2 * 3.0) - np.log(2.0) / 2 + 4.5**2 / (2 * 0.75) + np.log(0.5) / 2
    assert score == pytest.approx(expected, rel=1e-5)


def test_models_that_saw_nothing_of_their_examples_are_not_told_apart():
    draw = np.random.default_rng(0)
    seen = np.argsort(draw.random((8, 3000)), axis=0) < 4

    scores = likelihood_ratios(draw.standard_normal((8, 3000)), seen)

    # 12,000 members against as many others: a deviation is about 0.004.
    assert found(scores.ravel(), seen.ravel()).auc == pytest.approx(0.5, abs=0.015)


def test_a_model_that_overfits_gives_its_members_away(algorithm, clients):
    told = fm.audit.membership(
        algorithm, clients, rounds=6, models=6, engine=fm.engines.sequential()
    )

    assert told.auc > 0.75
    assert told.members.sum() == 3 * 80
    assert "area under the curve" in str(told)
    assert "480: 80 examples, 6 models" in str(told)


def test_noise_hides_members(algorithm, clients):
    budget = fm.DP(noise_multiplier=3.0, delta=1e-3, clip=0.5, simulation=True)

    told = fm.audit.membership(
        algorithm, clients, rounds=2, privacy=budget, models=6, engine=fm.engines.sequential()
    )

    assert told.auc < 0.6


def test_too_few_models_and_too_few_examples_are_refused(algorithm, clients):
    with pytest.raises(SettingsError, match=r"at least 4, .* but is 3"):
        fm.audit.membership(algorithm, clients, rounds=1, models=3)
    x, y = clients[0]
    with pytest.raises(SettingsError, match="Client 1 has 1 examples, which cannot be halved"):
        fm.audit.membership(algorithm, [(x, y), (x[:1], y[:1])], rounds=1, models=4)


def test_what_is_no_classifier_is_refused():
    with pytest.raises(SettingsError, match=r"needs a classifier's logits, .* gives \(2, 1\)"):
        confidence(nn.Linear(3, 1), {"x": torch.zeros(2, 3), "y": torch.zeros(2)})
