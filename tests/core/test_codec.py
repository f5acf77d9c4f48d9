"""Chains walk forth and back; a layout puts leaves into one vector and takes them out again."""

import math

import pytest
import torch
from torch import tensor

from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout, chain, raw_bytes, raw_vector


def shift(number, log):
    """Add a number; the sum of n encoded vectors holds it n times, so tests use one vector."""

    def init(bounds, layout):
        log.append((f"init shift {number}", bounds.l2))
        return {"number": tensor(float(number))}, bounds._replace(l2=bounds.l2 + number)

    def encode(state, vector, key):
        log.append((f"encode shift {number}", key))
        return vector + state["number"]

    def decode(state, total, key):
        log.append((f"decode shift {number}", key))
        return total - state["number"], {"number": state["number"] + 1}

    return Codec(f"shift({number})", init, encode, decode, raw_bytes, raw_vector)


def double(log):
    def init(bounds, layout):
        log.append(("init double", bounds.l2))
        return {}, bounds._replace(l2=2 * bounds.l2)

    def encode(state, vector, key):
        log.append(("encode double", key))
        return 2 * vector

    def decode(state, total, key):
        log.append(("decode double", key))
        return total / 2, state

    def pack(state, vector):
        return b"doubled" + raw_bytes(state, vector)

    def unpack(state, data):
        return raw_vector(state, data.removeprefix(b"doubled"))

    return Codec("double", init, encode, decode, pack, unpack, linear=False)


LAYOUT = Layout.of({"w": torch.zeros(2)})


def test_a_chain_encodes_left_to_right_and_decodes_right_to_left():
    log = []
    joined = chain(shift(1, log), double(log))
    state, bounds = joined.init(Bounds(l2=3.0), LAYOUT)

    encoded = joined.encode(state, tensor([1.0, 2.0]), 7)
    decoded, following = joined.decode(state, encoded, 8)

    assert encoded.tolist() == [4.0, 6.0]  # (x + 1) * 2; the other way round it were 3, 5
    assert decoded.tolist() == [1.0, 2.0]
    assert bounds.l2 == 8.0  # (3 + 1) * 2
    assert log == [
        ("init shift 1", 3.0),
        ("init double", 4.0),
        ("encode shift 1", 7),
        ("encode double", 7),
        ("decode double", 8),
        ("decode shift 1", 8),
    ]
    # Each stage has a state of its own, and the given one is left alone.
    assert [leaf.item() for leaf in trees.leaves(following)] == [2.0]
    assert [leaf.item() for leaf in trees.leaves(state)] == [1.0]


def test_two_stages_of_one_kind_keep_their_states_apart():
    joined = chain(shift(1, []), shift(10, []))
    state, _ = joined.init(Bounds(), LAYOUT)

    assert joined.encode(state, tensor([0.0]), 0).tolist() == [11.0]
    _, following = joined.decode(state, tensor([11.0]), 0)
    assert joined.encode(following, tensor([0.0]), 0).tolist() == [13.0]


def test_the_last_stage_packs_and_one_stage_that_is_not_linear_spoils_the_chain():
    last, first = chain(shift(1, []), double([])), chain(double([]), shift(1, []))
    states = [joined.init(Bounds(), LAYOUT)[0] for joined in (last, first)]

    assert last.pack(states[0], tensor([1.0])) == b"doubled" + b"\x00\x00\x80\x3f"
    assert last.unpack(states[0], last.pack(states[0], tensor([1.0]))).tolist() == [1.0]
    assert first.pack(states[1], tensor([1.0])) == b"\x00\x00\x80\x3f"
    assert (last.linear, first.linear, chain(shift(1, [])).linear) == (False, False, True)
    assert last.name == "chain(shift(1), double)"


def test_the_empty_chain_passes_everything_through():
    empty, bounds = chain(), Bounds(l2=2.0, weight=1.0, clients=3, size=2)
    state, after = empty.init(bounds, LAYOUT)
    vector = tensor([1.0, -2.0])

    assert after == bounds
    assert empty.encode(state, vector, 0).tolist() == [1.0, -2.0]
    assert empty.decode(state, vector, 0)[0].tolist() == [1.0, -2.0]
    assert empty.unpack(state, empty.pack(state, vector)).tolist() == [1.0, -2.0]
    assert empty.linear


def test_raw_bytes_are_the_four_bytes_of_each_number():
    bits = tensor([0x3F800000, -(2**31), 0x7FC01234, 1], dtype=torch.int32)

    data = raw_bytes({}, bits.view(torch.float32))

    assert len(data) == 16
    assert data[:4] == b"\x00\x00\x80\x3f"
    assert raw_vector({}, data).view(torch.int32).tolist() == bits.tolist()
    # A part of another vector is packed by its numbers, not by its memory.
    assert raw_bytes({}, torch.arange(6.0)[::2]) == raw_bytes({}, tensor([0.0, 2.0, 4.0]))


def update_value():
    return {
        "params": {"w": tensor([[1.0, 2.0], [3.0, 4.0]]), "b": tensor(5.0)},
        "other": {"v": tensor([6.0, 7.0])},
    }


def test_a_layout_stands_leaves_one_after_another():
    layout = Layout.of(update_value())

    assert layout.size == 7
    assert layout.offsets == (0, 4, 5)
    assert layout.paths == (("params", "w"), ("params", "b"), ("other", "v"))
    assert layout.pack(update_value()).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_unpacking_gives_names_shapes_dtypes_and_numbers_back():
    value = {
        "half": tensor([1.5, -2.0], dtype=torch.bfloat16),
        "double": {"d": tensor([[0.25]], dtype=torch.float64)},
        "single": tensor(math.pi),
        "none": torch.zeros(0, 3),
    }
    layout = Layout.of(value)

    found = layout.unpack(layout.pack(value))

    assert layout.pack(value).dtype == torch.float32
    assert [path for path, _ in trees.items(found)] == [path for path, _ in trees.items(value)]
    for leaf, expected in zip(trees.leaves(found), trees.leaves(value), strict=True):
        assert (leaf.dtype, leaf.shape) == (expected.dtype, expected.shape)
        assert leaf.tolist() == expected.tolist()


def test_packing_copies_so_that_codecs_may_write():
    value = {"w": tensor([1.0, 2.0])}

    Layout.of(value).pack(value).zero_()

    assert value["w"].tolist() == [1.0, 2.0]


def test_a_dict_without_leaves_comes_back_empty():
    value = {"params": {"w": tensor([1.0])}, "buffers": {}}
    layout = Layout.of(value)

    assert layout.unpack(layout.pack(value)) == {"params": {"w": tensor([1.0])}, "buffers": {}}


@pytest.mark.parametrize("value", [{}, {"params": {}}], ids=str)
def test_a_value_of_nothing_is_an_empty_vector(value):
    layout = Layout.of(value)

    assert layout.size == 0
    assert layout.pack(value).shape == (0,)
    assert layout.unpack(torch.zeros(0)) == value


def test_leaves_find_their_place_by_name_not_by_order():
    layout = Layout.of({"a": tensor([0.0]), "b": tensor([0.0])})

    assert layout.pack({"b": tensor([2.0]), "a": tensor([1.0])}).tolist() == [1.0, 2.0]
