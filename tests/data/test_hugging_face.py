import numpy as np
import pytest
import torch

import folkmoot as fm
from folkmoot.core.errors import DataError
from folkmoot.data import as_clients, from_hugging_face

datasets = pytest.importorskip("datasets")


def digits():
    features = datasets.Features(
        {
            "image": datasets.Array2D((2, 2), "uint8"),
            "writer_id": datasets.Value("string"),
            "character": datasets.ClassLabel(names=["0", "1", "2"]),
        }
    )
    rows = {
        "image": [np.full((2, 2), value, dtype=np.uint8) for value in (1, 2, 3, 4)],
        "writer_id": ["f1", "f0", "f1", "f1"],
        "character": [2, 0, 1, 2],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_rows_go_to_the_client_of_their_column():
    clients = from_hugging_face(digits(), client="writer_id", x="image", y="character")

    assert list(clients) == ["f0", "f1"]
    assert clients.sizes().tolist() == [1, 3]
    assert clients["f1"].train["x"][:, 0, 0].tolist() == [1, 3, 4]
    assert clients["f1"].train["x"].shape == (3, 2, 2)
    assert clients["f1"].train["y"].tolist() == [2, 1, 2]
    assert clients["f1"].train["y"].dtype == torch.int64
    assert clients.num_classes == 3


def test_columns_keep_their_names_unless_they_are_pictures_and_labels():
    rows = {"site": [1, 1, 2], "image": [[1.0], [2.0], [3.0]], "weight": [1, 2, 3]}

    clients = from_hugging_face(datasets.Dataset.from_dict(rows), client="site")

    assert set(clients[1].train) == {"x", "weight"}
    assert clients[1].train["x"].dtype == torch.float32


def test_a_second_dataset_holds_the_clients_tests():
    clients = from_hugging_face(
        digits(), client="writer_id", y="character", test=digits().select([0, 2])
    )

    assert clients["f1"].test["y"].tolist() == [2, 1]
    assert clients["f0"].test is None


def test_text_needs_a_function_that_converts_it():
    plays = datasets.Dataset.from_dict({"role": ["R", "J", "R"], "line": ["ab", "c", "d"]})

    with pytest.raises(DataError, match="Client 'R', train examples: column 'line' holds text"):
        _ = from_hugging_face(plays, client="role")["R"].train
    clients = from_hugging_face(
        plays,
        client="role",
        convert=lambda rows: {"n": np.array([len(line) for line in rows["line"]])},
    )

    assert clients["R"].train["n"].tolist() == [2, 1]


def test_what_cannot_be_clients_is_refused():
    with pytest.raises(DataError, match=r"several splits \(train\). Pass one of them"):
        from_hugging_face(datasets.DatasetDict(train=digits()), client="writer_id")
    with pytest.raises(DataError, match=r"no column 'writer'. Did you mean 'writer_id'\?"):
        from_hugging_face(digits(), client="writer")
    with pytest.raises(DataError, match="no column 'picture'"):
        from_hugging_face(digits(), client="writer_id", x="picture")
    with pytest.raises(DataError, match=r"expected a datasets.Dataset, found a list of 1"):
        from_hugging_face([1], client="writer_id")


def site(place: int, rows: int = 3):
    """One client's own Dataset, as a partitioner hands it out."""
    rows = {"image": [[float(place), 1.0]] * rows, "label": [place % 2] * rows}
    return datasets.Dataset.from_dict(rows)


@pytest.mark.parametrize(
    "sites",
    [[site(0), site(1, 2)], (site(0), site(1, 2)), {0: site(0), 1: site(1, 2)}],
    ids=["list", "tuple", "dict"],
)
def test_a_dataset_a_client_is_read_when_asked(sites):
    clients = as_clients(sites)

    assert list(clients) == [0, 1]
    assert clients.sizes().tolist() == [3, 2]
    assert clients[1].train["x"].tolist() == [[1.0, 1.0]] * 2
    assert clients[1].train["x"].dtype == torch.float32
    assert clients[1].train["y"].tolist() == [1, 1]


@pytest.mark.parametrize("form", [None, "torch", "numpy", "pandas", "arrow"])
def test_the_format_of_a_dataset_does_not_matter(form):
    clients = as_clients([site(1).with_format(form)])

    assert clients[0].train["x"].tolist() == [[1.0, 1.0]] * 3
    assert clients[0].train["y"].dtype == torch.int64


def test_a_transform_of_a_dataset_is_applied():
    def double(rows):
        return {"image": [2 * torch.tensor(x) for x in rows["image"]], "label": rows["label"]}

    clients = as_clients([site(1).with_transform(double)])

    assert clients[0].train["x"].tolist() == [[2.0, 2.0]] * 3
    assert clients[0].train["y"].tolist() == [1, 1, 1]


def test_a_run_takes_datasets_as_clients_and_as_its_test():
    work = fm.local.sgd(fm.classifier(torch.nn.Linear(2, 2)), lr=0.1)

    result = fm.run(
        fm.fedavg(work), [site(0), site(1)], test=site(1), rounds=1, seed=0, progress=False
    )

    assert "test_accuracy" in result.history[-1]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (site(0), r"from_hugging_face\(split, client='...'\), or pass a list with one Dataset"),
        (datasets.DatasetDict(train=site(0)), r"from_hugging_face\(split, client='...'\)"),
        ([site(0), site(1).select([])], "Client 1, train examples: the Dataset is empty"),
        ([site(0).to_iterable_dataset()], "Client 0, train examples: .* has no length"),
        ([datasets.DatasetDict(train=site(0))], "Client 0, .* the splits train. Pass one of them"),
    ],
    ids=["one", "splits", "empty", "a stream", "splits a client"],
)
def test_datasets_that_cannot_be_clients_are_refused_with_what_to_do(sites, message):
    with pytest.raises(DataError, match=message):
        as_clients(sites)


def test_text_in_a_client_s_dataset_is_refused_with_what_to_do():
    clients = as_clients([datasets.Dataset.from_dict({"line": ["ab", "c"], "label": [0, 1]})])

    with pytest.raises(DataError, match=r"column 'line' holds text.* with dataset.map, or leave"):
        _ = clients[0].train
