"""Case R18: the last round can be the best, and a score belongs to the model that had it."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError

CASE = yaml.safe_load((Path(__file__).parent / "R18.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]


class Round(nn.Module):
    """A model whose one number is the round that made it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.w.expand(len(x))


def table(scores, last):
    return torch.tensor([float(scores.get(number, math.nan)) for number in range(last + 1)])


@pytest.fixture
def ran():
    """Run rounds whose global models have these scores; `best` is the metric that is asked for."""

    def run(scores, best="accuracy", over_clients=False, **more):
        rounds = max(scores)
        values = table(scores, rounds)
        loss = values if best == "loss" else torch.zeros(rounds + 1)
        metric = fm.metrics.mean_of("accuracy", lambda out, _: values[out.long()])
        objective = fm.objective(
            Round(), lambda out, _: loss[out.long()] + 0 * out, [metric], target=None
        )
        work = fm.local.sgd(objective, lr=0.0)

        def round(state):
            yield fm.Task(state, work, fm.aggregators.uniform_mean())
            return {**state, "params": {"w": state["params"]["w"] + 1}}

        algorithm = fm.Algorithm("count", objective.init, round, (work,))
        rows = {"x": torch.ones(3, 1)}
        clients = fm.data.from_datasets([rows], [rows]) if over_clients else [rows]
        return fm.run(
            algorithm,
            clients,
            rounds=rounds,
            test=None if over_clients else rows,
            best=best,
            progress=False,
            workers=1,
            **{"evaluate_every": 1, **more},
        )

    return run


def is_of_round(result, number):
    """Whether the kept model is the one that had the score, and the result's own is the last."""
    last = result.history[-1]["round"]
    return (result.best_model.w.item(), result.model.w.item()) == (number, last)


@pytest.mark.parametrize("over_clients", [False, True], ids=["held out", "clients"])
def test_the_last_round_can_win(over_clients, ran):
    scores = INPUT["accuracy_of_global_model_after_round"]

    result = ran(scores, over_clients=over_clients)

    assert len(result.history) == INPUT["rounds"]
    assert result.best.round == EXPECTED["best_round"]
    assert result.best.value == pytest.approx(EXPECTED["best_value"])
    assert is_of_round(result, EXPECTED["best_round"])


def test_each_row_holds_the_score_of_its_own_round(ran):
    scores = INPUT["accuracy_of_global_model_after_round"]

    result = ran(scores)

    found = [row["test_accuracy"] for row in result.history]
    assert found == pytest.approx([scores[number] for number in (1, 2, 3)])


def test_a_run_of_one_round_has_a_best_model(ran):
    result = ran(INPUT["one_round"])

    assert result.best.round == EXPECTED["one_round"]
    assert is_of_round(result, EXPECTED["one_round"])


@pytest.mark.parametrize(
    ("name", "metric"),
    [("loss_mode_min", "loss"), ("with_nan", "accuracy"), ("tie", "accuracy")],
)
def test_lower_may_be_better_a_nan_never_is_and_the_first_of_two_equals_stays(name, metric, ran):
    result = ran(INPUT[name], best=metric)

    assert result.best.round == EXPECTED[name]
    assert is_of_round(result, EXPECTED[name])
    assert result.best.value == pytest.approx(INPUT[name][EXPECTED[name]])


@pytest.mark.parametrize("scores", [{1: 0.5, 2: 0.4, 3: math.nan}, {1: 0.5, 2: 0.5, 3: 0.5}])
def test_the_first_round_can_win_too(scores, ran):
    assert ran(scores).best.round == 1


def test_the_last_round_is_judged_also_where_it_is_not_due(ran):
    result = ran(INPUT["accuracy_of_global_model_after_round"], evaluate_every=2)

    assert [row["evaluated"] for row in result.history] == [False, True, True]
    assert result.best.round == EXPECTED["best_round"]
    assert is_of_round(result, EXPECTED["best_round"])


def test_a_round_that_was_not_judged_cannot_be_the_best(ran):
    result = ran({1: 0.9, 2: 0.5, 3: 0.6, 4: 0.4}, evaluate_every=2)

    assert result.best.round == 2
    assert is_of_round(result, 2)


def test_where_no_score_is_a_number_the_best_model_is_the_last(ran):
    result = ran({1: math.nan, 2: math.nan})

    assert result.best.round == 0
    assert is_of_round(result, 2)


def test_an_unknown_metric_is_refused_before_the_first_round(ran):
    with pytest.raises(SettingsError, match=r"best='acuracy' is no metric.*'accuracy'"):
        ran({1: 0.5}, best="acuracy")
