"""`folkmoot list`: every kind has names, each with a sentence."""

import json

import pytest

from folkmoot.data.load import SETS

SOME = {
    "algorithms": {"fedavg", "fedprox"},
    "codecs": {"clip"},
    "aggregators": {"weighted_mean", "uniform_mean", "total"},
    "data": set(SETS),
    "optimizers": {"sgd", "adam", "adagrad", "adamw", "yogi"},
    "engines": {"sequential", "parallel", "auto"},
}


@pytest.mark.parametrize("kind", SOME)
def test_every_kind_is_listed_with_one_sentence_a_name(folkmoot, kind):
    ended = folkmoot(f"list {kind} --json")

    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert SOME[kind] <= {row["name"] for row in rows}
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    for row in rows:
        assert row["sentence"].endswith(".")
        assert "\n" not in row["sentence"]


def test_the_table_shows_names_and_sentences(folkmoot):
    shown = folkmoot("list codecs").stdout

    [line] = [line for line in shown.splitlines() if line.startswith("clip ")]
    assert line.split(maxsplit=1)[1].startswith("Scale each client's update into the unit ball")


def test_an_unknown_kind_is_refused_with_the_known_ones(folkmoot):
    ended = folkmoot("list models")

    assert ended.exit_code == 2
    assert "aggregators" in ended.stderr
