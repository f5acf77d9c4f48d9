"""Case R14: an update is clipped as a whole, and noise is added once, to floats alone."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import tensor

import folkmoot as fm
from folkmoot.aggregators import uniform_mean
from folkmoot.codecs import clip, gaussian

CASE = yaml.safe_load((Path(__file__).parent / "R14.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED, TOLERANCE = CASE["input"], CASE["expected"], CASE["tolerance"]


def clipped(case, value, counts=None):
    update = fm.Update(value, counts=counts or {})
    return fm.aggregate(uniform_mean(clip(case["clip"]), divisor=1.0), [update])


def close(numbers):
    return pytest.approx(numbers, abs=TOLERANCE["a-d"])


@pytest.mark.parametrize("letter", ["a", "b"])
def test_an_update_keeps_its_direction_also_where_it_has_none(letter):
    case = INPUT[letter]

    found = clipped(case, {"w": tensor(case["update"]).float()})

    assert found["w"].tolist() == close(EXPECTED[letter])


def test_the_norm_is_of_all_leaves_together():
    case = INPUT["c"]

    found = clipped(case, {name: tensor(leaf).float() for name, leaf in case["update"].items()})

    assert {name: leaf.tolist() for name, leaf in found.items()} == {
        name: close(leaf) for name, leaf in EXPECTED["c"].items()
    }


def test_a_counter_is_neither_in_the_norm_nor_noised():
    case = INPUT["d"]
    counts = {"counter": tensor(case["update"]["counter_int64"])}
    update = fm.Update({"w": tensor(case["update"]["w"]).float()}, counts=counts)

    found = clipped(case, update.value, counts)
    noisy = fm.aggregate(uniform_mean(clip(case["clip"]), gaussian(1.0), divisor=1.0), [update])

    assert found["w"].tolist() == close(EXPECTED["d"]["w"])
    for value in (found, noisy):
        assert value["counter"].dtype == torch.int64
        assert value["counter"].item() == EXPECTED["d"]["counter_int64"]


def test_the_mean_of_a_cohort_carries_one_noise():
    case = INPUT["e"]
    rule = uniform_mean(
        clip(case["clip"]), gaussian(case["noise_multiplier"]), divisor=float(case["clients"])
    )
    update = fm.Update({"w": torch.zeros(case["coordinates"])})

    found = fm.aggregate(rule, [update] * case["clients"])["w"]

    # With noise of each client it were 0.632; with noise not scaled to the mean, 2.
    expected = EXPECTED["e"]["std_of_the_noisy_mean"]
    assert found.std().item() == pytest.approx(expected, abs=TOLERANCE["e"])


def test_an_update_that_is_no_number_is_refused_by_hand_and_reported_in_a_round(
    line, pull, one_round
):
    case = INPUT["f"]
    rule = uniform_mean(clip(case["clip"]), gaussian(0.0), divisor=2.0)
    bad = [float(number) for number in case["update"]]

    with pytest.raises(fm.ClientError, match="Client 0 cannot be aggregated: leaf w holds 1 of 2"):
        fm.aggregate(rule, [fm.Update({"w": tensor(bad)})])
    algorithm = fm.fedavg(fm.local.sgd(line([0.0, 0.0]), lr=1.0), aggregator=rule)
    snapshot, report = one_round(algorithm, {0: pull([0.5, 0.5]), 1: pull(bad)})

    assert [left.client for left in report.left_out] == [1]
    assert snapshot.state["params"]["w"].tolist() == close([-0.25, -0.25])


@pytest.mark.parametrize("number", INPUT["g"]["noise_multiplier"], ids=str)
def test_an_impossible_multiplier_is_refused_when_the_run_is_set_up(number):
    with pytest.raises(fm.SettingsError, match="noise_multiplier must be a finite number"):
        gaussian(float(number))


@pytest.mark.parametrize("number", INPUT["g"]["clip"], ids=str)
def test_an_impossible_norm_is_refused_when_the_run_is_set_up(number):
    with pytest.raises(fm.SettingsError, match="norm must be a finite number above 0"):
        clip(float(number))
