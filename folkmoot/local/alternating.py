"""Two turns of local work: personal leaves move first, while shared ones rest, and then these.

Collins et al., "Exploiting Shared Representations for Personalized Federated Learning", ICML 2021,
arXiv:2102.07078, the client's half of algorithm 1. A leaf that rests does not move at all: it takes
no part in the step, has an optimizer's state of its own, and does not count where a gradient is
clipped. Batch statistics are no leaves that are learnt; they follow every pass.
"""

from typing import Any

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch, LocalWork
from folkmoot.core.tree import Tree
from folkmoot.local.composed import optimizer_of, seam
from folkmoot.optimizers import Optimizer

Turn = bool | Tensor


def alternating(verb: str, work: LocalWork, kept: frozenset[str], first: int) -> LocalWork:
    """Let some leaves move in the first epochs of local work, and only the others behind them.

    Args:
        verb: Who asks, for a refusal.
        work: Any work with a seam between gradient and step, such as `local.sgd(...)`. Its plan is
            that of the other leaves.
        kept: Names of the leaves that move first.
        first: Epochs that are put in front; steps, where the plan is of steps. At least 1.

    Raises:
        SettingsError: If the work writes its own step.
    """
    seam(verb, work)
    optimizer_of(verb, work)
    plan, by_steps = work.plan, work.plan.epochs is None
    plan = (
        plan._replace(steps=(plan.steps or 0) + first)
        if by_steps
        else plan._replace(epochs=(plan.epochs or 0) + first)
    )

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        carry = work.start(sent, own, key)
        state = {
            turn: work.optimizer.init(_of(carry["params"], kept, turn == "first"))
            for turn in ("first", "then")
        }
        done = {"done": torch.zeros((), dtype=torch.int64)} if by_steps else {}
        return {**carry, **done, "optimizer": state}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        is_first = (carry["done"] if by_steps else batch.epoch) < first

        def correct(gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
            if outer.correct is not None:
                gradient = outer.correct(gradient, params, sent, own)
            return {
                name: _where(is_first if name in kept else _not(is_first), leaf, None)
                for name, leaf in gradient.items()
            }

        moving = _turned(outer.optimizer, kept, is_first)
        carry = work.step(outer._replace(optimizer=moving, correct=correct), sent, carry, batch)
        if by_steps:
            carry["done"].add_(1)
        return carry

    return work.changed(plan=plan, start=start, step=step)


def _turned(optimizer: Any, kept: frozenset[str], is_first: Turn) -> Optimizer:
    """Return an optimizer that moves only the leaves whose turn it is, with a state for each."""

    def step(params: Tree, direction: Tree, state: Tree, round: int, sign: float) -> None:
        for turn, active in (("first", is_first), ("then", _not(is_first))):
            if active is False:
                continue
            moved = {"params": _of(params, kept, turn == "first"), "state": state[turn]}
            before = trees.clone(moved) if isinstance(active, Tensor) else {}
            ahead = _of(direction, kept, turn == "first")
            optimizer.step(moved["params"], ahead, moved["state"], round, sign)
            if before:
                trees.map(
                    lambda leaf, old, active=active: leaf.copy_(_where(active, leaf, old)),
                    moved,
                    before,
                )

    return optimizer._replace(step=step, rate=None)


def _of(params: Tree, kept: frozenset[str], first: bool) -> Tree:
    return {name: leaf for name, leaf in params.items() if (name in kept) == first}


def _not(turn: Turn) -> Turn:
    return ~turn if isinstance(turn, Tensor) else not turn


def _where(active: Turn, leaf: Tensor, otherwise: Tensor | None) -> Tensor:
    """Return a leaf where its turn is, which under vmap is known for each client only."""
    if active is True:
        return leaf
    otherwise = torch.zeros_like(leaf) if otherwise is None else otherwise
    return torch.where(active, leaf, otherwise) if isinstance(active, Tensor) else otherwise
