"""SCAFFOLD: what a control is, when it moves, and what is refused."""

import pytest
import torch
from torch import tensor

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.local.personal import personalize

F64 = torch.float64


def control_of(snapshot, client=0):
    return snapshot.own[client]["control"]["w"].item()


def test_the_first_round_is_a_uniform_mean_as_controls_begin_at_zero(line, pull, one_round):
    algorithm = fm.scaffold(fm.local.sgd(line(5.0), lr=0.5))

    snapshot, _ = one_round(algorithm, {0: pull(1.0, rows=9), 1: pull(3.0, rows=1)})

    assert snapshot.state["params"]["w"].item() == 4.0  # 5 - 0.5 * (1 + 3) / 2


def test_a_client_whose_control_is_right_moves_like_all_of_them(line, pull, one_round):
    # After a round c_i are the constant gradients 1 and 5, and c is their mean.
    algorithm = fm.scaffold(fm.local.sgd(line(0.0, F64), lr=0.1, steps=3))
    clients = {0: pull(1.0, dtype=F64), 1: pull(5.0, dtype=F64)}
    snapshot, _ = one_round(algorithm, clients)

    only_one, _ = one_round(algorithm, clients, snapshot, asked=[0])

    assert snapshot.state["control"]["w"].item() == pytest.approx(3.0, rel=1e-12)
    moved = only_one.state["params"]["w"] - snapshot.state["params"]["w"]
    assert moved.item() == pytest.approx(-0.1 * 3 * 3.0, rel=1e-12)


@pytest.mark.parametrize("option", [1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"lr": lambda round: 0.1 / round}],
    ids=["plain", "momentum", "nesterov", "scheduled"],
)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_constant_gradient_is_its_client_s_control(steps, options, option, line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), **{"lr": 0.1, "steps": steps, **options})

    snapshot, _ = one_round(fm.scaffold(work, option=option), {0: pull(2.5, dtype=F64)})
    snapshot, _ = one_round(fm.scaffold(work, option=option), {0: pull(-4.0, dtype=F64)}, snapshot)

    assert control_of(snapshot) == pytest.approx(-4.0, rel=1e-12)
    assert snapshot.state["control"]["w"].item() == pytest.approx(-4.0, rel=1e-12)


def test_option_1_takes_the_mean_over_examples_not_over_batches(line, one_round):
    # Batches of 2, 2 and 1 rows, twice; their means' mean would be another number.
    rows = {"x": tensor([[1.0], [2.0], [3.0], [4.0], [10.0]], dtype=F64)}
    work = fm.local.sgd(line(0.0, F64), lr=0.1, epochs=2, batch_size=2)

    snapshot, _ = one_round(fm.scaffold(work, option=1), {0: rows})

    assert control_of(snapshot) == pytest.approx(4.0, rel=1e-12)  # 20 / 5


@pytest.mark.parametrize("idle", [{"steps": 0}, {"epochs": 0}], ids=str)
@pytest.mark.parametrize("option", [1, 2])
def test_a_client_without_a_step_keeps_its_control_to_the_bit(option, idle, line, pull, one_round):
    clients = {0: pull(0.3), 1: pull(0.7)}
    busy = fm.scaffold(fm.local.sgd(line(), lr=0.1, steps=3), option=option)
    snapshot, _ = one_round(busy, clients)

    still = fm.scaffold(fm.local.sgd(line(), lr=0.1, **idle), option=option)
    after, report = one_round(still, clients, snapshot)

    assert report.left_out == []
    for client in clients:
        assert control_of(after, client) == control_of(snapshot, client)
    assert torch.equal(after.state["params"]["w"], snapshot.state["params"]["w"])
    assert torch.equal(after.state["control"]["w"], snapshot.state["control"]["w"])


def test_a_client_that_is_left_out_keeps_its_control(line, pull, one_round):
    algorithm = fm.scaffold(fm.local.sgd(line(), lr=0.1))
    snapshot, _ = one_round(algorithm, {0: pull(1.0), 1: pull(2.0)})

    after, report = one_round(algorithm, {0: pull(1.0), 1: pull(float("nan"))}, snapshot)

    assert [left.client for left in report.left_out] == [1]
    assert control_of(after, 1) == control_of(snapshot, 1)


def test_controls_have_no_personal_leaves(one_round):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    data = {"x": torch.ones(4, 2), "y": tensor([0, 1, 1, 0])}
    algorithm = personalize(fm.scaffold(fm.local.sgd(fm.classifier(model), lr=0.1)), "1.*")

    snapshot, _ = one_round(algorithm, {0: data, 1: data})

    assert set(snapshot.state["control"]) == {"0.weight", "0.bias"}
    assert set(snapshot.own[0]["control"]) == {"0.weight", "0.bias"}
    assert trees.norm(snapshot.own[0]["control"]) > 0


class Both(torch.nn.Module):
    """Give x * (shared + mine), whose two gradients autograd keeps in one piece of memory."""

    def __init__(self):
        super().__init__()
        self.shared = torch.nn.Parameter(torch.zeros(1, dtype=F64))
        self.mine = torch.nn.Parameter(torch.zeros(1, dtype=F64))

    def forward(self, x):
        return x * (self.shared + self.mine)


def test_a_control_moves_no_personal_leaf(pull, one_round):
    objective = fm.objective(Both(), lambda outputs, _: outputs.sum(1), target=None)
    work = fm.local.personal(fm.local.sgd(objective, lr=0.5), "mine")
    clients, snapshot = {0: pull(1.0, dtype=F64), 1: pull(5.0, dtype=F64)}, None

    for _ in range(2):
        snapshot, _ = one_round(fm.scaffold(work), clients, snapshot)

    # Shared leaves move by the mean gradient 3, each client's own by its own.
    assert snapshot.state["params"]["shared"].item() == pytest.approx(-3.0)
    mine = [snapshot.own[client]["kept"]["params"]["mine"].item() for client in clients]
    assert mine == pytest.approx([-1.0, -5.0])


class Constant(torch.nn.Module):
    """Give w for every row."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, x):
        return self.w


def test_controls_do_not_leak_into_the_gradients_of_others(pull, one_round):
    # Its gradient is the 1 that autograd begins with, whichever client's or run's it is.
    objective = fm.objective(Constant(), lambda outputs, _: outputs, target=None)
    algorithm = fm.scaffold(fm.local.sgd(objective, lr=0.5))
    clients = {0: pull(1.0, dtype=F64), 1: pull(1.0, dtype=F64)}
    snapshot, _ = one_round(algorithm, clients)

    state = {**snapshot.state, "control": {"w": torch.tensor(4.0, dtype=F64)}}
    snapshot, _ = one_round(algorithm, clients, snapshot._replace(state=state))

    # -0.5, then each -0.5 * (1 + 4 - 1).
    assert snapshot.state["params"]["w"].item() == pytest.approx(-2.5)
    fresh, _ = one_round(fm.fedavg(fm.local.sgd(objective, lr=0.5)), clients)
    assert fresh.state["params"]["w"].item() == -0.5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"option": 3}, "option must be 1 or 2, as in the paper, but is 3"),
        ({"server": "adam"}, "server must be an optimizer"),
        ({"aggregator": fm.aggregators.total()}, r"scaffold\(\) needs the mean over clients"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(options, reason, line):
    with pytest.raises(SettingsError, match=reason):
        fm.scaffold(fm.local.sgd(line(), lr=0.1), **options)


def test_option_2_refuses_steps_that_are_not_proportional_and_option_1_takes_them(line):
    work = fm.local.descent(line(), fm.optimizers.adam(0.1))

    with pytest.raises(SettingsError, match=r"steps of adam are not proportional.*option=1"):
        fm.scaffold(work)
    assert fm.scaffold(work, option=1).name == "scaffold"


def test_work_without_a_seam_is_refused(line):
    with pytest.raises(SettingsError, match="'evaluate' writes its own step"):
        fm.scaffold(fm.local.evaluate(line()))
    with pytest.raises(SettingsError, match=r"needs local work.*was given a Linear"):
        fm.scaffold(torch.nn.Linear(1, 1))
