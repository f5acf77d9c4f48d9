import json

import pytest
import torch

from folkmoot.core.errors import DataError
from folkmoot.data import from_leaf


def write(path, users: dict[str, dict], **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "users": list(users),
        "num_samples": [len(data["y"]) for data in users.values()],
        "user_data": users,
    }
    path.write_text(json.dumps(content | changes))


F1 = {"x": [[0.5, 1.0], [0.0, 1.0]], "y": [3, 1]}
F2 = {"x": [[1.0, 1.0]], "y": [2]}


def test_users_of_all_files_are_clients_with_their_tests(tmp_path):
    write(tmp_path / "train" / "all_data_0_niid_0_keep_0_train_9.json", {"f0001": F1})
    write(tmp_path / "train" / "all_data_1_niid_0_keep_0_train_9.json", {"f0000": F2})
    write(tmp_path / "test" / "all_data_0_niid_0_keep_0_test_9.json", {"f0001": F2})

    clients = from_leaf(tmp_path, name="femnist")

    assert list(clients) == ["f0000", "f0001"]
    assert clients.sizes().tolist() == [1, 2]
    assert torch.equal(clients["f0001"].train["x"], torch.tensor(F1["x"]))
    assert clients["f0001"].train["y"].tolist() == [3, 1]
    assert clients["f0001"].train["y"].dtype == torch.int64
    assert clients["f0001"].test["y"].tolist() == [2]
    assert clients["f0000"].test is None
    assert clients.num_classes == 4


def test_one_file_or_a_folder_without_parts_is_all_train(tmp_path):
    write(tmp_path / "all_data.json", {"a": F1}, hierarchies=["play"])

    assert list(from_leaf(tmp_path)) == ["a"]
    assert from_leaf(tmp_path / "all_data.json").name == "all_data"


def test_users_without_examples_are_left_out(tmp_path):
    write(tmp_path / "all.json", {"a": F1, "b": {"x": [], "y": []}})

    assert list(from_leaf(tmp_path)) == ["a"]


def test_text_needs_a_function_that_converts_it(tmp_path):
    write(tmp_path / "all.json", {"ROMEO": {"x": ["ab", "ba"], "y": ["b", "a"]}})

    with pytest.raises(DataError, match="Client 'ROMEO', train examples: column 'x' holds text"):
        from_leaf(tmp_path)
    clients = from_leaf(
        tmp_path,
        convert=lambda user: (
            torch.tensor([[ord(c) - 97 for c in line] for line in user["x"]]),
            torch.tensor([ord(c) - 97 for c in user["y"]]),
        ),
    )

    assert clients["ROMEO"].train["x"].tolist() == [[0, 1], [1, 0]]
    assert clients["ROMEO"].train["y"].tolist() == [1, 0]


def test_rows_of_different_lengths_are_named_as_such(tmp_path):
    write(tmp_path / "all.json", {"a": {"x": [[1.0], [1.0, 2.0]], "y": [0, 1]}})

    with pytest.raises(DataError, match="column 'x' holds rows of different lengths"):
        from_leaf(tmp_path)


def test_a_split_by_user_is_refused_with_what_to_do(tmp_path):
    write(tmp_path / "train" / "a.json", {"a": F1})
    write(tmp_path / "test" / "a.json", {"b": F2})

    with pytest.raises(DataError, match=r"1 user.*such as 'b': the set was split by user"):
        from_leaf(tmp_path)
    assert list(from_leaf(tmp_path / "test")) == ["b"]


def test_files_that_are_not_leaf_s_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no .json file in"):
        from_leaf(tmp_path)
    write(tmp_path / "a.json", {"a": F1}, num_samples=[5])
    with pytest.raises(DataError, match="says 5 in num_samples, but there are 2"):
        from_leaf(tmp_path)
    write(tmp_path / "a.json", {"a": F1}, num_samples=[2, 2])
    with pytest.raises(DataError, match="not in LEAF's form"):
        from_leaf(tmp_path)
    (tmp_path / "a.json").write_text("[1, 2")
    with pytest.raises(DataError, match="not in LEAF's form"):
        from_leaf(tmp_path)


def test_a_user_in_two_files_is_refused(tmp_path):
    write(tmp_path / "a.json", {"a": F1})
    write(tmp_path / "b.json", {"a": F2})

    with pytest.raises(DataError, match=r"user 'a' is in two files, the second is .*b.json"):
        from_leaf(tmp_path)
