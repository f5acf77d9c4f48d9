"""Chains walk forth and back; a layout puts leaves into one vector and takes them out again."""

import math

import pytest
import torch
from torch import tensor

from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout, chain


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

    return Codec(f"shift({number})", init, encode, decode)


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

    def pack(state, vector, key):
        log.append(("encode double", key))
        return {"vector": vector, "key": torch.tensor([key])}

    def unpack(state, message, key):
        assert message["key"].tolist() == [key]
        return 2 * message["vector"]

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
    # What packs is asked once for nothing, which shows its size.
    log.remove(("encode double", 0))
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


def test_the_last_lossy_stage_packs_what_those_in_front_have_made():
    last, first = chain(shift(1, []), double([])), chain(double([]), shift(1, []))
    states = [joined.init(Bounds(), LAYOUT)[0] for joined in (last, first)]

    sent = last.pack(states[0], tensor([1.0]), 7)
    assert sent["vector"].tolist() == [2.0]
    assert last.unpack(states[0], sent, 7).tolist() == [4.0]
    # What stands behind is done where the vector has arrived.
    sent = first.pack(states[1], tensor([1.0]), 7)
    assert sent["vector"].tolist() == [1.0]
    assert first.unpack(states[1], sent, 7).tolist() == [3.0]
    assert (last.linear, first.linear, chain(shift(1, [])).linear) == (False, False, True)
    assert chain(shift(1, [])).pack is None
    assert last.name == "chain(shift(1), double)"


def halves(log):
    """Keep the first half; what is left may be packed further."""

    def init(bounds, layout):
        log.append(bounds.size)
        return {"size": tensor(bounds.size)}, bounds

    def pack(state, vector, key):
        return {"vector": vector[: int(state["size"]) // 2]}

    def unpack(state, message, key):
        rest = int(state["size"]) - len(message["vector"])
        return torch.cat([message["vector"], torch.zeros(rest)])

    def encode(state, vector, key):
        return unpack(state, pack(state, vector, key), key)

    return Codec("halves", init, encode, lambda s, t, k: (t, s), pack, unpack, linear=False)


def negated(own):
    """Linear, with another way where each client's vector is undone by itself."""

    def turned(state, vector, key):
        return -vector

    shared = Codec("negated", lambda b, _: ({}, b), turned, lambda s, t, k: (-t, s))
    return shared._replace(own=own)


def test_lossy_stages_pack_one_after_another_and_each_is_told_its_size():
    log = []
    joined = chain(halves(log), halves(log), halves(log))
    state, bounds = joined.init(Bounds(size=8), LAYOUT)
    vector = torch.arange(1.0, 9.0)

    sent = joined.pack(state, vector, 0)

    assert (log, bounds.size) == ([8, 4, 2], 8)
    assert sent["vector"].tolist() == [1.0]
    assert joined.unpack(state, sent, 0).tolist() == [1.0, *[0.0] * 7]
    assert joined.encode(state, vector, 0).tolist() == [1.0, *[0.0] * 7]


def test_a_stage_in_front_of_a_lossy_one_uses_each_clients_own_numbers():
    own = Codec(
        "own",
        lambda b, _: ({}, b),
        lambda s, v, k: v,
        lambda s, t, k: (t, s),
        lambda s, v, k: {"vector": v + k},
        lambda s, m, k: m["vector"] - k,
    )
    alone, in_front = chain(negated(own)), chain(negated(own), double([]))
    state, _ = in_front.init(Bounds(size=1), LAYOUT)

    assert alone.encode(alone.init(Bounds(size=1), LAYOUT)[0], tensor([3.0]), 5).tolist() == [-3.0]
    assert in_front.pack(state, tensor([3.0]), 5)["vector"].tolist() == [8.0]
    # 2 * (3 + 5) - 5; nothing of the stage is left for the sum.
    assert in_front.encode(state, tensor([3.0]), 5).tolist() == [11.0]


def test_the_empty_chain_passes_everything_through():
    empty, bounds = chain(), Bounds(l2=2.0, weight=1.0, clients=3, size=2)
    state, after = empty.init(bounds, LAYOUT)
    vector = tensor([1.0, -2.0])

    assert after == bounds
    assert empty.encode(state, vector, 0).tolist() == [1.0, -2.0]
    assert empty.decode(state, vector, 0)[0].tolist() == [1.0, -2.0]
    assert empty.linear


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
