"""Trees: order, arithmetic by hand, and what must not be touched."""

import pytest
import torch
from torch import tensor

from folkmoot.core import tree as trees


def nest():
    return {"a": {"x": tensor([1.0, 2.0]), "y": tensor(3.0)}, "b": tensor([[4.0]])}


def numbers(tree):
    return {trees.name(path): leaf.tolist() for path, leaf in trees.items(tree)}


def test_leaves_and_paths_stand_in_the_order_of_the_dicts():
    tree = {"z": tensor(1), "a": {"q": tensor(2), "b": tensor(3)}}

    assert [leaf.item() for leaf in trees.leaves(tree)] == [1, 2, 3]
    assert [path for path, _ in trees.items(tree)] == [("z",), ("a", "q"), ("a", "b")]
    assert trees.name(("params", "fc1.weight")) == "params/fc1.weight"


def test_build_undoes_items_and_empties():
    tree = {"a": {"x": tensor([1.0]), "none": {}}, "b": tensor(2.0), "c": {}}

    built = trees.build(trees.items(tree), trees.empties(tree))

    assert trees.empties(tree) == [("a", "none"), ("c",)]
    assert built == {"a": {"x": tree["a"]["x"], "none": {}}, "b": tree["b"], "c": {}}


def test_like_fills_the_structure_in_order():
    filled = trees.like(nest(), [tensor(7.0), tensor(8.0), tensor(9.0)])

    assert numbers(filled) == {"a/x": 7.0, "a/y": 8.0, "b": 9.0}


def test_map_takes_trees_side_by_side():
    mapped = trees.map(lambda left, right: left - 2 * right, nest(), nest())

    assert numbers(mapped) == {"a/x": [-1.0, -2.0], "a/y": -3.0, "b": [[-4.0]]}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (trees.add(nest(), nest()), {"a/x": [2.0, 4.0], "a/y": 6.0, "b": [[8.0]]}),
        (trees.sub(nest(), nest()), {"a/x": [0.0, 0.0], "a/y": 0.0, "b": [[0.0]]}),
        (trees.scale(3.0, nest()), {"a/x": [3.0, 6.0], "a/y": 9.0, "b": [[12.0]]}),
        (trees.scale(tensor(0.5), nest()), {"a/x": [0.5, 1.0], "a/y": 1.5, "b": [[2.0]]}),
        (trees.axpy(-2.0, nest(), nest()), {"a/x": [-1.0, -2.0], "a/y": -3.0, "b": [[-4.0]]}),
        (trees.axpy(tensor(4.0), nest(), nest()), {"a/x": [5.0, 10.0], "a/y": 15.0, "b": [[20.0]]}),
        (trees.zeros_like(nest()), {"a/x": [0.0, 0.0], "a/y": 0.0, "b": [[0.0]]}),
    ],
    ids=["add", "sub", "scale", "scale by tensor", "axpy", "axpy by tensor", "zeros"],
)
def test_arithmetic_is_as_worked_by_hand(result, expected):
    assert numbers(result) == expected


def test_functions_without_an_underscore_leave_their_arguments_alone():
    a, b = nest(), nest()

    trees.add(a, b), trees.sub(a, b), trees.scale(2.0, a), trees.axpy(2.0, a, b)

    assert numbers(a) == numbers(b) == numbers(nest())


def test_functions_with_an_underscore_write_into_their_first_argument_only():
    y, x, target = nest(), nest(), nest()
    memory = [leaf.data_ptr() for leaf in trees.leaves(y)]

    trees.axpy_(y, 2.0, x)
    trees.copy_(target, y)

    assert numbers(y) == {"a/x": [3.0, 6.0], "a/y": 9.0, "b": [[12.0]]}
    assert [leaf.data_ptr() for leaf in trees.leaves(y)] == memory
    assert numbers(x) == numbers(nest())
    assert numbers(target) == numbers(y)
    assert target["b"].data_ptr() != y["b"].data_ptr()


def test_a_clone_shares_no_memory():
    tree = nest()

    trees.clone(tree)["a"]["x"].zero_()

    assert numbers(tree) == numbers(nest())


@pytest.mark.parametrize(
    "join",
    [
        trees.add,
        lambda a, b: trees.axpy(1.0, b, a),
        lambda a, b: trees.axpy_(a, 1.0, b) or a,
        lambda a, b: trees.sub(a, trees.scale(-1.0, b)),
    ],
    ids=["add", "axpy", "axpy_", "sub"],
)
def test_leaves_meet_by_key_where_dicts_stand_in_another_order(join):
    a = {"u": tensor([1.0]), "in": {"v": tensor([2.0]), "w": tensor([3.0])}}
    b = {"in": {"w": tensor([30.0]), "v": tensor([20.0])}, "u": tensor([10.0])}

    assert numbers(join(a, b)) == {"u": [11.0], "in/v": [22.0], "in/w": [33.0]}


def test_copying_goes_by_key_too():
    a, b = {"u": tensor([1.0]), "v": tensor([2.0])}, {"v": tensor([5.0]), "u": tensor([3.0])}

    trees.copy_(a, b)

    assert numbers(a) == {"u": [3.0], "v": [5.0]}


def test_arithmetic_with_a_leaf_too_many_is_refused():
    with pytest.raises(KeyError, match="a, b"):
        trees.add(nest(), {**nest(), "c": tensor(1.0)})


@pytest.mark.parametrize("empty", [{}, {"a": {}}, {"a": {"b": {}}}], ids=str)
def test_empty_trees_pass_through_everything(empty):
    trees.axpy_(empty, 2.0, empty)
    trees.copy_(empty, empty)

    assert trees.add(empty, empty) == trees.sub(empty, empty) == empty
    assert trees.scale(2.0, empty) == trees.axpy(2.0, empty, empty) == empty
    assert trees.clone(empty) == trees.zeros_like(empty) == empty
    assert trees.norm(empty).item() == 0.0
    assert trees.num_bytes(empty) == 0


def test_the_norm_is_over_all_leaves_and_in_double_precision():
    assert trees.norm({"u": tensor([3.0]), "v": {"w": tensor([[4.0]])}}).item() == 5.0
    # The square of 3e30 is no float32 number.
    big = trees.norm({"u": tensor([3e30]), "v": tensor([4e30])})
    assert big.dtype == torch.float64
    assert big.item() == pytest.approx(5e30, rel=1e-6)


def test_bytes_count_each_dtype_by_its_width():
    tree = {
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "count": torch.zeros((), dtype=torch.int64),
        "flag": torch.zeros(5, dtype=torch.bool),
    }

    assert trees.num_bytes(tree) == 3 * 2 + 8 + 5
