"""Case R01: weights that add up to zero, and an update of weight zero that is not finite."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.aggregators import total, uniform_mean, weighted_mean
from folkmoot.codecs import clip
from folkmoot.core.errors import ClientError, QuorumError
from folkmoot.local.evaluate import finished
from folkmoot.train.stopping import Best, improves

CASE = yaml.safe_load((Path(__file__).parent / "R01.yaml").read_text(encoding="utf-8"))
INPUT = CASE["input"]
RULES = {
    "plain": weighted_mean(),
    "behind a clip": weighted_mean(clip(100.0)),
}


def updates(values, weights):
    return [
        fm.Update({"params": {"w": tensor([float(v) for v in value])}, "buffers": {}}, float(n))
        for value, n in zip(values, weights, strict=True)
    ]


@pytest.fixture
def driven(line, saying, one_round):
    """Do one round whose clients answer with these updates; returns the model and the report."""
    work_of, data_of = saying
    objective = line(INPUT["global_before"])

    def drive(given, rule, snapshot=None):
        work = work_of(objective, given[0] if given else updates([[0, 0]], [0])[0])
        algorithm = fm.fedavg(work, aggregator=rule)
        clients = {client: data_of(update) for client, update in enumerate(given)}
        return one_round(algorithm, clients, snapshot)

    return drive


def model_of(snapshot):
    return snapshot.state["params"]["w"].tolist()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_round_of_zero_weights_is_skipped_and_the_model_stays(rule, driven):
    case = INPUT["a_all_zero"]
    given = updates(case["updates"], case["num_examples"])

    snapshot, report = driven(given, rule)

    assert model_of(snapshot) == INPUT["global_before"]
    assert "add up to 0" in report.skipped
    with pytest.raises(QuorumError, match=r"weights of all 2 clients .* add up to 0"):
        fm.aggregate(rule, given)


def test_zero_weights_in_a_later_round_leave_the_model_of_the_round_before(driven):
    first, _ = driven(updates([[1, 2]], [4]), weighted_mean())
    case = INPUT["a_all_zero"]

    second, report = driven(updates(case["updates"], case["num_examples"]), weighted_mean(), first)

    assert model_of(first) == model_of(second) == [1.5, 2.5]
    assert (second.round, report.answered) == (2, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_zero_weight_adds_nothing_whatever_it_weighs(rule, bad, driven):
    case = INPUT["b_zero_weight_not_finite"]
    values = [[bad, math.inf], case["updates"][1]]
    given = updates(values, case["num_examples"])

    by_hand = fm.aggregate(rule, given)["params"]["w"].tolist()
    snapshot, report = driven(given, rule)

    expected = CASE["expected"]["b"]
    assert by_hand == pytest.approx(expected, rel=1e-6)
    moved = [after - before for after, before in zip(model_of(snapshot), [0.5, 0.5], strict=True)]
    assert moved == pytest.approx(expected, rel=1e-6)
    assert [left.client for left in report.left_out] == [0]


@pytest.mark.parametrize("rule", [uniform_mean(), total(), uniform_mean(clip(9.0))])
def test_a_rule_that_does_not_weigh_is_not_reached_by_it_either(rule, driven):
    case = INPUT["b_zero_weight_not_finite"]
    given = updates([[math.nan, math.inf], case["updates"][1]], case["num_examples"])

    snapshot, report = driven(given, rule)

    assert model_of(snapshot) == pytest.approx([3.5, 4.5], rel=1e-6)
    assert [left.client for left in report.left_out] == [0]
    with pytest.raises(ClientError, match="Client 0"):
        fm.aggregate(rule, given)


@pytest.mark.parametrize("weights", INPUT["c_bad_weights"]["num_examples_variants"], ids=str)
@pytest.mark.parametrize("place", [0, 1])
def test_a_weight_that_is_no_weight_is_refused_by_client(weights, place, driven):
    ordered = weights if place == 0 else weights[::-1]
    given = updates(INPUT["c_bad_weights"]["updates"], ordered)

    with pytest.raises(ClientError, match=f"Client {place} .* its weight is {float(weights[0])}"):
        fm.aggregate(weighted_mean(), given)
    snapshot, report = driven(given, weighted_mean())

    assert [left.client for left in report.left_out] == [place]
    assert all(math.isfinite(number) for number in model_of(snapshot))


def test_no_replies_leave_the_model_and_a_round_without_result(driven):
    snapshot, report = driven(updates(**_named(INPUT["d_no_replies"])), weighted_mean())

    assert model_of(snapshot) == INPUT["global_before"]
    assert "none answered" in report.skipped
    with pytest.raises(QuorumError):
        fm.aggregate(weighted_mean(), [])


def _named(case):
    return {"values": case["updates"], "weights": case["num_examples"]}


def test_an_evaluation_without_examples_has_no_value(line):
    case = INPUT["e_evaluation"]
    sums = [tensor([loss * n, n]) for loss, n in zip(*case.values(), strict=True)]

    value = finished(line(), {"loss": sum(sums)})["loss"]

    assert math.isnan(value)
    assert not improves(Best("test_loss", "lower"), value)


def test_a_client_whose_test_asks_for_nothing_does_not_touch_the_others_value():
    torch.manual_seed(0)
    x = tensor([[0, 1]])
    real = {"x": x, "y": tensor([[1, 0]])}
    idle = {"x": x, "y": tensor([[-100, -100]])}
    work = fm.local.sgd(fm.language_model(nn.Embedding(2, 2)), lr=0.1)

    rows = []
    for tests in ([real], [real, idle]):
        clients = fm.data.from_datasets([real] * len(tests), tests)
        result = fm.run(fm.fedavg(work), clients, rounds=1, progress=False, workers=1)
        rows.append(result.history[-1])

    columns = [name for name in rows[0] if name.startswith("clients_")]
    assert columns
    assert [rows[1][name] for name in columns] == [rows[0][name] for name in columns]
    assert all(math.isfinite(rows[0][name]) for name in columns)
