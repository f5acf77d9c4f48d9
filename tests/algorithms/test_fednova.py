"""FedNova: moves are divided by the work behind them, and nothing changes where work is equal."""

import pytest
import torch

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

F64 = torch.float64
MOMENTA = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "scheduled": {"lr": lambda round: 0.1 * round},
}


def w_of(snapshot):
    return snapshot.state["params"]["w"].item()


def test_a_client_with_more_steps_pulls_no_more_than_its_examples_weigh(line, pull, one_round):
    # Three steps of gradient 1 over three rows, one step of gradient -1 over one row.
    work = fm.local.sgd(line(0.0, F64), lr=0.1, batch_size=1)
    clients = {0: pull(1.0, rows=3, dtype=F64), 1: pull(-1.0, rows=1, dtype=F64)}

    snapshot, _ = one_round(fm.fednova(work), clients)

    # tau_eff = (3 * 3 + 1 * 1) / 4 = 2.5; mean d = -0.1 * (3 * 1 - 1) / 4 = -0.05.
    assert w_of(snapshot) == pytest.approx(2.5 * -0.05, rel=1e-12)
    # FedAvg has (3 * -0.3 + 0.1) / 4 = -0.2.
    assert w_of(one_round(fm.fedavg(work), clients)[0]) == pytest.approx(-0.2, rel=1e-12)


def test_the_next_round_expects_the_mean_and_moves_as_the_first_did(line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.1, batch_size=1)
    clients = {0: pull(1.0, rows=3, dtype=F64), 1: pull(-1.0, rows=1, dtype=F64)}
    snapshot = None

    for number in (1, 2, 3):
        snapshot, _ = one_round(fm.fednova(work), clients, snapshot)
        assert w_of(snapshot) == pytest.approx(number * 2.5 * -0.05, rel=1e-12)
        assert snapshot.state["steps"].item() == pytest.approx(2.5, rel=1e-12)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_momentum_is_divided_out(momentum, line, pull, one_round):
    # Under constant gradients g_i a move is -lr * ||a_i||_1 * g_i, however many steps it has.
    options = {"lr": 0.1, "batch_size": 1, **MOMENTA[momentum]}
    work = fm.local.sgd(line(0.0, F64), **options)
    steps, uniform = (2, 5), fm.aggregators.uniform_mean()
    clients = {
        side: pull(gradient, rows=rows, dtype=F64)
        for side, (gradient, rows) in enumerate(zip((1.0, -3.0), steps, strict=True))
    }

    snapshot, _ = one_round(fm.fednova(work, aggregator=uniform), clients)

    def l1(count):
        # ||a||_1 = sum over k of 1 + m + ... + m^(count - 1 - k); Nesterov's step has one m more.
        m, total = options.get("momentum", 0.0), 0.0
        velocity = 0.0
        for _ in range(count):
            velocity = m * velocity + 1
            total += 1 + m * velocity if options.get("nesterov") else velocity
        return total

    expected = -0.1 * (l1(2) + l1(5)) / 2 * (1.0 - 3.0) / 2
    assert w_of(snapshot) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("momentum", ["plain", "momentum", "nesterov"])
@pytest.mark.parametrize(
    "server", [fm.optimizers.sgd(1.0), fm.optimizers.adam(0.1)], ids=["sgd", "adam"]
)
def test_with_equal_work_it_is_fedavg(server, momentum, line, one_round):
    draw = torch.Generator().manual_seed(0)
    clients = {c: {"x": torch.randn(4 + c, 3, generator=draw, dtype=F64)} for c in range(4)}
    options = {"lr": 0.1, "steps": 4, "batch_size": 2, **MOMENTA[momentum]}
    work = fm.local.sgd(line([0.0, 1.0, 2.0], F64), **options)

    nova = avg = None
    for _ in range(3):
        nova, _ = one_round(fm.fednova(work, server=server), clients, nova)
        avg, _ = one_round(fm.fedavg(work, server=server), clients, avg)

    found, expected = nova.state["params"]["w"], avg.state["params"]["w"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_with_equal_plain_steps_it_is_fedavg_to_the_bit(line, pull, one_round):
    work = fm.local.sgd(line(), lr=0.3, steps=3)
    clients = {0: pull(1.1, rows=3), 1: pull(-0.7, rows=5)}

    nova = avg = None
    for _ in range(3):
        nova, _ = one_round(fm.fednova(work), clients, nova)
        avg, _ = one_round(fm.fedavg(work), clients, avg)

    assert torch.equal(nova.state["params"]["w"], avg.state["params"]["w"])


def test_a_clipped_move_is_as_long_as_fedavg_s(line, pull, one_round):
    # Each moves by -3 in the 30 steps that the plan lets expect; clipped to 1 it moves by -1.
    work = fm.local.sgd(line(0.0, F64), lr=0.1, steps=30)
    algorithm = fm.fednova(work, aggregator=fm.aggregators.uniform_mean(fm.codecs.clip(1.0)))
    clients = {0: pull(1.0, dtype=F64), 1: pull(1.0, dtype=F64)}

    snapshot, _ = one_round(algorithm, clients)

    assert w_of(snapshot) == pytest.approx(-1.0, rel=1e-5)


def test_clients_without_a_step_change_nothing_and_expect_nothing_else(line, pull, one_round):
    clients = {0: pull(1.0, rows=2), 1: pull(2.0, rows=6)}
    busy, _ = one_round(fm.fednova(fm.local.sgd(line(3.0), lr=0.1, batch_size=1)), clients)

    for idle in ({"steps": 0}, {"epochs": 0}, {"lr": 0.0}, {"lr": lambda round: 0.0}):
        work = fm.local.sgd(line(3.0), **{"lr": 0.1, "batch_size": 1, **idle})
        after, report = one_round(fm.fednova(work), clients, busy)
        assert report.left_out == []
        assert torch.equal(after.state["params"]["w"], busy.state["params"]["w"])
        assert torch.equal(after.state["steps"], busy.state["steps"])


def test_batch_statistics_are_averaged_and_not_divided(one_round):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    draw = torch.Generator().manual_seed(0)
    clients = {
        c: {"x": torch.randn(rows, 2, generator=draw), "y": torch.arange(rows) % 2}
        for c, rows in enumerate((4, 8))
    }
    work = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=4)

    nova, _ = one_round(fm.fednova(work), clients)
    avg, _ = one_round(fm.fedavg(work), clients)

    for left, right in zip(
        trees.leaves(nova.state["buffers"]), trees.leaves(avg.state["buffers"]), strict=True
    ):
        assert torch.equal(left, right)
    assert not torch.equal(nova.state["params"]["1.weight"], avg.state["params"]["1.weight"])


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda line: fm.fednova(line), r"fednova\(\) needs local work"),
        (lambda line: fm.fednova(fm.local.evaluate(line)), "'evaluate' writes its own step"),
        (
            lambda line: fm.fednova(fm.local.descent(line, fm.optimizers.adam(0.1))),
            "steps of adam are not proportional to gradients",
        ),
        (
            lambda line: fm.fednova(fm.local.sgd(line, lr=0.1), aggregator=fm.aggregators.total()),
            r"fednova\(\) needs the mean over clients",
        ),
        (
            lambda line: fm.fednova(fm.local.sgd(line, lr=0.1), server=0.1),
            "server must be an optimizer",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(build, reason, line):
    with pytest.raises(SettingsError, match=reason):
        build(line())
