"""Trees as bytes: every dtype and shape comes back bit for bit, and strangers' bytes do no harm."""

import pickle

import pytest
import torch
from safetensors.torch import save
from torch import tensor

from folkmoot.core import tree as trees
from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
]


def returned(tree):
    found, _ = wire.from_bytes(wire.to_bytes(tree))
    return found


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_comes_back(dtype, shape):
    size = torch.Size(shape).numel()
    leaf = (torch.arange(size) % 3 - 1).to(dtype).reshape(shape)

    found = returned({"in": {"leaf": leaf}})["in"]["leaf"]

    assert (found.dtype, found.shape) == (dtype, leaf.shape)
    assert found.tolist() == leaf.tolist()


def test_bfloat16_comes_back_with_its_bits():
    bits = tensor([0x3F80, 0x3F81, 0xC2F7 - 0x10000, 0x0001], dtype=torch.int16)

    found = returned({"leaf": bits.view(torch.bfloat16)})["leaf"]

    assert found.dtype == torch.bfloat16
    assert found.view(torch.int16).tolist() == bits.tolist()


def test_negative_zero_infinity_and_the_payload_of_a_nan_come_back():
    bits = tensor([-(2**31), 0x7F800000, 0x7FC01234, 0x7FC00000], dtype=torch.int32)

    found = returned({"leaf": bits.view(torch.float32)})["leaf"]

    assert found.view(torch.int32).tolist() == bits.tolist()


def test_a_counter_stays_an_int64_scalar():
    found = returned({"counts": {"bn.num_batches_tracked": tensor(0)}})

    counter = found["counts"]["bn.num_batches_tracked"]
    assert (counter.dtype, counter.shape, counter.item()) == (torch.int64, (), 0)


@pytest.mark.parametrize(
    "tree", [{}, {"a": {}}, {"a": {}, "b": {"c": {}}}, {"a": {"x": 1, "none": {}}}], ids=str
)
def test_empty_dicts_come_back(tree):
    tree = {key: {**part, "x": tensor(1)} if "x" in part else part for key, part in tree.items()}

    assert returned(tree) == tree


@pytest.mark.parametrize(
    "key", ["0.conv.weight", "a/b", "a%2Fb", "%", "/", "25%/%25", "", " ", "ä", "\n", '"']
)
def test_any_key_comes_back(key):
    found = returned(
        {"params": {key: tensor([1.0]), f"{key}x": tensor([2.0])}, key: {"y": tensor(3)}}
    )

    assert list(found) == ["params", key]
    assert found["params"][key].item() == 1.0
    assert found["params"][f"{key}x"].item() == 2.0
    assert found[key]["y"].item() == 3


def test_leaves_that_share_memory_come_back_as_values_of_their_own():
    memory = torch.arange(6.0)
    tree = {
        "one": memory,
        "two": memory,
        "part": memory[2:4],
        "turned": memory.view(2, 3).T,
        "spread": tensor([7.0]).expand(3),
    }

    found = returned(tree)

    assert {key: leaf.tolist() for key, leaf in found.items()} == {
        key: leaf.tolist() for key, leaf in tree.items()
    }
    found["one"].zero_()
    assert found["two"].tolist() == found["two"].clone().tolist() == [0, 1, 2, 3, 4, 5]


def test_the_order_of_leaves_and_the_header_travel():
    tree = {
        "z": tensor(1, dtype=torch.int8),
        "a": tensor([1.0]),
        "m": {"q": tensor(1), "b": tensor(2)},
    }

    found, header = wire.from_bytes(wire.to_bytes(tree, {"round": "7"}))

    assert [trees.name(path) for path, _ in trees.items(found)] == ["z", "a", "m/q", "m/b"]
    assert header == {"round": "7"}


def test_equal_trees_are_equal_bytes_and_stay_as_they_were():
    tree = {"w": torch.nn.Parameter(tensor([1.0])), "v": tensor([2.0]), "none": {}}
    header = {"round": "7", "owners": "[]", "facts": "{}"}

    # Several entries of metadata would come in an order that no one can foresee.
    assert len({wire.to_bytes(tree, header) for _ in range(20)}) == 1
    assert tree["w"].requires_grad


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_bytes_are_refused(share):
    data = wire.to_bytes({"a": torch.arange(100.0), "b": {"c": tensor(1)}})

    with pytest.raises(CheckpointError, match="bytes are not a tree"):
        wire.from_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize(
    "said",
    [
        '{"order": ["a", "lost"]}',
        '{"order": [1]}',
        '{"order": ["a", "a/b"]}',
        '{"order": ["a"], "empty": 1}',
        '{"order": ["a"], "empty": [["a", "b"]]}',
        "[1]",
        "{",
    ],
)
def test_metadata_that_lies_is_refused(said):
    data = save({"a": tensor([1.0]), "a/b": tensor([2.0])}, metadata={"tree": said})

    with pytest.raises(CheckpointError, match="bytes are not a tree"):
        wire.from_bytes(data)


def test_a_safetensors_file_of_others_is_read_as_far_as_it_goes():
    tree, header = wire.from_bytes(save({"in/b": tensor([1.0]), "a.w": tensor([2.0])}))

    assert {trees.name(path): leaf.item() for path, leaf in trees.items(tree)} == {
        "in/b": 1.0,
        "a.w": 2.0,
    }
    assert header == {}


class Trap:
    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def test_pickled_bytes_are_refused_and_nothing_in_them_runs():
    with pytest.raises(CheckpointError):
        wire.from_bytes(pickle.dumps({"a": Trap()}))

    assert not Trap.sprung
