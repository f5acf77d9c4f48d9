import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from folkmoot.core.errors import DataError
from folkmoot.data import from_folder


def save(folder, part, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{part}.npz", **arrays)


def test_each_folder_is_a_client_and_each_form_is_read(tmp_path):
    save(tmp_path / "north", "train", x=np.ones((3, 2)), y=np.array([0, 1, 1], dtype=np.int32))
    save(tmp_path / "north", "test", x=np.zeros((1, 2)), y=np.array([1]))
    (tmp_path / "south").mkdir()
    save_file(
        {"x": torch.ones(2, 2), "y": torch.tensor([1, 0])}, tmp_path / "south/train.safetensors"
    )
    (tmp_path / "west").mkdir()
    (tmp_path / "west" / "train.csv").write_text("a,label,b\n1,0,2.5\n3,1,4\n")

    clients = from_folder(tmp_path, name="coast")

    assert list(clients) == ["north", "south", "west"]
    assert [len(clients[client]) for client in clients] == [3, 2, 2]
    assert clients["north"].test["y"].tolist() == [1]
    assert clients["south"].test is None
    assert clients["west"].train["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert clients["west"].train["y"].tolist() == [0, 1]
    assert {clients[client].train["x"].dtype for client in clients} == {torch.float32}
    assert {clients[client].train["y"].dtype for client in clients} == {torch.int64}
    assert clients.sizes() is None


def test_folders_named_by_numbers_have_integers_as_ids(tmp_path):
    for name in ("10", "9"):
        save(tmp_path / name, "train", x=np.ones(1))

    assert list(from_folder(tmp_path)) == [9, 10]


def test_one_name_that_is_no_plain_number_makes_all_ids_text(tmp_path):
    for name in ("10", "09"):
        save(tmp_path / name, "train", x=np.ones(1))

    assert list(from_folder(tmp_path)) == ["09", "10"]


def test_the_fingerprint_changes_when_a_file_does(tmp_path):
    save(tmp_path / "a", "train", x=np.ones(1))
    before = from_folder(tmp_path).fingerprint()

    save(tmp_path / "a", "train", x=np.ones(2))

    assert from_folder(tmp_path).fingerprint() != before


def test_a_target_with_fractions_stays_a_float(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.csv").write_text("price,size\n1.5,2\n2,3\n")

    train = from_folder(tmp_path, target="price")["a"].train

    assert train["y"].tolist() == [1.5, 2.0]


def test_folders_that_cannot_be_clients_are_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        from_folder(tmp_path / "nowhere")
    (tmp_path / "train.npz").touch()
    with pytest.raises(
        DataError, match=r"holds no folder; found train.npz. Expected <client>/train"
    ):
        from_folder(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="client 'a' has no train file"):
        from_folder(tmp_path)
    (tmp_path / "a" / "train.npz").touch()
    (tmp_path / "a" / "train.csv").touch()
    with pytest.raises(DataError, match=r"holds both train.npz and train.csv. Keep one"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column 'label' to be y"),
        ("a,label\nred,1\n", "holds text"),
        ("a,label\n,1\n", "leaf 'x' has a NaN in row 0"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_with_their_client(tmp_path, text, message):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "train.csv").write_text(text)

    with pytest.raises(DataError, match=rf"Client 'site'.*{message}"):
        _ = from_folder(tmp_path)["site"].train


def test_pickled_objects_are_never_loaded(tmp_path):
    save(tmp_path / "site", "train", x=np.array([{"a": 1}], dtype=object))

    with pytest.raises(DataError, match=r"Client 'site'.*cannot be read"):
        _ = from_folder(tmp_path)["site"].train
