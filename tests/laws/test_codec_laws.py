"""What holds for every codec and every aggregator, written once.

A new codec or rule takes one line in the tables below.
"""

import copy
import functools
import math
from typing import NamedTuple

import pytest
import torch

import folkmoot as fm
from folkmoot import aggregators, codecs
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout, chain


class Stated(NamedTuple):
    """A codec, with what it states of itself."""

    codec: Codec
    error: float
    """Largest error of a decoded sum, relative to the sum of the vectors' norms."""
    norm: float
    """Longest vector that passes unchanged but for that error."""
    weights: bool = True
    """Whether one client may count more than another."""


CLIP = codecs.clip(2.0)
BANDS = codecs.banded_noise(0.0, [1.0, 0.5])


def in_shares(codec):
    """Shares of no noise, behind what they need in front."""
    return chain(CLIP, codecs.to_field(), codec(0.0, providers=5))


CODECS = {
    "clip": Stated(CLIP, error=4e-7, norm=2.0),
    "adaptive_clip": Stated(codecs.adaptive_clip(2.0), error=4e-7, norm=2.0),
    "clip_by_layer": Stated(codecs.clip_by_layer(2.0), error=4e-7, norm=2.0),
    # Without noise, which would hide the law. All but Laplace noise need a clip in front.
    "gaussian": Stated(chain(CLIP, codecs.gaussian(0.0)), 3e-6, 2.0, weights=False),
    "tree_noise": Stated(chain(CLIP, codecs.tree_noise(0.0, 4)), 3e-6, 2.0, weights=False),
    "banded_noise": Stated(chain(CLIP, BANDS), 3e-6, 2.0, weights=False),
    "local_gaussian": Stated(chain(CLIP, codecs.local_gaussian(0.0)), 3e-6, 2.0, weights=False),
    "local_laplace": Stated(codecs.local_laplace(0.0, 3.0), 3e-6, 0.5, weights=False),
    # One coordinate of 33, up or down.
    "randomized_response": Stated(
        chain(CLIP, codecs.randomized_response(20.0, simulation=True)), 70.0, 2.0, weights=False
    ),
    "rotate": Stated(codecs.rotate(), error=2e-6, norm=2.0),
    # Lossy: the root of the largest NMSE of 33 numbers, or twice that of the mean one.
    "bf16": Stated(codecs.bf16(), error=2.0**-8, norm=2.0),
    "fp16": Stated(codecs.fp16(), error=2.0**-11, norm=2.0),
    "natural": Stated(codecs.natural(), error=1.0, norm=2.0),
    "quantize": Stated(codecs.quantize(8), error=2 * 33**0.5 / 255, norm=2.0),
    "qsgd": Stated(codecs.qsgd(16), error=33**0.5 / 16, norm=2.0),
    "ternary": Stated(codecs.ternary(), error=33**0.5, norm=2.0),
    "sign": Stated(codecs.sign(), error=1.0, norm=2.0),
    "drive": Stated(codecs.drive(), error=1.5, norm=2.0),
    "eden": Stated(codecs.eden(4), error=0.2, norm=2.0),
    "top_k": Stated(codecs.top_k(1 / 3), error=(2 / 3) ** 0.5, norm=2.0),
    "random_k": Stated(codecs.random_k(1 / 3), error=2 * 2**0.5, norm=2.0),
    "count_sketch": Stated(codecs.count_sketch(64), error=1.5, norm=2.0),
    "entropy_coded": Stated(chain(codecs.qsgd(16), codecs.entropy_coded()), 33**0.5 / 16, 2.0),
    "to_field": Stated(chain(CLIP, codecs.to_field()), 4e-7, 2.0, weights=False),
    "gaussian_shares": Stated(in_shares(codecs.gaussian_shares), 4e-7, 2.0, weights=False),
    "skellam_shares": Stated(in_shares(codecs.skellam_shares), 4e-7, 2.0, weights=False),
}
CHAINS = {
    **CODECS,
    "nothing": Stated(chain(), error=0.0, norm=2.0),
    "rotate, quantize": Stated(chain(codecs.rotate(), codecs.quantize(8)), 0.1, norm=2.0),
    "top_k, quantize, entropy_coded": Stated(
        chain(codecs.top_k(1 / 3), codecs.quantize(8), codecs.entropy_coded()), 1.0, norm=2.0
    ),
    "clip, random_k, rotate, to_field": Stated(
        chain(CLIP, codecs.random_k(1 / 3), codecs.rotate(), codecs.to_field()),
        2 * 2**0.5,
        2.0,
        weights=False,
    ),
    "clip, count_sketch, to_field": Stated(
        chain(CLIP, codecs.count_sketch(64), codecs.to_field()), 1.5, 2.0, weights=False
    ),
    "random_k, rotate, eden": Stated(
        chain(codecs.random_k(1 / 3), codecs.rotate(), codecs.eden(2)), 3.0, norm=2.0
    ),
    **{
        f"{name} behind clip": Stated(
            # Behind a clip vectors are half as long.
            chain(CLIP, stated.codec),
            2 * stated.error + 4e-7,
            min(2.0, 2 * stated.norm),
        )
        for name, stated in CODECS.items()
    },
}
RULES = {
    "total": aggregators.total(),
    "uniform_mean": aggregators.uniform_mean(),
    "weighted_mean": aggregators.weighted_mean(),
}
MEANS = {name: rule for name, rule in RULES.items() if name != "total"}
SIZE, CLIENTS = 33, 7


def test_every_codec_and_every_rule_has_its_line():
    assert set(CODECS) == set(codecs.__all__)
    assert set(RULES) == set(aggregators.__all__) - {"aggregate"}


@pytest.fixture(params=CHAINS.values(), ids=CHAINS)
def stated(request):
    return request.param


def vectors(longest, count=CLIENTS, size=SIZE):
    """Vectors of all lengths up to the longest, the zero vector among them."""
    draw = torch.Generator().manual_seed(0)
    found = torch.randn(count, size, generator=draw)
    lengths = torch.linspace(0, 0.999 * longest, count)[:, None]
    return list(found / found.norm(dim=1, keepdim=True) * lengths)


def ready(codec, size=SIZE):
    layout = Layout.of({"w": torch.zeros(size)})
    return codec.init(Bounds(weight=1.0, clients=CLIENTS, size=size), layout)


def key_of(client):
    return rng.derive(0, round=1, client=client, purpose="encode")


def encoded(codec, state, given):
    return [
        codec.encode(state, vector.clone(), key_of(client)) for client, vector in enumerate(given)
    ]


def test_the_decoded_sum_is_the_sum_within_the_stated_error(stated):
    codec, given = stated.codec, vectors(stated.norm)
    state, _ = ready(codec)

    total, _ = codec.decode(state, sum(encoded(codec, state, given)), 1)

    exact = torch.stack(given).double().sum(0)
    allowed = max(stated.error, 2.0**-22) * sum(vector.norm().item() for vector in given)
    assert (total.double() - exact).norm().item() <= allowed


def test_a_sum_has_the_shape_and_dtype_of_what_went_in(stated):
    codec = stated.codec
    state, _ = ready(codec)

    total, following = codec.decode(state, sum(encoded(codec, state, vectors(1.0))), 1)

    assert (total.shape, total.dtype) == ((SIZE,), torch.float32)
    assert list(following) == list(state)


@pytest.mark.parametrize("length", [0.0, 1e-20, 1.0, 1e6, 1e30])
def test_the_bound_behind_a_stage_is_true(stated, length):
    codec = stated.codec
    state, bounds = ready(codec)
    steps = [leaf.item() for path, leaf in trees.items(state) if path[-1] == "steps"]

    for sent in encoded(codec, state, vectors(length)):
        assert torch.isfinite(sent).all()
        # Integers are in steps of a grid.
        units = math.prod(steps) if not sent.is_floating_point() else 1
        assert sent.double().norm().item() <= bounds.l2 * units


def test_what_arrives_is_what_was_encoded_bit_for_bit(stated):
    codec, given = stated.codec, vectors(5.0)
    state, _ = ready(codec)

    for client, sent in enumerate(encoded(codec, state, given)):
        if codec.pack is None:
            continue
        message = codec.pack(state, given[client].clone(), key_of(client))
        found = codec.unpack(state, message, key_of(client))
        assert (found.dtype, found.shape) == (torch.float32, given[client].shape)
        assert torch.equal(found, sent)


def test_equal_keys_give_equal_bits_whatever_was_encoded_before(stated):
    codec, given = stated.codec, vectors(1.0)
    state, _ = ready(codec)

    there = encoded(codec, state, given)
    back = [
        codec.encode(state, given[client].clone(), key_of(client))
        for client in reversed(range(CLIENTS))
    ]

    assert all(map(torch.equal, there, back[::-1]))


def test_neither_a_state_nor_a_sum_is_written_into(stated):
    codec = stated.codec
    state, _ = ready(codec)
    before = copy.deepcopy(state)

    total = sum(encoded(codec, state, vectors(9.0)))
    kept = total.clone()
    codec.decode(state, total, 1)

    assert torch.equal(total, kept)
    assert all(map(torch.equal, trees.leaves(state), trees.leaves(before)))


def test_no_codec_reads_or_moves_the_global_generator(stated):
    codec, found = stated.codec, []

    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        state, _ = ready(codec)
        sent = encoded(codec, state, vectors(1.0))
        found.append([*sent, codec.decode(state, sum(sent), 1)[0]])
        assert torch.equal(torch.get_rng_state(), before)

    assert all(map(torch.equal, *found))


# Rules


def update_of(client, weight=None, scale=1.0):
    draw = torch.Generator().manual_seed(client)
    value = {
        "params": {
            "w": scale * torch.randn(3, 2, generator=draw),
            "half": torch.randn(2, generator=draw).bfloat16(),
            "fine": {"b": torch.randn((), generator=draw, dtype=torch.float64)},
        },
        "buffers": {},
    }
    counts = {"n": torch.tensor(client), "on": torch.tensor([client % 2 == 0])}
    return fm.Update(value, float(weight or client + 1), counts)


def described(tree):
    return {trees.name(path): (leaf.dtype, leaf.shape) for path, leaf in trees.items(tree)}


@pytest.fixture(params=RULES.values(), ids=RULES)
def rule(request):
    return request.param


def test_a_rule_keeps_names_shapes_and_dtypes(rule):
    updates = [update_of(client) for client in range(6)]

    found = fm.aggregate(rule, updates)

    assert described(found) == described({**updates[0].value, **updates[0].counts})
    assert found["buffers"] == {}


def test_a_rule_does_not_write_into_updates(rule):
    updates = [update_of(client) for client in range(6)]
    before = copy.deepcopy(updates)

    fm.aggregate(rule, updates)

    for update, kept in zip(updates, before, strict=True):
        for part in ("value", "counts"):
            leaves = trees.leaves(getattr(update, part)), trees.leaves(getattr(kept, part))
            assert all(map(torch.equal, *leaves))


@pytest.mark.parametrize("rule", MEANS.values(), ids=MEANS)
def test_the_mean_of_equal_updates_is_that_update(rule):
    updates = [update_of(3, weight) for weight in (1.0, 3.0, 4.0, 0.5)]

    found = fm.aggregate(rule, updates)

    for path, leaf in trees.items({**updates[0].value, **updates[0].counts}):
        torch.testing.assert_close(dict(trees.items(found))[path], leaf)


@pytest.mark.parametrize("rule", MEANS.values(), ids=MEANS)
def test_a_mean_lies_between_the_least_and_the_largest(rule):
    updates = [update_of(client) for client in range(9)]

    found = fm.aggregate(rule, updates)["params"]["w"]

    each = torch.stack([update.value["params"]["w"] for update in updates])
    assert (found >= each.amin(0) - 1e-6).all()
    assert (found <= each.amax(0) + 1e-6).all()


def test_the_order_in_which_clients_are_named_does_not_change_a_bit(rule, line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line([0.0, 0.0]), lr=1.0), aggregator=rule)
    clients = {client: pull([0.1 * client, 3.0**client], rows=client + 1) for client in range(12)}

    found = []
    for order in (list(clients), list(reversed(clients)), [5, *(c for c in clients if c != 5)]):
        snapshot, _ = one_round(algorithm, {client: clients[client] for client in order})
        found.append(snapshot.state["params"]["w"])

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_rule_lets_a_bad_number_through(rule, bad, line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1.0), aggregator=rule)
    good = {client: pull(1.0) for client in range(6)}

    with_bad, report = one_round(algorithm, {**good, 6: pull(bad)})
    without, _ = one_round(algorithm, good)

    assert [left.client for left in report.left_out] == [6]
    assert torch.equal(with_bad.state["params"]["w"], without.state["params"]["w"])


@pytest.mark.parametrize("stated", CODECS.values(), ids=CODECS)
def test_every_rule_takes_every_codec_or_says_why_not(rule, stated, line, pull, one_round):
    codec, build = stated.codec, getattr(aggregators, rule.name)
    if rule.name == "uniform_mean":
        # Behind noise nothing may tell how many have come.
        build = functools.partial(build, divisor=5)
    work = fm.local.sgd(line([1.0, 2.0]), lr=0.01)
    clients = {client: pull([1.0, -2.0], rows=client + 1) for client in range(5)}

    plain, _ = one_round(fm.fedavg(work, aggregator=build()), clients)
    if rule.name == "weighted_mean" and not stated.weights:
        with pytest.raises(fm.SettingsError, match="uniform_mean"):
            one_round(fm.fedavg(work, aggregator=build(codec)), clients)
        return
    coded, _ = one_round(fm.fedavg(work, aggregator=build(codec)), clients)

    # The deltas are short, so no codec changes them by more than its error.
    most = 1e-6 + stated.error * len(clients)
    torch.testing.assert_close(plain.state["params"], coded.state["params"], rtol=1e-5, atol=most)
    assert described(plain.state) == described(coded.state)
