import numpy as np
import pandas as pd
import pytest
import torch

from folkmoot.core.errors import DataError
from folkmoot.data import from_frame


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "hospital": ["west", "east", "west", "east"],
            "age": [50, 60, 70, 80],
            "pain": ["mild", "none", "none", "strong"],
            "smoker": [True, False, True, False],
            "label": [1, 0, 0, 1],
            "risk": [0.5, 0.25, 1.0, 0.0],
            "split": [0, 0, 1, 0],
        }
    )


def test_a_table_becomes_clients_of_its_column():
    frame = table()[["hospital", "age", "smoker", "label"]]

    clients = from_frame(frame, client="hospital", target="label")

    assert list(clients) == ["east", "west"]
    assert clients["west"].train["x"].tolist() == [[50, 1], [70, 1]]
    assert clients["west"].train["x"].dtype == torch.float32
    assert clients["east"].train["y"].tolist() == [0, 1]
    assert clients["east"].train["y"].dtype == torch.int64
    assert clients.num_classes == 2


def test_categories_become_columns_of_0_and_1_in_their_place():
    clients = from_frame(
        table(),
        client="hospital",
        target="risk",
        inputs=["age", "pain", "smoker"],
        one_hot=["pain"],
        split="split",
    )

    # pain is mild, none or strong.
    assert clients["east"].train["x"].tolist() == [[60, 0, 1, 0, 0], [80, 0, 0, 1, 0]]
    assert clients["west"].train["x"].tolist() == [[50, 1, 0, 0, 1]]
    assert clients["west"].test["x"].tolist() == [[70, 0, 1, 0, 1]]
    assert clients["west"].train["y"].tolist() == [0.5]
    assert clients["west"].train["y"].dtype == torch.float32


def test_pandas_own_categories_and_nullable_numbers_are_read():
    frame = table()[["hospital", "age", "pain", "label"]].astype(
        {"pain": "category", "age": "Int64", "label": "boolean", "hospital": "category"}
    )

    clients = from_frame(frame, client="hospital", target="label", one_hot=["pain"])

    assert clients["east"].train["x"].tolist() == [[60, 0, 1, 0], [80, 0, 0, 1]]
    assert clients["east"].train["y"].tolist() == [0, 1]


def test_two_targets_make_a_matrix_of_floats():
    clients = from_frame(table(), client="hospital", target=["risk", "label"], inputs=["age"])

    assert clients["west"].train["y"].tolist() == [[0.5, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"client": "hospitals", "target": "label"},
            r"client column 'hospitals'. Did you mean 'hospital'\? Its columns are 'hospital'",
        ),
        ({"client": "hospital", "target": "outcome"}, "no target column 'outcome'"),
        ({"client": "hospital", "target": "label", "split": "fold"}, "no split column 'fold'"),
        ({"client": "hospital", "target": "label", "inputs": ["ages"]}, "no inputs column 'ages'"),
        (
            {"client": "hospital", "target": "label", "one_hot": ["race"]},
            "no one_hot column 'race'",
        ),
        (
            {"client": "hospital", "target": "label", "inputs": ["age"], "one_hot": ["pain"]},
            "one_hot names 'pain', which is not among the inputs",
        ),
        (
            {"client": "hospital", "target": "label"},
            r"input column 'pain' holds .*'mild'\), not numbers. Name it in one_hot=\['pain'\]",
        ),
        (
            {"client": "hospital", "target": "pain", "inputs": ["age"]},
            r"target column 'pain' holds .*astype\('category'\).cat.codes",
        ),
        ({"client": "hospital", "target": "label", "inputs": []}, "no column is left for x"),
        ({"client": "hospital", "target": [], "inputs": ["age"]}, "no column is left for y"),
    ],
)
def test_columns_that_cannot_serve_are_refused_by_name(options, message):
    with pytest.raises(DataError, match=message):
        from_frame(table(), **options)


def test_missing_values_are_refused_with_their_columns_and_counts():
    frame = table()[["hospital", "age", "risk", "label"]].astype({"age": float})
    frame.loc[[0, 2], "age"] = np.nan
    frame.loc[1, "hospital"] = None

    with pytest.raises(
        DataError, match=r"of 4 rows, 'hospital' misses 1, 'age' misses 2. Fill the"
    ):
        from_frame(frame, client="hospital", target="label")


def test_what_is_no_table_is_refused():
    with pytest.raises(DataError, match="expected a pandas DataFrame, found dict"):
        from_frame({"hospital": [1]}, client="hospital", target="label")


@pytest.mark.parametrize("twice", ["hospital", "age", "label", "split"])
def test_a_column_that_stands_twice_is_refused(twice):
    frame = table()[["hospital", "age", "label", "split"]]
    doubled = pd.concat([frame, frame[[twice]]], axis=1)

    with pytest.raises(
        DataError, match=rf"^frame: the table has 2 columns {twice!r}, and which is meant cannot be"
    ):
        from_frame(doubled, client="hospital", target="label", split="split")


def test_a_doubled_column_that_is_not_used_does_no_harm():
    doubled = pd.concat([table(), table()[["risk"]]], axis=1)

    clients = from_frame(doubled, client="hospital", target="label", inputs=["age"])

    assert clients["west"].train["x"].tolist() == [[50], [70]]


def test_columns_of_two_levels_are_refused():
    frame = table()[["hospital", "age", "label"]]
    levels = pd.concat({"all": frame}, axis=1)

    with pytest.raises(DataError, match=r"columns have 2 levels.* frame.columns = frame.columns"):
        from_frame(levels, client="all", target="age")


def test_a_table_without_a_header_is_read_by_the_numbers_of_its_columns():
    frame = pd.DataFrame([[7, 1.0, 0], [8, 2.0, 1]])

    clients = from_frame(frame, client=0, target=2)

    assert clients[8].train["x"].tolist() == [[2.0]]
    assert clients[8].train["y"].tolist() == [1]
