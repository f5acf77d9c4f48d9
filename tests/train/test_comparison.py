import math

import pytest
from scipy import stats

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.train.comparison import interval

TABLE = {
    "federated": lambda seed: {"accuracy": [0.5, 0.7, 0.9][seed], "MB": 2},
    "pooled": lambda seed: {"accuracy": [0.6, 0.9, 0.9][seed]},
}


@pytest.mark.parametrize("freedom", [*range(1, 33), 40, 99, 1000])
def test_an_interval_is_students(freedom):
    values = [0.0] * freedom + [1.0]

    mean, half = interval(values)

    assert mean == pytest.approx(1 / len(values))
    # The sum of squares of one 1 among n numbers is 1 - 1 / n.
    error = math.sqrt((1 - 1 / len(values)) / freedom / len(values))
    assert half == pytest.approx(stats.t.ppf(0.975, freedom) * error, rel=3e-4)


def test_ways_are_run_with_each_seed_and_laid_beside_each_other():
    table = fm.compare(TABLE, seeds=range(3))

    assert table.names == ["accuracy", "MB"]
    assert table.found["federated"]["accuracy"] == (0.5, 0.7, 0.9)
    assert table.interval("federated", "accuracy").mean == pytest.approx(0.7)
    assert table.interval("federated", "accuracy").half_width == pytest.approx(
        4.303 * 0.2 / math.sqrt(3)
    )


def test_a_gap_is_paired_seed_by_seed():
    gap = fm.compare(TABLE, seeds=range(3)).gap("pooled", "federated", "accuracy")

    # 0.1, 0.2 and 0: a mean of 0.1 and a deviation of 0.1.
    assert gap.mean == pytest.approx(0.1)
    assert gap.half_width == pytest.approx(4.303 * 0.1 / math.sqrt(3))


def test_a_table_has_a_row_a_way_and_a_dash_where_nothing_was_measured():
    table = fm.compare(TABLE, seeds=range(3))

    assert table.rows() == [
        ["", "accuracy", "MB"],
        ["federated", "0.7000 ± 0.4969", "2.0000"],
        ["pooled", "0.8000 ± 0.4303", "–"],
    ]
    assert str(table).splitlines()[-1] == "means over 3 seeds, with 95 % intervals"
    assert table.markdown().splitlines()[3] == "| pooled | 0.8000 ± 0.4303 | – |"


def test_one_seed_has_no_interval_and_says_so():
    table = fm.compare(TABLE, seeds=[2])

    assert table.rows()[1] == ["federated", "0.9000", "2.0000"]
    assert "one seed" in str(table)


@pytest.mark.parametrize(
    ("values", "mean"),
    [((math.inf, 1.0), "inf"), ((math.nan, 1.0), "NaN"), ((math.inf, -math.inf), "NaN")],
)
def test_a_way_that_diverges_is_told_and_drawn_beside_the_others(tmp_path, values, mean):
    ways = {"lost": lambda seed: {"loss": values[seed]}, "found": lambda seed: {"loss": seed}}

    table = fm.compare(ways, seeds=range(2))

    assert table.rows()[1:] == [["lost", mean], ["found", "0.5000 ± 6.3530"]]
    assert math.isnan(table.gap("lost", "found", "loss").half_width)
    assert table.plot(tmp_path / "table.png").stat().st_size > 3000


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_is_written_in_the_form_of_its_ending(tmp_path, ending):
    path = fm.compare(TABLE, seeds=range(3)).plot(tmp_path / f"table.{ending}")

    assert path.stat().st_size > 3000


def test_a_picture_shows_the_ways_that_have_what_is_asked(tmp_path):
    path = fm.compare(TABLE, seeds=range(3)).plot(tmp_path / "table.svg", "MB")

    drawn = path.read_text("utf-8")
    assert "federated" in drawn and "pooled" not in drawn


@pytest.mark.parametrize(
    ("ways", "seeds", "told"),
    [
        ({}, [0], "at least one way"),
        (TABLE, [], "one seed"),
        (TABLE, 3, r"seeds=range\(5\), but was given a dict and seeds=3"),
        (list(TABLE.values()), [0], "functions by name"),
        (TABLE, [1, 0, 1], "A seed stands twice"),
        ({"a": lambda seed: {"loss": None}}, [4], "'a' gave 'loss' as None for seed 4"),
        ({"a": lambda seed: {}}, [0], "No way gave a number"),
        ({"a": 3}, [0], "'a' must be a function of a seed, but is 3"),
        ({"a": lambda seed: 0.5}, [7], "'a' gave float for seed 7"),
        ({"a": lambda seed: {str(seed): 1}}, [0, 1], "gave '1' for seed 1, but '0' for seed 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(ways, seeds, told):
    with pytest.raises(SettingsError, match=told):
        fm.compare(ways, seeds=seeds)


def test_what_was_not_measured_is_refused_by_name(tmp_path):
    table = fm.compare(TABLE, seeds=range(3))

    with pytest.raises(SettingsError, match="'pooled' has no 'MB'; it has 'accuracy'"):
        table.interval("pooled", "MB")
    with pytest.raises(SettingsError, match="no way 'alone'; there are 'federated', 'pooled'"):
        table.gap("pooled", "alone", "accuracy")
    with pytest.raises(SettingsError, match="No way has a 'loss'"):
        table.plot(tmp_path / "x.png", "loss")
