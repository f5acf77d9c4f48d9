import numpy as np
import pytest
import torch

from folkmoot.core.errors import DataError
from folkmoot.data import from_hugging_face

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
