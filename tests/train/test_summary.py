"""A run in words: numbers as people write them, and what is said of a run."""

import math

import pytest

from folkmoot.train.summary import as_text, duration, facts, headline, number, scores, size, spreads


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_340, "12.3 kB"), (999_700, "1.0 MB"),
     (611_000_000, "611 MB"), (2.5e9, "2.5 GB"), (3e15, "3,000.0 TB")],
)  # fmt: skip
def test_bytes_are_written_in_powers_of_a_thousand(amount, text):
    assert size(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (9.999, "10.0 s"), (59.96, "1 min 00 s"), (185, "3 min 05 s"),
     (7620, "2 h 07 min")],
)  # fmt: skip
def test_seconds_are_written_as_people_do(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5000"), (0.0, "0.0000"), (0.00012, "0.00012"), (12345.6, "1.235e+04"),
     (math.nan, "NaN"), (-math.inf, "-inf")],
)  # fmt: skip
def test_metrics_have_four_decimals_or_four_digits(value, text):
    assert number(value) == text


def test_scores_are_the_last_evaluated_round_and_the_best_one(judged):
    found = scores(judged)

    assert found.columns == ["final\nround 3", "best\nround 2"]
    assert found.rows == [("accuracy", [0.75, 0.875]), ("loss", [0.25, 0.125])]


def test_spreads_are_the_final_quantiles_over_clients(judged):
    found = spreads(judged)

    headings = ["all\ntogether", "p10", "median", "p90", "worst\ndecile", "std"]
    assert found.columns == headings
    assert found.rows[0] == ("accuracy", [0.5, 0.25, 0.5, 1.0, 0.25, 0.75])


def test_a_stored_run_without_a_column_is_shown_without_it(by_hand):
    row = {"evaluated": True, "clients_rmse": 2.0, "clients_rmse_worst_decile": 3.0}
    result = by_hand(row)

    assert spreads(result).columns == ["all\ntogether", "worst\ndecile"]
    assert spreads(result).rows == [("rmse", [2.0, 3.0])]
    assert "NaN" not in as_text(result)


def test_without_a_held_out_set_scores_are_of_all_clients(by_hand):
    row = {"evaluated": True, "clients_rmse": 2.0, "clients_rmse_worst_decile": 3.0}
    result = by_hand(row)

    assert scores(result).columns == ["of all clients, final\nround 1"]
    assert scores(result).rows == [("rmse", [2.0])]


def test_the_headline_names_data_rounds_cohort_and_seed(by_hand):
    settings = {"data": "toys", "rounds": 9, "population": 5000, "expected_cohort": 50.0, "seed": 3}
    result = by_hand({}, {}, settings=settings)

    assert headline(result) == "toys, 2 of 9 rounds, 50 of 5,000 clients a round, seed 3"


def test_the_first_three_who_were_left_out_are_named_with_their_reasons(by_hand):
    lost = [[client, "too late"] for client in ("a", "b", "a", "c", "d")]

    said = dict(facts(by_hand({"left_out": lost[:2]}, {"left_out": lost[2:]})))["left out"]

    assert said.splitlines() == [
        "5 answers of 4 clients",
        "round 1, client a: too late",
        "round 1, client b: too late",
        "round 2, client a: too late",
        "and 2 more, in result.left_out",
    ]


def test_time_names_client_work_evaluation_overhead_and_the_rest(by_hand):
    said = dict(facts(by_hand({})))["time"]

    # 10 seconds in all, of which 4 + 3 + 2 are accounted for.
    assert said == (
        "10.0 s: client work 4.00 s, evaluation 3.00 s, overhead 2.00 s, start and end 1.00 s"
    )


def test_a_run_is_a_table_of_at_most_80_columns(judged):
    lines = as_text(judged).splitlines()

    assert lines[:6] == [
        "a run",
        "toys, 3 rounds, seed 7",
        "",
        "                      final     best",
        "                    round 3  round 2",
        "accuracy             0.7500   0.8750",
    ]
    assert lines[8:11] == [
        "                         all                           worst",
        "clients' own tests  together     p10  median     p90  decile     std",
        "accuracy              0.5000  0.2500  0.5000  1.0000  0.2500  0.7500",
    ]
    assert "traffic      3.0 kB up, 6.0 kB down" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("rows", [[], [{}]], ids=["no round", "no evaluation"])
def test_a_run_without_any_evaluation_is_said_to_be_one(by_hand, rows):
    assert "No round was evaluated: give fm.run() test=" in as_text(by_hand(*rows))


def test_square_brackets_in_names_are_text_and_not_markup(by_hand):
    result = by_hand({"left_out": [["[red]", "[/x] failed"]]}, settings={"name": "[bold]a"})

    assert as_text(result).startswith("[bold]a\n")
    assert "client [red]: [/x] failed" in as_text(result)
