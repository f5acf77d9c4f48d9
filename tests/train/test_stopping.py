"""When a run may end, and which of its models was the best."""

import math

import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.train.stopping import Best, improves, patience, target


def history(values, metric="test_accuracy"):
    """Rows of rounds 1, 2, ...; None is a round that was not evaluated."""
    return [
        {"round": number, "evaluated": value is not None}
        | ({} if value is None else {metric: value})
        for number, value in enumerate(values, 1)
    ]


def best_round(values, better):
    best = Best("metric", better)
    for number, value in enumerate(values, 1):
        if improves(best, value):
            best = best.at(number, value)
    return best.round


NAN = math.nan


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([0.5, 0.6, 0.9], "higher", 3),  # The last may win.
        ([0.3], "higher", 1),
        ([2.0, 1.0, 1.5], "lower", 2),
        ([NAN, 0.5, 0.4], "higher", 2),
        ([NAN, 0.5, 0.4], "lower", 3),
        ([0.5, NAN, 0.4], "higher", 1),
        ([0.5, 0.7, 0.7], "higher", 2),  # The first of two equals stays.
        ([0.7, 0.5, 0.5], "lower", 2),
        ([NAN, NAN], "lower", 0),
        ([math.inf, 3.0], "lower", 2),
        ([-math.inf, -5.0], "higher", 2),
        ([-3.0, -1.0], "higher", 2),
        ([0.0, -1.0], "lower", 2),
    ],
)
def test_the_best_round(values, better, expected):
    assert best_round(values, better) == expected


def test_patience_waits_for_as_many_rounds_as_it_says():
    stop = patience(2, "test_accuracy")

    assert stop(history([0.5, 0.6])) is None
    assert stop(history([0.5, 0.6, 0.6])) is None
    assert stop(history([0.5, 0.6, 0.6, 0.5])) == "test_accuracy has not improved for 2 rounds"
    assert stop(history([0.5, 0.6, 0.6, 0.7])) is None


def test_patience_counts_rounds_not_evaluations():
    stop = patience(4, "test_accuracy")

    assert stop(history([None, 0.6, None, 0.6])) is None
    assert "for 4 rounds" in stop(history([None, 0.6, None, 0.5, None, 0.6]))


def test_patience_overlooks_a_nan_and_waits_while_there_is_nothing():
    stop = patience(2, "test_loss")

    assert stop(history([None, None, None], "test_loss")) is None
    assert stop(history([NAN, NAN, NAN], "test_loss")) is None
    assert stop(history([2.0, NAN, 1.0], "test_loss")) is None
    assert "for 2 rounds" in stop(history([1.0, NAN, 2.0], "test_loss"))


def test_patience_may_ask_for_a_least_change():
    stop = patience(2, "test_accuracy", least=0.1)

    assert "for 2 rounds" in stop(history([0.5, 0.55, 0.58]))
    assert stop(history([0.5, 0.65, 0.7])) is None


@pytest.mark.parametrize(
    ("metric", "falls"),
    [
        ("test_loss", True),
        ("clients_rmse", True),
        ("test_mae", True),
        ("test_perplexity", True),
        ("test_error", True),
        ("test_accuracy", False),
        ("clients_f1", False),
    ],
)
def test_the_better_end_is_read_from_the_name(metric, falls):
    rising = history([1.0, 2.0, 3.0], metric)

    assert bool(patience(2, metric)(rising)) is falls
    assert bool(target(metric, 2.5)(rising)) is not falls


def test_the_better_end_may_be_said():
    rising = history([1.0, 2.0, 3.0], "test_loss")

    assert patience(2, "test_loss", better="higher")(rising) is None
    assert patience(2, "test_auc", better="lower")(history([1.0, 2.0, 3.0], "test_auc"))
    for build in (lambda **end: patience(2, "x", **end), lambda **end: target("x", 1.0, **end)):
        with pytest.raises(SettingsError, match='"higher" or "lower", but is \'max\''):
            build(better="max")


def test_a_target_is_reached_or_passed():
    reach, fall = target("test_accuracy", 0.9), target("test_loss", 0.5)

    assert reach(history([0.95, 0.89])) is None
    assert reach(history([0.5, 0.9])) == "test_accuracy has reached 0.9"
    assert fall(history([0.6], "test_loss")) is None
    assert fall(history([0.25], "test_loss")) == "test_loss has reached 0.25"
    assert reach(history([NAN])) is None
    assert fall(history([NAN], "test_loss")) is None


@pytest.mark.parametrize("build", [lambda m: patience(1, m), lambda m: target(m, 1.0)])
def test_a_column_that_is_not_there_is_refused_with_the_nearest_one(build):
    with pytest.raises(SettingsError, match=r"no column 'test_acuracy'.*'test_accuracy'"):
        build("test_acuracy")(history([0.5]))


@pytest.mark.parametrize("rounds", [0, -1, NAN])
def test_a_patience_of_no_rounds_is_refused(rounds):
    with pytest.raises(SettingsError, match="rounds must be a finite number above 0"):
        patience(rounds, "test_loss")
