"""Laws of all partitioners, then what each of them promises."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.errors import SettingsError
from folkmoot.data import partition
from folkmoot.data.dealing import apportion

PARTITIONERS = {
    "iid": partition.iid,
    "dirichlet 0.1": partial(partition.dirichlet, alpha=0.1, min_per_client=0),
    "dirichlet 1e-300": partial(partition.dirichlet, alpha=1e-300, min_per_client=0),
    "dirichlet 100": partial(partition.dirichlet, alpha=100, min_per_client=0),
    "shards 2": partial(partition.shards, shards_per_client=2),
    "shards 3": partial(partition.shards, shards_per_client=3),
    "classes 2": partial(partition.classes_per_client, classes=2),
    "classes 3": partial(partition.classes_per_client, classes=3),
    "quantity 0.3": partial(partition.quantity_skew, alpha=0.3),
    "quantity, no minimum": partial(partition.quantity_skew, alpha=0.01, min_per_client=0),
}
every_partitioner = pytest.mark.parametrize("make", PARTITIONERS.values(), ids=PARTITIONERS)


def some_labels(rows: int = 997, classes: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, rows)


def rows_of(split: partition.Partition) -> list[list[int]]:
    return [rows.tolist() for rows in split.indices]


@every_partitioner
@pytest.mark.parametrize("num_clients", [4, 13, 30])
def test_every_row_belongs_to_exactly_one_client(make, num_clients):
    labels = some_labels()

    split = make(labels, num_clients, seed=5)

    assert len(split.indices) == num_clients
    assert sorted(np.concatenate(split.indices).tolist()) == list(range(len(labels)))


@every_partitioner
def test_equal_seeds_give_equal_partitions_and_others_do_not(make):
    labels = some_labels()

    first, again, other = (make(labels, 12, seed=seed) for seed in (1, 1, 2))

    assert rows_of(first) == rows_of(again)
    assert rows_of(first) != rows_of(other)


@every_partitioner
def test_no_partitioner_reads_or_moves_a_global_generator(make):
    labels = some_labels()
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()

    first = make(labels, 6, seed=1)
    np.random.seed(99)
    second = make(labels, 6, seed=1)

    assert rows_of(first) == rows_of(second)
    np.random.seed(0)
    assert np.random.get_state()[1].tolist() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@every_partitioner
def test_labels_and_a_pooled_set_give_the_same_partition(make):
    labels = some_labels()
    examples = {"x": torch.zeros(len(labels), 2), "y": torch.from_numpy(labels)}

    assert rows_of(make(labels, 5, seed=1)) == rows_of(make(examples, 5, seed=1))


@every_partitioner
@pytest.mark.parametrize(
    ("num_clients", "message"),
    [(0, "at least 1, but is 0"), (2.5, "must be an integer, but is 2.5")],
)
def test_a_number_of_clients_that_is_none_is_refused(make, num_clients, message):
    with pytest.raises(SettingsError, match=message):
        make(some_labels(), num_clients)


@pytest.mark.parametrize("name", ["iid", "shards 2", "shards 3", "classes 2", "quantity 0.3"])
def test_more_clients_than_rows_are_refused(name):
    with pytest.raises(SettingsError, match=r"but there are 10\. Use fewer clients"):
        PARTITIONERS[name](np.arange(10) % 3, 11)


@settings(max_examples=200, deadline=None)
@given(
    totals=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    parts=st.integers(1, 50),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_largest_remainders_lose_no_row_and_stay_within_one_of_the_share(
    totals, parts, alpha, seed
):
    shares = np.random.default_rng(seed).dirichlet(np.full(parts, alpha), size=len(totals))
    wanted = shares * np.array(totals)[:, None]

    counts = apportion(np.array(totals), shares)

    assert counts.sum(axis=1).tolist() == totals
    assert (np.abs(counts - wanted) < 1 + 1e-9).all()
    assert (counts >= 0).all()


def test_largest_remainders_as_worked_by_hand():
    # 10 * (0.26, 0.37, 0.37) = 2.6, 3.7, 3.7: floors 2, 3, 3, and the two larger remainders get
    # one.
    assert apportion(np.array([10]), np.array([[0.26, 0.37, 0.37]])).tolist() == [[2, 4, 4]]
    # A tie goes to the earlier part: 7 / 2 = 3.5 each.
    assert apportion(np.array([7]), np.array([[0.5, 0.5]])).tolist() == [[4, 3]]


def test_iid_sizes_differ_by_at_most_one():
    assert sorted(partition.iid(some_labels(10), 4).sizes().tolist()) == [2, 2, 3, 3]


def test_iid_and_quantity_skew_need_no_classes():
    regression = {"x": torch.zeros(20, 3), "y": torch.randn(20, 1)}

    assert partition.iid(regression, 4).labels is None
    assert partition.quantity_skew(regression, 4, alpha=1.0).labels is None


def test_a_small_alpha_is_further_from_iid_than_a_large_one():
    labels = some_labels(5000)

    scores = [
        partition.dirichlet(labels, 20, alpha=alpha, seed=1).non_iid_score()
        for alpha in (0.1, 1.0, 1000.0)
    ]

    assert scores[0] > scores[1] > scores[2]
    assert scores[0] > 0.5
    assert scores[2] < 0.05


def test_dirichlet_holds_the_minimum_when_some_draw_does():
    split = partition.dirichlet(some_labels(2000), 20, alpha=0.5, min_per_client=40, seed=0)

    assert split.sizes().min() >= 40


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [partition.dirichlet, partition.quantity_skew])
def test_an_alpha_that_is_no_positive_number_is_refused(make, alpha):
    with pytest.raises(SettingsError, match="alpha must be a finite number above 0"):
        make(some_labels(), 5, alpha=alpha)


def test_a_negative_minimum_is_refused():
    with pytest.raises(SettingsError, match="at least -1 rows"):
        partition.dirichlet(some_labels(), 5, alpha=1.0, min_per_client=-1)


def test_shards_give_most_clients_two_classes():
    labels = np.repeat(np.arange(10), 600)

    split = partition.shards(labels, 100)

    # 200 shards of 30 rows; 600 rows a class are exactly 20 shards, so no shard mixes two classes.
    assert set(split.sizes().tolist()) == {60}
    assert (split.counts() > 0).sum(axis=1).max() == 2


def test_each_client_has_exactly_the_classes_it_was_promised():
    labels = np.repeat(np.arange(10), 60)

    split = partition.classes_per_client(labels, 30, classes=3, seed=2)

    assert set((split.counts() > 0).sum(axis=1).tolist()) == {3}
    # 30 clients * 3 classes / 10 classes = 9 holders of each class.
    assert (split.counts() > 0).sum(axis=0).tolist() == [9] * 10


def test_a_class_that_nobody_would_hold_is_refused():
    with pytest.raises(SettingsError, match=r"leave 4 class\(es\) to nobody"):
        partition.classes_per_client(np.arange(100) % 10, 3, classes=2)


def test_more_classes_a_client_than_there_are_is_refused():
    with pytest.raises(SettingsError, match="only 10 classes"):
        partition.classes_per_client(np.arange(100) % 10, 3, classes=11)


def test_a_class_with_fewer_rows_than_holders_is_refused():
    labels = np.array([0] * 50 + [1] * 2)

    with pytest.raises(
        SettingsError, match=r"class 1 has 2 row\(s\), but 5 clients are to hold it"
    ):
        partition.classes_per_client(labels, 5, classes=2)


def test_by_column_makes_a_client_of_every_value():
    examples = {"x": torch.arange(5.0)[:, None], "y": torch.tensor([0, 1, 0, 1, 0])}

    split = partition.by_column(examples, np.array(["b", "a", "b", "c", "a"]))

    assert list(split.ids) == ["a", "b", "c"]
    assert rows_of(split) == [[1, 4], [0, 2], [3]]
    assert list(split.clients(examples).ids) == ["a", "b", "c"]


def test_by_column_takes_the_name_of_a_leaf():
    examples = {"x": torch.zeros(4, 1), "site": torch.tensor([7, 3, 7, 7])}

    assert list(partition.by_column(examples, "site").ids) == [3, 7]
    with pytest.raises(SettingsError, match=r"no such leaf, only \['x', 'site'\]"):
        partition.by_column(examples, "sight")


def test_by_column_refuses_a_column_of_another_length():
    with pytest.raises(SettingsError, match=r"shape must be \(4,\), but is \(3,\)"):
        partition.by_column(np.zeros(4, dtype=int), np.array([1, 2, 3]))


def test_quantity_skew_moves_sizes_but_hardly_labels():
    labels = some_labels(20_000, 4)

    split = partition.quantity_skew(labels, 10, alpha=0.3, min_per_client=100, seed=3)

    assert split.sizes().min() >= 100
    assert split.sizes().max() > 5 * split.sizes().min()
    assert split.non_iid_score() < 0.1


@pytest.mark.parametrize("name", ["dirichlet", "shards", "classes_per_client"])
@pytest.mark.parametrize(
    "examples",
    [{"x": torch.zeros(9, 1)}, {"x": torch.zeros(9, 1), "y": torch.zeros(9)}, np.linspace(0, 1, 9)],
    ids=["no y", "float y", "float labels"],
)
def test_partitions_by_class_refuse_sets_without_classes(name, examples):
    options = {"dirichlet": {"alpha": 1.0}, "classes_per_client": {"classes": 1}}.get(name, {})

    with pytest.raises(SettingsError, match=f"{name} deals by class, so it needs one integer"):
        getattr(partition, name)(examples, 3, **options)


def test_labels_may_be_text():
    labels = np.array(["cat", "dog"] * 10)

    split = partition.classes_per_client(labels, 4, classes=1)

    assert (split.counts() > 0).sum(axis=1).tolist() == [1, 1, 1, 1]
