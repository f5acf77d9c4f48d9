"""Mime and MimeLite: local steps with the server's optimizer state, which they leave as it is.

Karimireddy et al., "Breaking the Centralized Barrier for Cross-Device Federated Learning", NeurIPS
2021, arXiv:2008.03606, algorithm 1. The base optimizer is the work's own: momentum of
`local.sgd(...)`, Adam of `local.descent(...)`. Its state lives at the server, which renews it with
the cohort's mean gradient at the broadcast model. Mime adds an SVRG correction to local gradients.

Departures: momentum is v = beta * v + g; the paper damps g by 1 - beta, so that its rate is
lr / (1 - beta). A `server` optimizer may step along the mean delta, which the paper adds. A plan of
fewer steps than an epoch gives MimeLite the gradient over the batches that they reach.
`clip_gradient` bounds local steps only. Personal leaves are trained by gradients without correction
and with a state that is always fresh (but for Adam's count of steps): nothing of theirs is sent.
BatchNorm statistics are averaged.

State: beside the model, the base optimizer's state. Cost of Mime: two exchanges with one cohort;
down travel the model, twice, the state and a gradient, up a gradient and a delta; an epoch of
gradients, and two gradients a local step. Cost of MimeLite: one exchange; down travel the model and
the state, up a gradient and a delta; two gradients a local step of the first epoch.
"""

import torch
from torch import Tensor

from folkmoot.aggregators import uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregate, Aggregator, Update
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Round, Seen, Task, unchanged
from folkmoot.core.tree import Tree
from folkmoot.local.composed import optimizer_of, refuse_no_mean, refuse_no_optimizer, seam
from folkmoot.local.full_gradient import beside, full_gradient
from folkmoot.local.full_gradient import mean as mean_gradient
from folkmoot.local.grad import plus
from folkmoot.local.parts import PARTS, but
from folkmoot.optimizers import Optimizer, sgd, stepped


def mime(
    work: LocalWork, *, server: Optimizer | None = None, aggregator: Aggregator | None = None
) -> Algorithm:
    """Build Mime.

    Args:
        work: What a client does; its optimizer is the base optimizer, such as that of
            `local.sgd(..., momentum=0.9)`.
        server: Optimizer that steps along the mean delta; None is `optimizers.sgd(1.0)`.
        aggregator: How gradients, and then deltas, are combined; None is `uniform_mean()`, the
            paper's.

    Returns:
        An algorithm of two exchanges a round.

    Raises:
        SettingsError: If the work writes its own step, or a part is none.
    """
    local = _with_control(_with_state("mime", work))
    return _algorithm("mime", work, (local, full_gradient(work)), server, aggregator)


def mimelite(
    work: LocalWork, *, server: Optimizer | None = None, aggregator: Aggregator | None = None
) -> Algorithm:
    """Build MimeLite: Mime without the correction, and with one exchange a round.

    Args:
        work, server, aggregator: As in `mime`.

    Raises:
        SettingsError: If the work writes its own step, or a part is none.
    """
    local = _with_gradient(_with_state("mimelite", work))
    return _algorithm("mimelite", work, (local,), server, aggregator)


def _algorithm(
    name: str,
    work: LocalWork,
    works: tuple[LocalWork, ...],
    server: Optimizer | None,
    aggregator: Aggregator | None,
) -> Algorithm:
    """Build the server's half; gradients are asked for first where there is a work for them."""
    rule = uniform_mean() if aggregator is None else aggregator
    outer = sgd(1.0) if server is None else server
    base, (local, *asked) = work.optimizer, works
    refuse_no_optimizer(outer)
    refuse_no_mean(name, rule)

    def init() -> Tree:
        model = work.init()
        return {
            **model,
            "base": base.init(model["params"]),
            "optimizer": outer.init(model["params"]),
            "round": torch.ones((), dtype=torch.int64),
        }

    def round(state: Tree) -> Round:
        sent = {key: state[key] for key in ("params", "buffers", "counts", "round")}
        control: Tree = {}
        for first in asked:
            gradient = yield Task(sent, first, rule)
            control = {"control": gradient.value["gradient"]}
        mean = yield Task({**sent, "base": state["base"], **control}, local, rule)
        return after(state, mean, control["control"] if control else mean.value["gradient"])

    def after(state: Tree, mean: Aggregate, gradient: Tree) -> Tree:
        params, optimizer = stepped(outer, state, mean.value["params"])
        # s = V(c, s): a step at the broadcast model of which the state alone is kept.
        left, renewed = trees.clone(state["params"]), trees.clone(state["base"])
        base.step(left, gradient, renewed, int(state["round"]), -1.0)
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "base": renewed,
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm(name, init, round, works)


def _with_state(verb: str, work: LocalWork) -> LocalWork:
    """Step with the optimizer state that is broadcast, which no step changes."""
    base: Optimizer = optimizer_of(verb, work)

    def moved(params: Tree, direction: Tree, state: Tree, round: int, sign: float) -> None:
        base.step(params, direction, trees.clone(state), round, sign)

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        carry = work.start(sent, own, key)
        return {**carry, "optimizer": _over(carry["optimizer"], sent["base"])}

    # Steps are no longer those whose reach is known.
    return work.changed(start=start, optimizer=base._replace(step=moved, reach=None))


def _over(fresh: Tree, sent: Tree) -> Tree:
    """Lay a broadcast state over a fresh one: personal leaves are in the fresh one only."""
    return {
        key: _over(part, sent[key]) if isinstance(part, dict) else sent.get(key, part)
        for key, part in fresh.items()
    }


def _with_control(work: LocalWork) -> LocalWork:
    """Add c - grad(x; batch) to every local gradient, x the model with which the work begins."""
    before = seam("mime", work)

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        carry = work.start(sent, own, key)
        return {**carry, "first": trees.clone({part: carry[part] for part in PARTS})}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        first = carry["first"]
        at = first["params"], first["buffers"], first["counts"]
        gradient, _ = outer.objective.grad(*at, batch)
        there = {name: gradient[name] for name in sent["control"]}
        inner = {**but(carry, "first"), "own": {**carry["own"], "there": there}}
        after = work.step(outer, sent, inner, batch)
        return {**after, "own": but(after["own"], "there"), "first": first}

    def correct(gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
        # What both have in common goes first, for it cancels to the last bit.
        if before is unchanged:
            return plus(plus(gradient, own["there"], -1.0), sent["control"])
        away = trees.sub(before(gradient, params, sent, own), own["there"])
        return trees.add(away, sent["control"])

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return work.finish(sent, but(carry, "first"), seen)

    return work.changed(start=start, step=step, correct=correct, finish=finish)


def _with_gradient(work: LocalWork) -> LocalWork:
    """Send the gradient at the broadcast model beside the delta."""
    work = beside(work)

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        value = {**update.value, "gradient": mean_gradient(sent, carry, seen)}
        return update._replace(value=value), own

    return work.changed(finish=finish)
