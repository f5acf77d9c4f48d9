"""Arrays, functions, Datasets, and what a run takes as clients=."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from folkmoot.core.errors import DataError
from folkmoot.data import (
    ClientData,
    as_clients,
    from_arrays,
    from_datasets,
    from_function,
)

X = torch.arange(10.0).reshape(5, 2)
Y = torch.tensor([0, 1, 2, 1, 0])


def test_rows_of_arrays_go_to_their_clients_in_order():
    clients = from_arrays({"x": X, "y": Y}, np.array([7, 3, 7, 7, 3]), name="five")

    assert list(clients) == [3, 7]
    assert clients[3].train["y"].tolist() == [1, 0]
    assert torch.equal(clients[7].train["x"], X[[0, 2, 3]])
    assert clients.sizes().tolist() == [2, 3]
    assert clients.num_classes == 3
    assert not clients.has_tests
    assert repr(clients) == "ClientData('five', 2 clients, 5 train examples)"


def test_rows_with_a_split_become_the_client_s_own_tests():
    clients = from_arrays((X, Y), ["a", "b", "a", "a", "b"], split=[0, 0, 1, 0, 0])

    assert clients["a"].train["y"].tolist() == [0, 1]
    assert clients["a"].test["y"].tolist() == [2]
    assert clients["b"].test is None
    assert clients.has_tests


def test_examples_of_arrays_are_views_of_one_tensor():
    clients = from_arrays({"x": X}, [0, 1, 0, 1, 0])

    pool = clients[0].train["x"].untyped_storage().data_ptr()

    assert clients[1].train["x"].untyped_storage().data_ptr() == pool


def test_nested_trees_are_sorted_too():
    clients = from_arrays({"a": {"b": X}, "y": Y}, torch.tensor([1, 0, 1, 0, 1]))

    assert torch.equal(clients[0].train["a"]["b"], X[[1, 3]])


def test_object_columns_of_text_are_ids():
    clients = from_arrays({"x": X}, pd.Series(["n", "s", "n", "s", "n"], dtype=object))

    assert list(clients) == ["n", "s"]


@pytest.mark.parametrize(
    ("client", "split", "message"),
    [
        ([0, 1], None, r"client must hold one value a row, so its shape must be \(5,\)"),
        ([0, 0, 0, 1, 1], [0, 0], "split must hold one value a row"),
        ([0, 0, 0, 1, 1], [0, 0, 0, 1, 1], r"client 1 has no train row \(1 such client\(s\)\)"),
        (np.zeros(5), None, "client ids are integers or strings, but dtype is float64"),
        (np.array([1, "a", 1, 1, 1], dtype=object), None, "but holds int and str"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(client, split, message):
    with pytest.raises(DataError, match=message):
        from_arrays({"x": X, "y": Y}, client, split=split)


def test_a_nan_in_arrays_is_found_at_its_client():
    x = X.clone()
    x[3, 1] = float("nan")

    with pytest.raises(DataError, match="Client 'b', pooled examples: leaf 'x' has a NaN in row 1"):
        from_arrays({"x": x}, ["a", "b", "a", "b", "a"])


def test_leaves_of_different_lengths_are_refused_in_arrays():
    with pytest.raises(DataError, match="leaf 'x' has 5 rows but leaf 'y' has 4"):
        from_arrays({"x": X, "y": Y[:4]}, [0] * 5)


@pytest.mark.parametrize(
    ("arrays", "client", "message"),
    [
        ({}, [0], "The pooled examples: there is no leaf at all"),
        ({"x": torch.tensor(1.0)}, [0], "The pooled examples: leaf 'x' is a single number"),
        ({"x": X[:0]}, np.arange(0), "The pooled examples: there are none"),
    ],
    ids=["no leaf", "a number", "no row"],
)
def test_arrays_without_rows_are_refused(arrays, client, message):
    with pytest.raises(DataError, match=message):
        from_arrays(arrays, client)


@pytest.mark.parametrize(
    "load",
    [
        lambda client: {"x": X[:client], "y": Y[:client]},
        lambda client: (X[:client].numpy(), Y[:client].numpy()),
        lambda client: TensorDataset(X[:client], Y[:client]),
    ],
    ids=["tree", "pair", "dataset"],
)
def test_a_function_may_return_any_form(load):
    clients = from_function([2, 4], load, test=lambda client: load(1) if client == 4 else None)

    assert torch.equal(clients[4].train["x"], X[:4])
    assert len(clients[2]) == 2
    assert clients[4].test["y"].tolist() == [0]
    assert clients[2].test is None
    assert clients.sizes() is None


def test_what_a_function_returns_is_checked_when_the_client_is_asked():
    clients = from_function(range(3), lambda client: {"x": X[:client]}, name="lazy")

    assert len(clients[1]) == 1
    with pytest.raises(DataError, match="Client 0, train examples: there are none"):
        _ = clients[0].train


def test_what_is_no_function_is_refused():
    with pytest.raises(DataError, match="load must be a function of a client id, but is a dict"):
        from_function(range(3), {0: X})


def test_a_list_of_datasets_has_places_as_ids():
    clients = from_datasets([TensorDataset(X, Y), TensorDataset(X[:2], Y[:2])])

    assert list(clients) == [0, 1]
    assert clients.sizes().tolist() == [5, 2]
    assert torch.equal(clients[1].train["x"], X[:2])


def test_a_dict_of_datasets_has_keys_as_ids_and_tests_for_some():
    clients = from_datasets({"b": (X, Y), "a": {"x": X[:3]}}, tests={"b": (X[:1], Y[:1])})

    assert list(clients) == ["a", "b"]
    assert clients.sizes().tolist() == [3, 5]
    assert clients["a"].test is None
    assert clients["b"].test["y"].tolist() == [0]
    assert clients.num_classes == 3


def test_the_fingerprint_of_trees_in_memory_covers_their_content():
    first, again = (from_datasets([(X, Y), (X, Y)]).fingerprint() for _ in range(2))

    assert first == again
    assert first != from_datasets([(X, Y), (X + 1, Y)]).fingerprint()
    assert first != from_datasets([(X, Y), (X, Y)], tests={0: (X, Y)}).fingerprint()


@pytest.mark.parametrize(
    ("datasets", "tests", "message"),
    [
        ([(X, Y), (X[:0], Y[:0])], None, "Client 1, train examples: there are none"),
        ([TensorDataset(X[:0], Y[:0])], None, "Client 0, train examples: the Dataset is empty"),
        ([(X, Y)], {1: (X, Y)}, "tests names client 1, which has no train examples"),
        ([(X, Y[:3])], None, "Client 0, train examples: leaf 'x' has 5 rows but leaf 'y' has 3"),
        ([], None, "there is no client"),
        (TensorDataset(X, Y), None, "expected a list or a dict with one data set a client"),
    ],
)
def test_datasets_that_cannot_be_clients_are_refused(datasets, tests, message):
    with pytest.raises(DataError, match=message):
        from_datasets(datasets, tests)


def test_client_data_passes_through_as_clients():
    clients = from_datasets([(X, Y)])

    assert as_clients(clients) is clients


@pytest.mark.parametrize(
    "anything",
    [
        [TensorDataset(X, Y), TensorDataset(X[:2], Y[:2])],
        [(X, Y), (X[:2], Y[:2])],
        ((X, Y), (X[:2], Y[:2])),
        [{"x": X, "y": Y}, {"x": X[:2], "y": Y[:2]}],
        {0: (X, Y), 1: TensorDataset(X[:2], Y[:2])},
    ],
    ids=["datasets", "pairs", "tuple of pairs", "trees", "dict"],
)
def test_lists_and_dicts_are_wrapped(anything):
    clients = as_clients(anything)

    assert isinstance(clients, ClientData)
    assert list(clients) == [0, 1]
    assert torch.equal(clients[1].train["x"], X[:2])


def test_single_clients_of_one_set_become_its_subset():
    whole = from_arrays((X, Y), [4, 5, 6, 4, 5])

    clients = as_clients([whole[6], whole[4]])

    assert list(clients) == [4, 6]
    assert clients.sizes().tolist() == [2, 1]


def test_single_clients_of_two_sets_are_gathered():
    first, second = from_arrays((X, Y), [0, 1, 0, 1, 0]), from_arrays((X, Y), [5] * 5)

    clients = as_clients([second[5], first[1]])

    assert list(clients) == [1, 5]
    assert clients[1].train["y"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("anything", "message"),
    [
        ("mnist_writers", r"clients, test = fm.data.load\('mnist_writers'\)"),
        ((from_datasets([(X, Y)]), {"x": X}), "unpack it first: clients, test = ..."),
        (TensorDataset(X, Y), "one data set, not one a client; split it with fm.data.partition"),
        ((X, Y), "one data set, not one a client"),
        ({"x": X, "y": Y}, "one data set, not one a client"),
        (X, "one data set, not one a client"),
        (pd.DataFrame({"a": [1]}), "fm.data.from_frame"),
        (7, "clients= is an int: pass ClientData, or a list or dict"),
        (None, "clients= is a NoneType"),
        (DataLoader(TensorDataset(X, Y)), "pass ClientData, or a list or dict"),
        ([], "there is no client"),
        ([1, 2], "Client 0, train examples: found an int"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(anything, message):
    with pytest.raises(DataError, match=message):
        as_clients(anything)
