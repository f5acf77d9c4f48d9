import math

import numpy as np
import pytest
import torch

from folkmoot.core.errors import DataError, SettingsError
from folkmoot.data import Partition

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def split(*indices: list[int], labels: np.ndarray | None = LABELS) -> Partition:
    return Partition(tuple(np.array(rows, dtype=np.int64) for rows in indices), labels, "by hand")


def test_a_row_in_two_clients_is_refused():
    with pytest.raises(DataError, match="row 3 belongs to 2 clients"):
        split([0, 1, 2, 3], [3, 4, 5, 6, 7])


def test_a_lost_row_is_refused():
    with pytest.raises(DataError, match="row 7 belongs to 0 clients"):
        split([0, 1, 2, 3], [4, 5, 6])


def test_counts_are_of_classes_in_ascending_order():
    assert split([0, 1, 4], [2, 3, 5, 6, 7]).counts().tolist() == [[2, 1], [2, 3]]


def test_the_non_iid_score_is_the_mean_total_variation_distance():
    # Shares (1, 0) and (1/4... ): client 0 has only class 0, client 1 has 2 and 4 of 6.
    partition = split([0, 1], [2, 3, 4, 5, 6, 7])

    # Everyone is (1/2, 1/2): |1 - 1/2| = 1/2, and |1/3 - 1/2| = 1/6.
    assert partition.distances().tolist() == pytest.approx([1 / 2, 1 / 6])
    assert partition.non_iid_score() == pytest.approx(1 / 3)


def test_clients_that_are_all_alike_score_nothing():
    assert split([0, 1, 4, 5], [2, 3, 6, 7]).non_iid_score() == 0


def test_the_summary_shows_sizes_entropy_and_empty_clients():
    summary = split([0, 4], [], [1, 2, 3, 5, 6, 7]).summary()

    assert "by hand: 3 clients, 8 examples" in summary
    assert "examples a client                0         2         6" in summary
    assert "label entropy, bits           1.00      1.00      1.00" in summary
    assert "empty clients                    1   ids 1" in summary


def test_the_entropy_of_one_class_is_zero_and_of_unequal_halves_as_worked_by_hand():
    summary = split([0, 1, 2], [3, 4, 5, 6, 7]).summary()

    entropy = -(0.2 * math.log2(0.2) + 0.8 * math.log2(0.8))
    assert f"{0:>10.2f}{entropy / 2:>10.2f}{entropy:>10.2f}" in summary


def test_a_partition_without_labels_has_a_summary_but_no_counts():
    partition = split([0, 2], [1], labels=None)

    assert "non-iid" not in partition.summary()
    with pytest.raises(SettingsError, match="rows have no class"):
        partition.counts()


def test_clients_get_their_rows_in_the_order_of_the_indices():
    examples = {"x": torch.arange(8.0), "y": torch.from_numpy(LABELS)}

    clients = split([5, 0, 6], [1, 2, 3, 4, 7]).clients(examples)

    assert clients.sizes().tolist() == [3, 5]
    assert clients[0].train["x"].tolist() == [5, 0, 6]
    assert clients[1].train["x"].tolist() == [1, 2, 3, 4, 7]
    assert clients[0].test is None
    assert clients.num_classes == 2


def test_a_test_part_has_the_label_law_of_its_client():
    labels = np.array([0, 1] * 50)
    examples = {"x": torch.arange(100), "y": torch.from_numpy(labels)}

    client = split(list(range(100)), labels=labels).clients(examples, test_fraction=0.2)[0]

    assert client.test["y"].tolist().count(0) == 10
    assert client.test["y"].tolist().count(1) == 10
    rows = client.train["x"].tolist() + client.test["x"].tolist()
    assert sorted(rows) == list(range(100))


@pytest.mark.parametrize(("rows", "held_out"), [(1, 0), (4, 0), (5, 1), (14, 2), (15, 3)])
def test_a_test_part_of_a_fifth_has_a_fifth_of_the_rows_rounded_down(rows, held_out):
    labels = np.zeros(rows, dtype=np.int64)
    examples = {"y": torch.from_numpy(labels)}

    client = split(list(range(rows)), labels=labels).clients(examples, test_fraction=0.2)[0]

    assert len(client) == rows - held_out
    assert (0 if client.test is None else len(client.test["y"])) == held_out


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_a_test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(SettingsError, match=r"test_fraction must be in \[0, 1\)"):
        split(list(range(8))).clients({"y": torch.from_numpy(LABELS)}, test_fraction=fraction)


def test_empty_clients_are_refused_unless_dropped_and_ids_stay():
    partition = split([0, 1, 2], [], [3, 4, 5, 6, 7])
    examples = {"y": torch.from_numpy(LABELS)}

    with pytest.raises(SettingsError, match=r"1 client\(s\) have no row \(ids 1\)"):
        partition.clients(examples)
    assert list(partition.clients(examples, drop_empty=True).ids) == [0, 2]


def test_examples_of_another_length_are_refused():
    with pytest.raises(DataError, match="have 9 rows, but 8 were partitioned"):
        split(list(range(8))).clients({"y": torch.zeros(9)})


@pytest.mark.parametrize(("num_clients", "classes"), [(3, 2), (45, 3), (200, 40)])
def test_a_picture_is_written_for_few_and_many_clients(tmp_path, num_clients, classes):
    labels = np.arange(4000) % classes
    partition = split(*np.array_split(np.arange(4000), num_clients), labels=labels)

    figure = partition.plot(tmp_path / "partition.png")

    sizes, shares = figure.axes
    assert (tmp_path / "partition.png").stat().st_size > 5_000
    assert sizes.get_ylabel() == "examples"
    assert shares.get_ylim() == (0, 1)
    assert f"{num_clients} clients" in figure.get_suptitle()


def test_a_picture_without_labels_shows_sizes_only(tmp_path):
    figure = split([0, 2], [1], labels=None).plot(tmp_path / "sizes.png")

    assert len(figure.axes) == 1
