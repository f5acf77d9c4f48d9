from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from folkmoot.core.errors import DataError
from folkmoot.data import as_examples, check_examples
from folkmoot.data.examples import count, number_of_classes


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(2), 0)])


X = torch.arange(6.0).reshape(3, 2)
Y = torch.tensor([0, 1, 0])


@pytest.mark.parametrize(
    "anything",
    [
        {"x": X, "y": Y},
        {"x": X.numpy(), "y": Y.numpy()},
        (X, Y),
        [X.numpy(), Y.numpy()],
        TensorDataset(X, Y),
        Subset(TensorDataset(X.flip(0), Y.flip(0)), [2, 1, 0]),
        Items(list(zip(X, Y, strict=True))),
        Items([{"x": x, "y": int(y)} for x, y in zip(X, Y, strict=True)]),
        Items([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)]),
        (pd.DataFrame(X.numpy().astype(float)), pd.Series(Y.numpy())),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_becomes_the_same_tree(anything):
    tree = as_examples(anything)

    assert torch.equal(tree["x"], X)
    assert torch.equal(tree["y"], Y)
    assert tree["x"].dtype == torch.float32
    assert tree["y"].dtype == torch.int64


def test_items_that_are_dicts_keep_their_names_and_nesting():
    tree = as_examples(Items([{"a": {"b": 1.5}, "c": torch.ones(2)}] * 4))

    assert tree["a"]["b"].tolist() == [1.5] * 4
    assert tree["a"]["b"].dtype == torch.float32
    assert tree["c"].shape == (4, 2)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.zeros(3), torch.float32),
        (np.zeros(3, dtype=np.float16), torch.float16),
        (np.zeros(3, dtype=np.uint8), torch.int64),
        (np.zeros((3, 4), dtype=np.uint8), torch.uint8),
        (np.zeros((3, 4), dtype=np.int32), torch.int64),
        (np.zeros(3, dtype=np.uint16), torch.int64),
        (np.zeros(3, dtype=bool), torch.bool),
        (torch.zeros(3, dtype=torch.float64), torch.float64),
        (torch.zeros(3, dtype=torch.int32), torch.int32),
    ],
    ids=str,
)
def test_numpy_is_brought_to_what_models_want_and_tensors_stay(array, dtype):
    assert as_examples({"x": array})["x"].dtype == dtype


def test_float64_stays_where_it_is_torch_s_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert as_examples({"x": np.zeros(3)})["x"].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_read_only_and_backward_arrays_are_copied_without_a_warning():
    frozen = np.arange(3)
    frozen.flags.writeable = False

    tree = as_examples({"x": frozen, "y": np.arange(3)[::-1]})

    assert tree["x"].tolist() == [0, 1, 2]
    assert tree["y"].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("anything", "message"),
    [
        ([1, 2, 3], "found a list of 3. Pass a dict of tensors"),
        (X, "found a torch.Tensor"),
        ({"x": ["a"]}, "leaf 'x' is a list of 1, not a tensor"),
        ({"x": np.array(["a"])}, "leaf 'x' holds values of dtype <U1, not numbers"),
        ({"x": {"z": None}}, "leaf 'x/z' is a NoneType"),
        ({0: {"x": X}}, "one is named 0. A dict of clients belongs to clients="),
        (Stream(), "has no length"),
        (Items([]), "the Dataset is empty"),
        (TensorDataset(X), r"has 1 part\(s\), but a pair"),
        (Items([torch.zeros(2)]), r"has 1 part\(s\), but a pair"),
        (TensorDataset(X, Y, Y), r"has 3 part\(s\)"),
        (Items([(torch.zeros(2), 0), (torch.zeros(3), 0)]), "cannot be put into one tensor"),
        (Items([("text", object())]), "cannot be put into one tensor"),
        (Items([("text", 1)]), "leaf 'x' is a"),
    ],
)
def test_what_is_no_set_of_examples_is_refused_in_one_sentence(anything, message):
    with pytest.raises(DataError, match=message):
        as_examples(anything)


def test_good_examples_are_counted():
    assert check_examples({"x": X, "y": Y}, 7, "train") == 3


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"x": X, "y": Y[:2]}, "Client 7, train examples: leaf 'x' has 3 rows but leaf 'y' has 2"),
        ({"x": X[:0], "y": Y[:0]}, "Client 7, train examples: there are none"),
        ({}, "there is no leaf at all"),
        ({"x": torch.tensor(1.0)}, "leaf 'x' is a single number"),
        ({"x": X, "y": [0, 1, 0]}, "leaf 'y' is a list of 3; every leaf must be a tensor"),
        ({"a": {"b": torch.tensor([1.0, float("nan")])}}, "leaf 'a/b' has a NaN in row 1"),
        (
            {"x": torch.tensor([[1.0, float("inf")], [0.0, 0.0]])},
            "leaf 'x' has an infinity in row 0",
        ),
    ],
)
def test_examples_that_cannot_be_trained_on_are_refused_by_client_and_leaf(tree, message):
    with pytest.raises(DataError, match=message):
        check_examples(tree, 7, "train")


def test_finite_numbers_whose_sum_overflows_pass():
    assert check_examples({"x": torch.full((2,), 3e38)}, "a", "test") == 2


def test_pooled_examples_are_named_without_a_client():
    with pytest.raises(DataError, match=r"^The test examples: there are none"):
        check_examples({"x": X[:0]}, None, "test")


def test_classes_are_counted_only_where_labels_are_integers_from_zero():
    assert number_of_classes({"y": torch.tensor([0, 3, 1])}) == 4
    for y in (torch.tensor([0.0, 1.0]), torch.tensor([-1, 1]), torch.zeros(2, 2).long(), Y[:0]):
        assert number_of_classes({"y": y}) is None
    assert number_of_classes({"x": X}) is None


def test_rows_are_counted_in_the_first_leaf_however_deep():
    assert count({"a": {}, "b": {"c": X}}) == 3
    assert count({"a": {}}) == 0


def test_any_mapping_becomes_a_dict_at_every_level():
    tree = as_examples(MappingProxyType({"a": MappingProxyType({"b": X}), "y": Y}))

    assert type(tree) is dict
    assert type(tree["a"]) is dict
    assert torch.equal(tree["a"]["b"], X)
