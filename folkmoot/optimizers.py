"""Optimizers, for a client's local steps and for the server's step on the mean delta.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, arXiv:2003.00295 (adagrad, adam and yogi
on the server: v starts at tau^2 and there is no bias correction, as in the paper's algorithm 2;
both can be changed). Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
arXiv:1711.05101 (adamw).

A server steps along the mean delta (sign 1), a client against its gradient (sign -1). `step` writes
into the parameters and the state that it is given; who wants to keep them passes copies.
"""

from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree

Rate = float | Callable[[int], float]
"""A learning rate, or a function from the round (from 1) to one."""


class Optimizer(NamedTuple):
    """A first state, and a step along a direction that writes into parameters and state.

    `init(params)` -> state; `step(params, direction, state, round, sign)`.
    """

    name: str
    init: Callable[[Tree], Tree]
    step: Callable[[Tree, Tree, Tree, int, float], None]
    scheduled: bool = False
    """Whether the rate depends on the round."""
    reach: Callable[[float | Tensor, int], float | Tensor] | None = None
    """`reach(steps, round)`: how far so many steps move a parameter whose gradient stays 1.

    None where a step is not proportional to gradients, as Adam's.
    """
    rate: Rate | None = None
    """The rate, where a step is the rate times the direction and nothing else."""


def stepped(server: Optimizer, state: Tree, direction: Tree) -> tuple[Tree, Tree]:
    """Return a state's parameters and optimizer state after a server's step; the state stays.

    Args:
        server: The optimizer.
        state: An algorithm's, with "params", "optimizer" and "round".
        direction: What to step along, such as the mean delta.
    """
    params, optimizer = trees.clone(state["params"]), trees.clone(state["optimizer"])
    server.step(params, direction, optimizer, int(state["round"]), 1.0)
    return params, optimizer


def rate_at(lr: Rate, round: int) -> float:
    """Return the learning rate of a round."""
    return lr(round) if callable(lr) else lr


def sgd(
    lr: Rate = 1.0, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> Optimizer:
    """Move by `lr` along the direction, or along its running sum with momentum.

    On the server `sgd(1.0)` is FedAvg and `sgd(1.0, momentum=0.9)` is FedAvgM (Hsu et al.,
    arXiv:1909.06335).

    Args:
        lr: Learning rate, at least 0, or a function of the round.
        momentum: Share of the last step that is kept, in [0, 1).
        nesterov: Look ahead by one momentum step.
        weight_decay: Pull towards 0, per unit of `lr`.

    Raises:
        SettingsError: If a number is out of range.
    """
    _check_rate(lr)
    _check_share(momentum=momentum)
    not_negative(weight_decay=weight_decay)
    if nesterov and not momentum:
        raise SettingsError(
            "nesterov=True looks ahead by the momentum: give one, such as momentum=0.9."
        )

    def init(params: Tree) -> Tree:
        return {"velocity": trees.zeros_like(params)} if momentum else {}

    def step(params: Tree, direction: Tree, state: Tree, round: int, sign: float) -> None:
        leaves, moves = trees.leaves(params), trees.aligned(params, direction)
        if weight_decay:
            moves = trees.each("add", moves, leaves, alpha=-sign * weight_decay)
        if momentum:
            velocity = trees.aligned(params, state["velocity"])
            trees.each("mul_", velocity, momentum)
            trees.each("add_", velocity, moves)
            moves = trees.each("add", moves, velocity, alpha=momentum) if nesterov else velocity
        trees.each("add_", leaves, moves, alpha=sign * rate_at(lr, round))

    def reach(steps: float | Tensor, round: int) -> float | Tensor:
        # Engines that map clients count in int64, whose quotients would be float32.
        steps = steps.double() if isinstance(steps, Tensor) else steps
        # The k-th move is 1 + momentum + ... + momentum^(k - 1); Nesterov's looks one step ahead.
        kept = momentum * (1 - momentum**steps) / (1 - momentum)
        moved = (steps - kept) / (1 - momentum)
        return rate_at(lr, round) * (steps + momentum * moved if nesterov else moved)

    plain = not momentum and not weight_decay
    return Optimizer("sgd", init, step, callable(lr), reach, lr if plain else None)


def adagrad(
    lr: Rate, *, tau: float = 1e-3, beta_1: float = 0.0, v_0: float | None = None
) -> Optimizer:
    """Divide by the root of the sum of squared directions (FedAdagrad on the server).

    v += d * d;  m = beta_1 * m + (1 - beta_1) * d;  x += lr * m / (sqrt(v) + tau)

    Args:
        lr: Learning rate, or a function of the round.
        tau: Degree of adaptivity, above 0: the smallest divisor.
        beta_1: Share of the last direction that is kept, in [0, 1).
        v_0: First value of v; None is the paper's tau^2.
    """

    def second(v: list[Tensor], square: list[Tensor]) -> None:
        trees.each("add_", v, square)

    return _adaptive("adagrad", lr, tau, beta_1, v_0, second)


def adam(
    lr: Rate,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    v_0: float | None = None,
    bias_correction: bool = False,
) -> Optimizer:
    """Divide by the root of a running mean of squared directions (FedAdam on the server).

    m = beta_1 * m + (1 - beta_1) * d;  v = beta_2 * v + (1 - beta_2) * d * d;  x += lr * m /
    (sqrt(v) + tau)

    Args:
        lr: Learning rate, or a function of the round.
        beta_1: Share of the last direction that is kept, in [0, 1).
        beta_2: Share of the last square that is kept, in [0, 1).
        tau: Degree of adaptivity, above 0.
        v_0: First value of v; None is the paper's tau^2, or 0 with bias correction.
        bias_correction: Divide m and v by 1 - beta^t, as Kingma and Ba do.
    """
    second = _running(beta_2)
    return _adaptive("adam", lr, tau, beta_1, v_0, second, beta_2 if bias_correction else None)


def adamw(
    lr: Rate,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    tau: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """Adam with bias correction and decoupled weight decay: PyTorch's AdamW, for local training.

    Args:
        lr: Learning rate, or a function of the round.
        beta_1: Share of the last direction that is kept, in [0, 1).
        beta_2: Share of the last square that is kept, in [0, 1).
        tau: Smallest divisor, above 0.
        weight_decay: Share of each parameter that is taken away, per unit of `lr`.
    """
    not_negative(weight_decay=weight_decay)
    second = _running(beta_2)
    return _adaptive("adamw", lr, tau, beta_1, 0.0, second, beta_2, weight_decay)


def yogi(
    lr: Rate,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    v_0: float | None = None,
    bias_correction: bool = False,
) -> Optimizer:
    """Let the second moment grow only as fast as it falls (FedYogi on the server).

    v -= (1 - beta_2) * d * d * sign(v - d * d); the rest is `adam`. Zaheer et al., NeurIPS 2018.

    Args:
        lr: Learning rate, or a function of the round.
        beta_1: Share of the last direction that is kept, in [0, 1).
        beta_2: One minus the share by which v moves, in [0, 1).
        tau: Degree of adaptivity, above 0.
        v_0: First value of v; None is the paper's tau^2, or 0 with bias correction.
        bias_correction: Divide m and v by 1 - beta^t, as in `adam`.
    """
    _check_share(beta_2=beta_2)

    def second(v: list[Tensor], square: list[Tensor]) -> None:
        signs = trees.each("sign", trees.each("sub", v, square))
        _add_fused("addcmul_", "mul", v, square, signs, -(1 - beta_2))

    return _adaptive("yogi", lr, tau, beta_1, v_0, second, beta_2 if bias_correction else None)


def _running(beta_2: float) -> Callable[[list[Tensor], list[Tensor]], None]:
    _check_share(beta_2=beta_2)

    def second(v: list[Tensor], square: list[Tensor]) -> None:
        trees.each("mul_", v, beta_2)
        trees.each("add_", v, square, alpha=1 - beta_2)

    return second


def _add_fused(
    fused: str, join: str, target: list[Tensor], one: list[Tensor], other: list[Tensor], by: float
) -> None:
    """Add by * (one * other), or by * (one / other): in two operations on mapped leaves.

    The fused ones have no batching rule.
    """
    if target and not trees.is_ordinary(target[0]):
        trees.each("add_", target, trees.each(join, one, other), alpha=by)
    else:
        trees.each(fused, target, one, other, value=by)


def _adaptive(
    name: str,
    lr: Rate,
    tau: float,
    beta_1: float,
    v_0: float | None,
    second: Callable[[list[Tensor], list[Tensor]], None],
    corrected_beta_2: float | None = None,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Build an optimizer with first moment m and second moment v; `second` moves v by a square."""
    _check_rate(lr)
    _check_share(beta_1=beta_1)
    positive(tau=tau)
    if v_0 is None:
        v_0 = 0.0 if corrected_beta_2 is not None else tau**2
    not_negative(v_0=v_0)

    def init(params: Tree) -> Tree:
        first = trees.map(lambda leaf: torch.full_like(leaf, v_0), params)
        state: Tree = {"m": trees.zeros_like(params), "v": first}
        if corrected_beta_2 is not None:
            state["steps"] = torch.zeros((), dtype=torch.float64)
        return state

    def step(params: Tree, direction: Tree, state: Tree, round: int, sign: float) -> None:
        leaves, moves = trees.leaves(params), trees.aligned(params, direction)
        m, v = trees.aligned(params, state["m"]), trees.aligned(params, state["v"])
        trees.each("mul_", m, beta_1)
        trees.each("add_", m, moves, alpha=1 - beta_1)
        second(v, trees.each("mul", moves, moves))
        if weight_decay:
            trees.each("mul_", leaves, 1 - rate_at(lr, round) * weight_decay)
        numerator, root = m, trees.each("sqrt", v)
        if corrected_beta_2 is not None:
            state["steps"].add_(1)
            share_1 = 1 - beta_1 ** state["steps"]
            share_2 = (1 - corrected_beta_2 ** state["steps"]).sqrt()
            numerator = [(leaf / share_1).to(leaf.dtype) for leaf in m]
            root = [(leaf / share_2).to(leaf.dtype) for leaf in root]
        trees.each("add_", root, tau)
        _add_fused("addcdiv_", "div", leaves, numerator, root, sign * rate_at(lr, round))

    return Optimizer(name, init, step, callable(lr))


def _check_rate(lr: Rate) -> None:
    if not callable(lr):
        not_negative(lr=lr)


def _check_share(**values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 <= value < 1:
            raise SettingsError(f"{name} must be in [0, 1), but is {value!r}.")
