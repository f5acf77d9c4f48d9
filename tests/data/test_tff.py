import lzma
import sqlite3
import struct

import h5py
import numpy as np
import pytest
import torch

from folkmoot.core.errors import DataError
from folkmoot.data import from_tff


def write_hdf5(path, clients: dict[str, dict[str, np.ndarray]]):
    with h5py.File(path, "w") as file:
        examples = file.create_group("examples")
        for client, leaves in clients.items():
            group = examples.create_group(client)
            for name, values in leaves.items():
                group.create_dataset(name, data=values)
    return path


def digits(label: int, rows: int = 2) -> dict[str, np.ndarray]:
    return {
        "pixels": np.full((rows, 28, 28), label / 10, dtype=np.float32),
        "label": np.full(rows, label, dtype=np.int32),
    }


def message(pixels: list[float], label: int) -> bytes:
    def field(number: int, body: bytes) -> bytes:
        return bytes([number << 3 | 2, len(body)]) + body

    def entry(name: bytes, kind: int, packed: bytes) -> bytes:
        return field(1, field(1, name) + field(2, field(kind, field(1, packed))))

    values = struct.pack(f"<{len(pixels)}f", *pixels)
    return field(1, entry(b"pixels", 2, values) + entry(b"label", 3, bytes([label])))


def write_sqlite(path, rows: list[tuple[str, str, bytes]]):
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE examples (
            split_name TEXT NOT NULL, client_id TEXT NOT NULL,
            serialized_example_proto BLOB NOT NULL);
        CREATE INDEX idx_examples_client_id_split ON examples (split_name, client_id);
        CREATE TABLE client_metadata (
            client_id TEXT NOT NULL, split_name TEXT NOT NULL, num_examples INTEGER NOT NULL);
        """
    )
    database.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
    database.execute(
        "INSERT INTO client_metadata SELECT client_id, split_name, COUNT(*) FROM examples "
        "GROUP BY client_id, split_name"
    )
    database.commit()
    database.close()
    return path


ROWS = [
    ("train", "f0001_41", message([0.0, 0.5], 4)),
    ("train", "f0000_14", message([1.0, 0.25], 7)),
    ("train", "f0001_41", message([1.0, 1.0], 2)),
    ("test", "f0001_41", message([0.5, 0.5], 9)),
]


def test_hdf5_clients_are_read_when_asked(tmp_path):
    train = write_hdf5(tmp_path / "emnist_train.h5", {"f1": digits(3), "f0": digits(5, rows=4)})
    test = write_hdf5(tmp_path / "emnist_test.h5", {"f1": digits(3, rows=1), "f9": digits(0)})

    clients = from_tff(train, test=test)

    assert list(clients) == ["f0", "f1"]
    assert clients["f0"].train["x"].shape == (4, 28, 28)
    assert clients["f1"].train["y"].tolist() == [3, 3]
    assert clients["f1"].train["y"].dtype == torch.int64
    assert clients["f1"].test["y"].tolist() == [3]
    assert clients["f0"].test is None
    assert clients.name == "emnist_train"


def test_text_in_hdf5_needs_a_function_that_converts_it(tmp_path):
    path = write_hdf5(tmp_path / "plays.hdf5", {"ROMEO": {"snippets": np.array([b"ab", b"b"])}})

    with pytest.raises(
        DataError, match="Client 'ROMEO', train examples: column 'snippets' holds text"
    ):
        _ = from_tff(path)["ROMEO"].train
    clients = from_tff(
        path, convert=lambda leaves: {"n": torch.tensor([len(line) for line in leaves["snippets"]])}
    )

    assert clients["ROMEO"].train["n"].tolist() == [2, 1]


def test_sqlite_clients_have_their_rows_in_order_and_their_tests(tmp_path):
    clients = from_tff(write_sqlite(tmp_path / "emnist_all.sqlite", ROWS))

    assert list(clients) == ["f0000_14", "f0001_41"]
    assert clients.sizes().tolist() == [1, 2]
    assert clients["f0001_41"].train["x"].tolist() == [[0.0, 0.5], [1.0, 1.0]]
    assert clients["f0001_41"].train["y"].tolist() == [4, 2]
    assert clients["f0001_41"].test["y"].tolist() == [9]
    assert clients["f0000_14"].test is None


def test_a_packed_file_is_unpacked_once_beside_itself(tmp_path):
    plain = write_sqlite(tmp_path / "plain.sqlite", ROWS)
    packed = tmp_path / "emnist_all.sqlite.lzma"
    packed.write_bytes(lzma.compress(plain.read_bytes(), format=lzma.FORMAT_ALONE))

    clients = from_tff(packed)
    packed.write_bytes(b"gone")
    again = from_tff(packed)

    assert clients["f0000_14"].train["y"].tolist() == [7]
    assert again["f0000_14"].train["y"].tolist() == [7]
    assert clients.name == "emnist_all"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "emnist_all.sqlite",
        "emnist_all.sqlite.lzma",
        "plain.sqlite",
    ]


def test_shapes_that_sqlite_does_not_know_are_given_by_convert(tmp_path):
    path = write_sqlite(tmp_path / "emnist.sqlite", ROWS)

    clients = from_tff(
        path, convert=lambda rows: (rows["pixels"].reshape(-1, 1, 1, 2), rows["label"])
    )

    assert clients["f0001_41"].train["x"].shape == (2, 1, 1, 2)


def test_files_that_are_not_tff_s_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        from_tff(tmp_path / "emnist.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match=r"has no group 'examples', only \['data'\]"):
        from_tff(tmp_path / "other.h5")
    (tmp_path / "other.sqlite").write_text("no database at all, but a text of some length" * 50)
    with pytest.raises(DataError, match="is not a TFF database"):
        from_tff(tmp_path / "other.sqlite")
    (tmp_path / "damaged.sqlite.lzma").write_text("not packed")
    with pytest.raises(DataError, match="cannot be unpacked"):
        from_tff(tmp_path / "damaged.sqlite.lzma")
    assert not (tmp_path / "damaged.sqlite.part").exists()


def test_a_database_without_train_and_a_test_file_beside_one_are_refused(tmp_path):
    only_test = write_sqlite(tmp_path / "test.sqlite", ROWS[3:])

    with pytest.raises(DataError, match=r"has no split 'train', only \['test'\]"):
        from_tff(only_test)
    with pytest.raises(DataError, match="holds its test split itself"):
        from_tff(only_test, test=only_test)


def bare(name: bytes, value: int) -> bytes:
    """An Example with one feature of one integer."""
    inner = b"\x0a" + bytes([len(name)]) + name + b"\x12\x05\x1a\x03\x0a\x01" + bytes([value])
    return b"\x0a" + bytes([len(inner) + 2]) + b"\x0a" + bytes([len(inner)]) + inner


def test_examples_of_other_features_are_refused(tmp_path):
    rows = [("train", "ann", bare(b"age", 7)), ("train", "ann", bare(b"size", 9))]
    clients = from_tff(write_sqlite(tmp_path / "people.sqlite", rows))

    with pytest.raises(
        DataError, match=r"Client 'ann', train examples: .* the features age and another size"
    ):
        _ = clients["ann"].train


def test_a_database_that_lacks_examples_is_refused(tmp_path):
    path = write_sqlite(tmp_path / "emnist.sqlite", ROWS)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM examples WHERE client_id = 'f0000_14'")
    database.close()

    with pytest.raises(DataError, match="says 1 in client_metadata, but there are 0"):
        _ = from_tff(path)["f0000_14"].train
