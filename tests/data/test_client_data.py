import pickle
import time

import numpy as np
import pytest
import torch

from folkmoot.core.errors import DataError
from folkmoot.data import ClientData, UnknownClientError, from_arrays, from_function


def tiny(ids=(3, 1, 2), sizes=(30, 10, 20), **options) -> ClientData:
    return ClientData(ids, lambda client: {"x": torch.full((2,), client)}, sizes=sizes, **options)


def test_ids_ascend_whatever_order_they_came_in_and_sizes_follow():
    clients = tiny()

    assert list(clients) == [1, 2, 3]
    assert clients.sizes().tolist() == [10, 20, 30]
    assert [len(clients[client]) for client in clients] == [10, 20, 30]


def test_a_million_clients_of_a_range_cost_nothing():
    start = time.perf_counter()

    clients = from_function(range(1_000_000), lambda client: {"x": torch.tensor([client])})

    assert clients.ids == range(1_000_000)
    assert clients.ids is clients._places
    assert len(clients) == 1_000_000
    assert 999_999 in clients
    assert 1_000_000 not in clients
    assert "7" not in clients
    assert clients[999_999].train["x"].item() == 999_999
    assert clients.fingerprint() != from_function(range(5), lambda client: {}).fingerprint()
    assert time.perf_counter() - start < 0.5


def test_a_falling_range_ascends():
    clients = ClientData(range(4, 0, -1), lambda client: {}, sizes=[40, 30, 20, 10])

    assert list(clients) == [1, 2, 3, 4]
    assert clients.sizes().tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("client", [np.int64(2), np.uint8(2), torch.tensor(2)])
@pytest.mark.parametrize("ids", [range(5), [1, 2, 3]])
def test_integers_of_numpy_and_torch_are_ids_too(ids, client):
    clients = ClientData(ids, lambda client: {})

    assert clients[client].id == 2
    assert type(clients[client].id) is int
    assert client in clients
    assert client + 7 not in clients


def test_ids_of_numpy_become_plain_ones():
    ids = ClientData(np.array(["b", "a"]), lambda client: {}).ids

    assert ids == ("a", "b")
    assert all(type(client) is str for client in ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, "a"], "all integers or all strings, but these hold both 1 and 'a'"),
        ([1, 2, 1], "Client id 1 is there more than once"),
        ([0.5], "an integer or a string, but 0.5 is a float"),
        ([True, False], "True is a truth value"),
        ([None], "None is a NoneType"),
        (10, "must be a sequence such as range\\(10\\)"),
        ("abc", "must be a sequence"),
        ([], "there is no client"),
        (range(0), "there is no client"),
    ],
)
def test_ids_that_cannot_be_are_refused(ids, message):
    with pytest.raises(DataError, match=message):
        ClientData(ids, lambda client: {})


def test_an_unknown_client_is_a_key_error_that_shows_the_ids():
    clients = tiny(range(100), None, name="digits")

    with pytest.raises(KeyError) as error:
        clients[100]

    assert isinstance(error.value, DataError)
    assert isinstance(error.value, UnknownClientError)
    assert str(error.value) == (
        "digits has no client 100. Its 100 ids are 0, 1, 2, 3, 4, ... up to 99."
    )
    assert clients.get(100) is None
    assert 1.5 not in clients


def test_a_misspelt_client_is_guessed():
    clients = tiny(["cleveland", "va"], None, name="hearts")

    with pytest.raises(UnknownClientError, match=r"Did you mean 'cleveland'\?"):
        clients["clevland"]


def test_an_id_of_the_wrong_kind_is_named_as_such():
    with pytest.raises(UnknownClientError, match="Ids of this set are integers, not str"):
        tiny()["1"]
    with pytest.raises(UnknownClientError, match="Ids of this set are strings, not int"):
        tiny(["a"], None)[1]


def test_examples_are_loaded_when_asked_and_not_kept():
    loaded = []
    clients = ClientData(range(3), lambda client: loaded.append(client) or {"x": torch.zeros(4)})

    client = clients[1]
    assert loaded == []
    assert len(client) == 4
    first, second = client.train, client.train

    assert first is not second
    assert loaded == [1, 1, 1]


def test_a_client_is_true_even_if_it_cannot_be_counted():
    assert ClientData(range(1), lambda client: {})[0]


def test_a_subset_keeps_sizes_tests_and_names():
    whole = tiny(test=lambda client: {"x": torch.zeros(client)}, num_classes=4, name="digits")

    part = whole.subset([3, 1])

    assert list(part) == [1, 3]
    assert part.sizes().tolist() == [10, 30]
    assert part[3].test["x"].shape == (3,)
    assert (part.name, part.num_classes, part.has_tests) == ("digits", 4, True)
    with pytest.raises(UnknownClientError, match="no client 2"):
        part[2]
    with pytest.raises(UnknownClientError, match="no client 9"):
        whole.subset([1, 9])


def test_tests_are_none_where_there_are_none():
    clients = ClientData(range(2), lambda client: {}, test=lambda client: None)

    assert clients[0].test is None
    assert tiny()[1].test is None
    assert (clients.has_tests, tiny().has_tests) == (True, False)


def test_the_representation_says_what_is_known():
    assert repr(tiny(name="digits")) == "ClientData('digits', 3 clients, 60 train examples)"
    assert repr(tiny()[3]) == "Client(3, 30 examples)"
    assert repr(ClientData(range(2), lambda client: {}, test=lambda client: None)) == (
        "ClientData('clients', 2 clients, each with tests)"
    )
    assert repr(ClientData(range(2), lambda client: {})[0]) == "Client(0)"


def test_the_fingerprint_covers_name_ids_sizes_and_content():
    prints = {
        tiny().fingerprint(),
        tiny(name="other").fingerprint(),
        tiny(ids=(1, 2, 4)).fingerprint(),
        tiny(sizes=(30, 10, 21)).fingerprint(),
        tiny(content=lambda: "something").fingerprint(),
    }

    assert len(prints) == 5
    assert tiny().fingerprint() in prints
    assert len(tiny().fingerprint()) == 64


def test_a_range_and_the_same_integers_have_one_fingerprint():
    assert tiny(range(3), None).fingerprint() == tiny([2, 0, 1], None).fingerprint()
    assert tiny(range(0, 6, 2), None).fingerprint() == tiny([0, 2, 4], None).fingerprint()


def test_the_fingerprint_of_arrays_sees_one_changed_value_and_a_moved_split():
    def of(x, split=None):
        return from_arrays({"x": x}, np.array([0, 0, 0, 1]), split=split).fingerprint()

    x = np.arange(4.0)
    changed = np.array([0.0, 1.0, 2.0, 3.5])

    assert of(x) == of(x.copy())
    assert of(x) != of(changed)
    assert of(x) != of(x[:, None])
    assert of(x, np.array([0, 0, 1, 0])) != of(x)


def test_the_mapping_works_as_one():
    clients = tiny()

    assert [client.id for client in clients.values()] == [1, 2, 3]
    assert {client: value.id for client, value in clients.items()} == {1: 1, 2: 2, 3: 3}
    assert clients == clients
    assert clients != tiny()
    assert len({clients, tiny()}) == 2


def test_an_unknown_client_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UnknownClientError("no client 7")))

    assert str(error) == "no client 7"


def test_the_size_of_one_client_is_none_where_it_is_not_known_unread():
    assert tiny().size_of(1) == 10
    assert tiny().size_of(99) is None
    assert tiny(sizes=None).size_of(1) is None
