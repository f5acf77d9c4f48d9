"""What holds for every algorithm, written once; `cards.py` says what does not hold for whom."""

import contextlib
from typing import Any, NamedTuple

import pytest
import torch
from laws.cards import CARDS, LAWS, build, takes, under, under_servers
from torch import nn
from torch.nn import functional as F

import folkmoot as fm
from folkmoot import aggregators, algorithms, optimizers
from folkmoot.core import tree as trees
from folkmoot.core import wire
from folkmoot.core.engine import Cohort, Setting
from folkmoot.train.described import described
from folkmoot.train.loop import first_snapshot, run_round
from folkmoot.train.states import ClientStates

NAMES = sorted(algorithms.__all__)
SERVERS = {
    "sgd": optimizers.sgd(1.0),
    "sgd with momentum": optimizers.sgd(0.5, momentum=0.5),
    "sgd with nesterov": optimizers.sgd(0.5, momentum=0.5, nesterov=True),
    "sgd by schedule": optimizers.sgd(lambda round: 1.0 / round),
    "adagrad": optimizers.adagrad(0.1),
    "adam": optimizers.adam(0.1),
    "adam with bias correction": optimizers.adam(0.1, bias_correction=True),
    "adamw": optimizers.adamw(0.05, weight_decay=0.0),
    "yogi": optimizers.yogi(0.1),
}
FEW = {"its own": None, **{name: SERVERS[name] for name in ("sgd with nesterov", "adam")}}
RULES = {
    "weighted_mean": aggregators.weighted_mean(),
    "uniform_mean": aggregators.uniform_mean(),
    "clipped": aggregators.weighted_mean(fm.codecs.clip(0.5)),
}


def test_every_algorithm_has_its_card_and_every_excuse_its_reason():
    assert set(CARDS) == set(NAMES)
    for name, card in CARDS.items():
        assert set(card.excused) <= set(LAWS), name
        assert all(len(reason) > 20 for reason in card.excused.values()), name


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


class Data(NamedTuple):
    """What a client holds."""

    train: Any
    test: Any = None


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).to(dtype)


def client(number, rows=8, dtype=torch.float32):
    draw = torch.Generator().manual_seed(number)
    x = torch.randn(rows, 3, generator=draw, dtype=dtype)
    return {"x": x, "y": (x[:, 0] + 0.3 * x[:, 1] > 0).long()}


CLIENTS = {number: client(number, rows=4 + number) for number in range(5)}


def work_of(model=None, **options):
    return fm.local.sgd(
        fm.classifier(model or network()), **{"lr": 0.5, "batch_size": None, **options}
    )


def same(left, right):
    """Whether two trees have the same names and the same bits."""
    a, b = dict(trees.items(left)), dict(trees.items(right))
    return a.keys() == b.keys() and all(
        torch.equal(leaf.reshape(-1).view(torch.uint8), b[path].reshape(-1).view(torch.uint8))
        for path, leaf in a.items()
    )


def rounds_of(algorithm, one_round, rounds=2, clients=CLIENTS, seed=0):
    snapshot = None
    for _ in range(rounds):
        snapshot, report = one_round(algorithm, clients, snapshot, seed=seed)
        assert report.skipped is None
        assert report.left_out == []
    return snapshot


@under("centralised")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-7), (torch.float64, 1e-15)], ids=str
)
def test_one_client_with_one_full_batch_step_is_centralised_descent(
    name, dtype, tolerance, one_round
):
    work, rows = work_of(network(dtype), steps=1), client(0, dtype=dtype)

    snapshot = rounds_of(build(name, work), one_round, rounds=3, clients={0: rows})

    model = network(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(rows["x"]), rows["y"]).backward()
        optimizer.step()
    for path, leaf in model.named_parameters():
        found = snapshot.state["params"][path]
        torch.testing.assert_close(found, leaf.detach(), rtol=0, atol=3 * tolerance)


@under("alike")
def test_clients_who_are_alike_are_like_one(name, one_round):
    algorithm = build(name, work_of(steps=3))

    one = rounds_of(algorithm, one_round, clients={0: CLIENTS[0]})
    four = rounds_of(algorithm, one_round, clients=dict.fromkeys(range(4), CLIENTS[0]))

    torch.testing.assert_close(one.state["params"], four.state["params"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("idle", [{"epochs": 0}, {"lr": 0.0}, {"steps": 0}], ids=str)
@under_servers("idle", SERVERS, FEW)
def test_without_local_work_no_bit_of_the_model_changes(name, idle, server, one_round):
    algorithm = build(name, work_of(**idle), **({"server": server} if server else {}))

    snapshot = rounds_of(algorithm, one_round)

    assert same(snapshot.state["params"], algorithm.init()["params"])


@under("order")
def test_the_order_in_which_clients_are_named_does_not_change_a_bit(name, one_round):
    algorithm = build(name, work_of(batch_size=3, epochs=2))
    turned = dict(reversed(CLIENTS.items()))

    straight = rounds_of(algorithm, one_round)
    reverse = rounds_of(algorithm, one_round, clients=turned)

    assert same(straight.state, reverse.state)


def test_equal_seeds_have_equal_bits_and_others_have_others(name, one_round):
    algorithm = build(name, work_of(batch_size=3, epochs=2))

    first, again, other = (rounds_of(algorithm, one_round, seed=seed) for seed in (1, 1, 2))

    assert same(first.state, again.state)
    assert not same(first.state["params"], other.state["params"])


def test_the_state_before_a_round_is_not_written_into(name, one_round):
    algorithm = build(name, work_of(momentum=0.9, batch_size=3, epochs=2))
    before = rounds_of(algorithm, one_round, rounds=1)
    kept = trees.clone(before.state)
    owned = {owner: trees.clone(tree) for owner, tree in before.own.items()}

    first, _ = one_round(algorithm, CLIENTS, before)
    second, _ = one_round(algorithm, CLIENTS, before)

    assert same(before.state, kept)
    assert same(first.state, second.state)
    for owner, tree in owned.items():
        assert same(before.own[owner], tree)
        assert same(first.own[owner], second.own[owner])


def test_two_beginnings_are_equal_and_share_no_memory(name):
    algorithm = build(name, work_of())
    first, second = algorithm.init(), algorithm.init()

    for leaf in trees.leaves(first):
        leaf.add_(1)

    assert same(second, algorithm.init())
    assert not same(first, second)


def test_a_state_goes_on_with_the_same_bits_after_it_was_bytes(name, one_round):
    algorithm = build(name, work_of(batch_size=3, epochs=2))
    snapshot = rounds_of(algorithm, one_round)

    state, _ = wire.from_bytes(wire.to_bytes(snapshot.state))
    own = {owner: wire.from_bytes(wire.to_bytes(tree))[0] for owner, tree in snapshot.own.items()}
    stored = snapshot._replace(state=state, own=ClientStates(own))
    carried, _ = one_round(algorithm, CLIENTS, stored)
    straight, _ = one_round(algorithm, CLIENTS, snapshot)

    assert same(carried.state, straight.state)
    assert set(carried.own) == set(straight.own)
    assert all(same(carried.own[owner], tree) for owner, tree in straight.own.items())


def test_an_algorithm_that_has_run_is_still_the_program_that_a_checkpoint_names(name, one_round):
    used, fresh = (build(name, work_of(batch_size=3, epochs=2)) for _ in range(2))

    rounds_of(used, one_round)

    assert described(used.round) == described(fresh.round)


def loss_of(algorithm, snapshot):
    """Return the loss over all clients' rows, of their own models where they have some."""
    work, state = algorithm.works[0], snapshot.state

    def model(owner):
        if work.model is None:
            return algorithm.objective.module(state)
        own = snapshot.own.get(owner) or work.own(state)
        return algorithm.objective.module(work.model(state, own))

    outputs = torch.cat([model(owner)(data["x"]) for owner, data in CLIENTS.items()])
    return F.cross_entropy(outputs, torch.cat([data["y"] for data in CLIENTS.values()])).item()


@under_servers("learns", SERVERS, FEW)
def test_every_algorithm_learns_with_every_server(name, server, one_round):
    algorithm = build(name, work_of(steps=2), **({"server": server} if server else {}))

    snapshot = rounds_of(algorithm, one_round, rounds=6)

    assert loss_of(algorithm, snapshot) < 0.8 * loss_of(algorithm, first_snapshot(algorithm))


@pytest.mark.parametrize("aggregator", RULES.values(), ids=RULES)
@under("learns", having="aggregator")
def test_every_algorithm_learns_with_every_rule(name, aggregator, one_round):
    algorithm = build(name, work_of(steps=2), aggregator=aggregator)

    snapshot = rounds_of(algorithm, one_round, rounds=6)

    assert loss_of(algorithm, snapshot) < 0.8 * loss_of(algorithm, first_snapshot(algorithm))


class Everything(nn.Module):
    """Tied, frozen, normalised, dropping, with buffers of every kind."""

    def __init__(self):
        super().__init__()
        self.first, self.twin = nn.Linear(3, 3), nn.Linear(3, 3)
        self.twin.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.2)
        self.still = nn.Linear(3, 3).requires_grad_(False)
        self.out = nn.Linear(3, 2)
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x):
        return self.out(self.drop(self.norm(self.twin(torch.tanh(self.still(self.first(x)))))))


@under("everything")
def test_every_algorithm_trains_a_model_that_has_everything(name, one_round):
    torch.manual_seed(0)
    model = Everything()
    layer = {"features": "norm"} if takes(name, "features") else {}
    algorithm = build(name, work_of(model, batch_size=3, epochs=2, lr=0.1), **layer)

    snapshot = rounds_of(algorithm, one_round, rounds=2)
    found = algorithm.objective.module(snapshot.state)

    assert found.twin.weight is found.first.weight
    assert not torch.equal(found.first.weight, model.first.weight)
    assert torch.equal(found.still.weight, model.still.weight)
    # Every client has 4 to 8 rows in batches of 3; a last single row joins: 1, 2, 2, 2, 3 batches,
    # two epochs, two rounds. The weighted mean of 2, 4, 4, 4, 6 over 4 to 8 rows is 4.27, so 4 a
    # round; the second round adds its own to the mean of the first.
    assert found.norm.num_batches_tracked.item() == 4 + 4
    assert found.flag.item() is True
    assert not torch.equal(found.norm.running_mean, model.norm.running_mean)
    assert all(torch.isfinite(leaf).all() for leaf in found.parameters())


class Shifting(nn.Sequential):
    """Shift the inputs first, and maybe where they stand."""

    in_place = False

    def forward(self, x):
        return super().forward(x.sub_(0.5) if self.in_place else x - 0.5)


class ShiftingInPlace(Shifting):
    in_place = True


def test_a_model_may_write_into_its_inputs(name, one_round):
    plain, writing = (
        rounds_of(build(name, work_of(kind(*network()), batch_size=3, epochs=2)), one_round)
        for kind in (Shifting, ShiftingInPlace)
    )

    assert same(plain.state, writing.state)


def test_no_algorithm_lets_a_client_s_bad_number_into_the_model(name, one_round):
    bad = {"x": torch.full((4, 3), float("nan")), "y": CLIENTS[0]["y"]}
    algorithm = build(name, work_of(steps=2))

    snapshot, report = one_round(algorithm, {**CLIENTS, 9: bad})

    assert {left.client for left in report.left_out} == {9}
    assert all(torch.isfinite(leaf).all() for leaf in trees.leaves(snapshot.state))


@under("left out")
def test_a_client_that_is_left_out_keeps_what_it_had(name, one_round):
    bad = {"x": torch.full((4, 3), float("nan")), "y": CLIENTS[0]["y"]}
    algorithm = build(name, work_of(steps=2))
    before = rounds_of(algorithm, one_round, rounds=1)

    snapshot, report = one_round(algorithm, {**CLIENTS, 1: bad, 9: bad}, before)

    assert {left.client for left in report.left_out} == {1, 9}
    assert set(snapshot.own) == set(before.own)
    assert 1 not in before.own or same(snapshot.own[1], before.own[1])


def test_a_state_holds_the_model_and_only_tensors(name):
    snapshot = first_snapshot(build(name, work_of()))

    assert {"params", "buffers", "counts"} <= set(snapshot.state)
    assert all(isinstance(leaf, torch.Tensor) for leaf in trees.leaves(snapshot.state))


@under("whole")
def test_every_leaf_of_the_module_is_in_the_state(name):
    snapshot = first_snapshot(build(name, work_of()))

    assert set(snapshot.state["params"]) == {path for path, _ in network().named_parameters()}


@under("untouched")
def test_the_state_of_a_client_that_was_not_asked_stays_as_it_was(name, one_round):
    algorithm = build(name, work_of(batch_size=3, epochs=2))
    snapshot = rounds_of(algorithm, one_round)
    kept = {owner: trees.clone(tree) for owner, tree in snapshot.own.items()}

    following, report = one_round(algorithm, CLIENTS, snapshot, asked=[1, 3])

    assert report.answered == 2
    assert set(following.own) == set(kept)
    for owner in set(kept) - {1, 3}:
        assert same(following.own[owner], kept[owner])
    for owner in {1, 3} & set(kept):
        assert not same(following.own[owner], kept[owner])


def test_fedprox_without_a_pull_is_fedavg_bit_for_bit(one_round):
    work = work_of(batch_size=3, epochs=2, momentum=0.5)

    fedprox = rounds_of(fm.fedprox(work, mu=0.0), one_round)
    fedavg = rounds_of(fm.fedavg(work), one_round)
    pulled = rounds_of(fm.fedprox(work, mu=0.1), one_round)

    assert same(fedprox.state, fedavg.state)
    assert not same(pulled.state["params"], fedavg.state["params"])


def rounds_in(engine, algorithm, clients, rounds):
    """Do some rounds with all clients in one engine."""
    snapshot = first_snapshot(algorithm)
    held = {client: Data(rows) for client, rows in clients.items()}
    with contextlib.closing(engine(Setting(held, 0))) as opened:
        for number in range(1, rounds + 1):
            cohort = Cohort(number, tuple(held), len(held), len(held))
            snapshot, _ = run_round(algorithm, snapshot, opened, cohort, 0)
    return snapshot


@under("vectorized")
@pytest.mark.parametrize(
    ("dtype", "rounds", "bound"), [(torch.float32, 1, 1e-5), (torch.float64, 3, 1e-9)], ids=str
)
def test_many_clients_at_once_give_what_one_after_another_give(name, dtype, rounds, bound):
    clients = {number: client(number, rows=4 + number, dtype=dtype) for number in range(5)}
    algorithm = build(name, work_of(network(dtype), batch_size=3, epochs=2, lr=0.1))

    there = rounds_in(fm.engines.sequential(), algorithm, clients, rounds)
    back = rounds_in(fm.engines.vectorized(3), algorithm, clients, rounds)

    begun = first_snapshot(algorithm).state
    moved = trees.norm(trees.sub(floats(there.state), floats(begun)))
    assert trees.norm(trees.sub(floats(back.state), floats(there.state))) <= bound * moved
    assert set(back.own) == set(there.own)
    for owner, kept in there.own.items():
        apart = trees.norm(trees.sub(floats(back.own[owner]), floats(kept)))
        assert apart <= 10 * bound * (trees.norm(floats(kept)) + moved)


def floats(tree):
    return {trees.name(path): leaf for path, leaf in trees.items(tree) if leaf.is_floating_point()}
