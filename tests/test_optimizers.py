"""Optimizers equal PyTorch's where PyTorch has them, and the papers' formulas where it has not."""

import math

import pytest
import torch
from torch import tensor

from folkmoot import optimizers
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

STEPS = 5


def start(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    return {
        "w": torch.randn(3, 2, generator=draw, dtype=dtype),
        "in": {"b": torch.randn(2, generator=draw, dtype=dtype)},
    }


def gradients(dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)
    return [
        trees.map(lambda leaf: torch.randn(leaf.shape, generator=draw, dtype=dtype), start(dtype))
        for _ in range(STEPS)
    ]


def ours(optimizer, directions, sign=-1.0, dtype=torch.float64):
    params = start(dtype)
    state = optimizer.init(params)
    for number, direction in enumerate(directions, 1):
        optimizer.step(params, direction, state, number, sign)
    return trees.leaves(params)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        (optimizers.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (optimizers.sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (
            optimizers.sgd(0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        ),
        (
            optimizers.sgd(0.1, weight_decay=0.3),
            lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.3),
        ),
        (
            optimizers.sgd(0.1, momentum=0.5, nesterov=True, weight_decay=0.3),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, nesterov=True, weight_decay=0.3),
        ),
        (
            optimizers.adam(0.1, beta_2=0.999, tau=1e-8, bias_correction=True),
            lambda p: torch.optim.Adam(p, 0.1),
        ),
        (
            optimizers.adam(0.1, beta_1=0.5, beta_2=0.9, tau=0.01, bias_correction=True),
            lambda p: torch.optim.Adam(p, 0.1, betas=(0.5, 0.9), eps=0.01),
        ),
        (optimizers.adamw(0.1), lambda p: torch.optim.AdamW(p, 0.1)),
        (
            optimizers.adamw(0.1, weight_decay=0.5, tau=1e-3),
            lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.5, eps=1e-3),
        ),
        (
            optimizers.adagrad(0.1, v_0=0.2, tau=1e-6),
            lambda p: torch.optim.Adagrad(p, 0.1, initial_accumulator_value=0.2, eps=1e-6),
        ),
    ],
    ids=[
        "sgd",
        "momentum",
        "nesterov",
        "weight decay",
        "all of sgd",
        "adam",
        "adam with other numbers",
        "adamw",
        "adamw with other numbers",
        "adagrad",
    ],
)
def test_against_the_gradient_it_is_pytorch_s_optimizer(optimizer, theirs, dtype):
    params = [leaf.clone().requires_grad_() for leaf in trees.leaves(start(dtype))]
    reference = theirs(params)
    for gradient in gradients(dtype):
        for leaf, slope in zip(params, trees.leaves(gradient), strict=True):
            leaf.grad = slope.clone()
        reference.step()

    found = ours(optimizer, gradients(dtype), dtype=dtype)

    tolerance = {"rtol": 1e-12, "atol": 1e-14} if dtype == torch.float64 else {}
    for leaf, expected in zip(found, params, strict=True):
        torch.testing.assert_close(leaf, expected.detach(), **tolerance)


def test_yogi_is_as_worked_by_hand():
    # beta_1 = 0.5, beta_2 = 0.75, tau = 0.5, v_0 = 1, lr = 1, d = 2 then 0.5.
    params, optimizer = (
        {"w": tensor([0.0], dtype=torch.float64)},
        optimizers.yogi(1.0, beta_1=0.5, beta_2=0.75, tau=0.5, v_0=1.0),
    )
    state = optimizer.init(params)

    optimizer.step(params, {"w": tensor([2.0], dtype=torch.float64)}, state, 1, 1.0)
    # d * d = 4 > v, so v = 1 + 0.25 * 4 = 2; m = 1.
    first = 1 / (math.sqrt(2) + 0.5)
    assert params["w"].item() == pytest.approx(first, rel=1e-12)

    optimizer.step(params, {"w": tensor([0.5], dtype=torch.float64)}, state, 2, 1.0)
    # d * d = 0.25 < v, so v = 2 - 0.25 * 0.25 = 1.9375; m = 0.5 * 1 + 0.5 * 0.5 = 0.75.
    second = first + 0.75 / (math.sqrt(1.9375) + 0.5)
    assert params["w"].item() == pytest.approx(second, rel=1e-12)


def test_yogi_leaves_v_where_the_square_equals_it():
    params, optimizer = {"w": tensor([0.0])}, optimizers.yogi(1.0, v_0=4.0)
    state = optimizer.init(params)

    optimizer.step(params, {"w": tensor([2.0])}, state, 1, 1.0)

    assert state["v"]["w"].item() == 4.0


def test_adagrad_is_as_worked_by_hand():
    # tau = 0.5, v_0 = 0, beta_1 = 0.5, lr = 2, d = 3 then -4.
    params, optimizer = (
        {"w": tensor([0.0], dtype=torch.float64)},
        optimizers.adagrad(2.0, tau=0.5, v_0=0.0, beta_1=0.5),
    )
    state = optimizer.init(params)

    optimizer.step(params, {"w": tensor([3.0], dtype=torch.float64)}, state, 1, 1.0)
    optimizer.step(params, {"w": tensor([-4.0], dtype=torch.float64)}, state, 2, 1.0)

    # v: 9 then 25; m: 1.5 then 0.75 - 2 = -1.25.
    expected = 2 * 1.5 / (3 + 0.5) + 2 * -1.25 / (5 + 0.5)
    assert params["w"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("build", [optimizers.adagrad, optimizers.adam, optimizers.yogi])
def test_v_starts_at_tau_squared_as_in_the_paper(build):
    state = build(0.1, tau=0.25).init({"w": torch.zeros(2)})

    assert state["v"]["w"].tolist() == [0.0625, 0.0625]
    assert state["m"]["w"].tolist() == [0.0, 0.0]


def test_with_bias_correction_v_starts_at_zero():
    assert optimizers.adam(0.1, bias_correction=True).init({"w": torch.ones(1)})["v"]["w"] == 0
    assert optimizers.adamw(0.1).init({"w": torch.ones(1)})["v"]["w"] == 0


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.sgd(0.5, momentum=0.9, nesterov=True),
        optimizers.adagrad(0.5),
        optimizers.adam(0.5),
        optimizers.adam(0.5, bias_correction=True),
        optimizers.yogi(0.5),
    ],
    ids=["sgd", "adagrad", "adam", "adam with bias correction", "yogi"],
)
def test_the_server_s_way_along_is_the_client_s_way_against_the_negative(optimizer):
    moves = gradients()

    along = ours(optimizer, moves, sign=1.0)
    against = ours(optimizer, [trees.scale(-1.0, move) for move in moves], sign=-1.0)

    for one, other in zip(along, against, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["server", "client"])
@pytest.mark.parametrize("build", [optimizers.sgd, optimizers.adamw], ids=["sgd", "adamw"])
def test_weight_decay_pulls_towards_zero_on_both_sides(build, sign):
    params, optimizer = {"w": tensor([4.0, -4.0])}, build(0.5, weight_decay=0.25)

    optimizer.step(params, {"w": torch.zeros(2)}, optimizer.init(params), 1, sign)

    assert params["w"].tolist() == [3.5, -3.5]  # 4 - 0.5 * 0.25 * 4


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw", "sgd", "yogi"])
def test_a_rate_may_depend_on_the_round(name):
    build = getattr(optimizers, name)
    scheduled = build(lambda round: 1.0 / round)
    state, plain = scheduled.init(start()), build(0.25)

    fourth, constant = start(), start()
    scheduled.step(fourth, gradients()[0], state, 4, -1.0)
    plain.step(constant, gradients()[0], plain.init(start()), 1, -1.0)

    assert (scheduled.scheduled, plain.scheduled) == (True, False)
    for one, other in zip(trees.leaves(fourth), trees.leaves(constant), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw", "sgd", "yogi"])
def test_a_step_writes_into_params_and_state_but_not_into_the_direction(name):
    optimizer = getattr(optimizers, name)(0.1)
    params, direction = start(), gradients()[0]
    memory = [leaf.data_ptr() for leaf in trees.leaves(params)]

    optimizer.step(params, direction, optimizer.init(params), 1, 1.0)

    assert [leaf.data_ptr() for leaf in trees.leaves(params)] == memory
    for moved, still in zip(trees.leaves(params), trees.leaves(start()), strict=True):
        assert not torch.equal(moved, still)
    for left, right in zip(trees.leaves(direction), trees.leaves(gradients()[0]), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw", "sgd", "yogi"])
def test_the_first_state_shares_no_memory_with_the_params(name):
    options = {"momentum": 0.9} if name == "sgd" else {}
    params = start()
    state = getattr(optimizers, name)(0.1, **options).init(params)

    for leaf in trees.leaves(state):
        leaf.fill_(7.0)

    assert all(
        torch.equal(leaf, still)
        for leaf, still in zip(trees.leaves(params), trees.leaves(start()), strict=True)
    )
    assert trees.leaves(state)


def test_a_direction_finds_its_leaf_by_name():
    params = {"a": tensor([0.0]), "b": tensor([0.0])}
    direction = {"b": tensor([2.0]), "a": tensor([1.0])}

    for optimizer in (optimizers.sgd(1.0), optimizers.sgd(1.0, momentum=0.5)):
        moved = trees.clone(params)
        optimizer.step(moved, direction, optimizer.init(moved), 1, 1.0)
        assert (moved["a"].item(), moved["b"].item()) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: optimizers.sgd(-0.1), "lr must be a finite number of at least 0, but is -0.1"),
        (lambda: optimizers.sgd(math.nan), "lr must be"),
        (lambda: optimizers.sgd(math.inf), "lr must be"),
        (lambda: optimizers.sgd(0.1, momentum=1.0), r"momentum must be in \[0, 1\), but is 1.0"),
        (lambda: optimizers.sgd(0.1, momentum=-0.1), "momentum must be in"),
        (lambda: optimizers.sgd(0.1, weight_decay=-1), "weight_decay must be"),
        (lambda: optimizers.sgd(0.1, nesterov=True), "momentum=0.9"),
        (lambda: optimizers.adam(0.1, beta_1=1.0), "beta_1 must be in"),
        (lambda: optimizers.adam(0.1, beta_2=math.nan), "beta_2 must be in"),
        (lambda: optimizers.adam(0.1, tau=0.0), "tau must be a finite number above 0"),
        (lambda: optimizers.adam(0.1, v_0=-1.0), "v_0 must be"),
        (lambda: optimizers.adamw(0.1, weight_decay=math.inf), "weight_decay must be"),
        (lambda: optimizers.adamw(-1.0), "lr must be"),
        (lambda: optimizers.yogi(0.1, beta_2=1.5), "beta_2 must be in"),
        (lambda: optimizers.adagrad(0.1, beta_1=-1), "beta_1 must be in"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(build, reason):
    with pytest.raises(SettingsError, match=reason):
        build()
