"""Local training: steps of an optimizer along the (corrected) gradient.

McMahan et al., AISTATS 2017, arXiv:1602.05629, ClientUpdate. The weight of an update is the number
of examples that its steps worked through, at most an epoch's. Momentum and other optimizer state
begin anew for each client and round.
"""

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Objective, Plan, Seen, unchanged
from folkmoot.core.errors import SettingsError, positive
from folkmoot.core.tree import Tree, is_ordinary
from folkmoot.local.proximal import Pull
from folkmoot.optimizers import Optimizer, Rate, rate_at
from folkmoot.optimizers import sgd as plain_sgd


def sgd(
    objective: Objective,
    *,
    lr: Rate,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip_gradient: float | None = None,
    shuffle: bool = True,
    last: str = "keep",
) -> LocalWork:
    """Train by stochastic gradient descent on each client.

    Args:
        objective: Model, loss and metrics, such as `classifier(model)`.
        lr: Learning rate, or a function from the round (from 1) to one.
        epochs: Passes over the client's examples; 1 where `steps` is not given either.
        steps: Steps to do instead, passing over the examples as often as needed.
        batch_size: Rows a step; None for all rows at once.
        momentum: Share of the last step that is kept, in [0, 1).
        nesterov: Look ahead by one momentum step.
        weight_decay: Pull towards 0, added to the gradient.
        clip_gradient: Largest L2 norm of one step's gradient; None leaves it.
        shuffle: Whether each epoch has an order of its own.
        last: A short last batch: "keep" it, "drop" it, or "join" it to the one before. Models with
            batch statistics always join a last batch of one row.

    Raises:
        SettingsError: If a number is out of range, or the objective is a bare module.
    """
    optimizer = plain_sgd(lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    return descent(
        objective,
        optimizer,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        clip_gradient=clip_gradient,
        shuffle=shuffle,
        last=last,
    )


def descent(
    objective: Objective,
    optimizer: Optimizer,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = 10,
    clip_gradient: float | None = None,
    shuffle: bool = True,
    last: str = "keep",
) -> LocalWork:
    """Train with any optimizer on each client; `sgd` is this with `optimizers.sgd`.

    Args:
        objective: Model, loss and metrics.
        optimizer: From `folkmoot.optimizers`, such as `adam(0.001)`; its state begins anew each
            round.
        epochs, steps, batch_size, clip_gradient, shuffle, last: As in `sgd`.
    """
    if isinstance(objective, torch.nn.Module | type) or not hasattr(objective, "grad"):
        kind = "class" if isinstance(objective, type) else "module"
        name = getattr(objective, "__name__", type(objective).__name__)
        raise SettingsError(
            f"Local work needs an objective, but was given the {kind} {name}. Say what is learnt: "
            "fm.classifier(model), fm.regressor(model), or fm.objective(model, loss)."
        )
    if not isinstance(optimizer, Optimizer):
        raise SettingsError(
            f"optimizer must be built, such as fm.optimizers.adam(0.001), but is {optimizer!r}."
        )
    if clip_gradient is not None:
        positive(clip_gradient=clip_gradient)
    plan = Plan(
        epochs if epochs is not None or steps is not None else 1, steps, batch_size, shuffle, last
    )

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {
            "params": sent["params"],
            "buffers": sent["buffers"],
            "counts": sent["counts"],
            "optimizer": optimizer.init(sent["params"]),
            "own": own,
        }

    def step(work: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        params = carry["params"]
        gradient, _ = work.objective.grad(params, carry["buffers"], carry["counts"], batch)
        # The work's own, so that a transform which replaces it is heard.
        moving, correct = work.optimizer, work.correct
        round_number = int(sent["round"]) if moving.scheduled else 0
        pull = None
        if isinstance(correct, Pull) and clip_gradient is None and _is_plain(moving, params):
            pull, correct = correct, correct.before
        if correct is not None and correct is not unchanged:
            gradient = correct(gradient, params, sent, carry["own"])
        if clip_gradient is not None:
            length = trees.norm(gradient)
            gradient = trees.scale(clip_gradient / length.clamp(min=clip_gradient), gradient)
        if pull is not None:
            pull.draw_(params, sent, rate_at(moving.rate, round_number))
        moving.step(params, gradient, carry["optimizer"], round_number, -1.0)
        return carry

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        # A delta is local minus broadcast, so that the server adds it.
        delta = trees.sub(_floats(carry), _floats(sent))
        return Update(delta, seen.examples, carry["counts"]), carry["own"]

    return LocalWork("train", objective, checked(plan), start, step, finish, optimizer=optimizer)


def _is_plain(optimizer: Optimizer, params: Tree) -> bool:
    """Tell whether a step is its rate times the gradient, on leaves that are neither mapped nor
    traced: a pull is then one pass in place."""
    return optimizer.rate is not None and is_ordinary(trees.leaves(params)[0])


def _floats(model: Tree) -> Tree:
    """Return the part of a model that is averaged as floating numbers."""
    return {"params": model["params"], "buffers": model["buffers"]}


def checked(plan: Plan) -> Plan:
    """Return the plan, or refuse it with the reason."""
    if (plan.epochs is None) == (plan.steps is None):
        raise SettingsError(
            f"Local work runs for epochs or for steps: give one of them, not epochs={plan.epochs}, "
            f"steps={plan.steps}."
        )
    given = {"epochs": plan.epochs, "steps": plan.steps, "batch_size": plan.batch_size}
    for name, value in given.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise SettingsError(f"{name} must be a whole number, but is {value!r}.")
    # No epoch at all is legal: it measures what a framework costs beside the training.
    positive(**{name: value for name, value in given.items() if value is not None and value != 0})
    if plan.batch_size == 0:
        raise SettingsError("batch_size must be at least 1, or None for all rows at once.")
    if plan.last not in ("keep", "drop", "join"):
        raise SettingsError(f'last must be "keep", "drop" or "join", but is {plan.last!r}.')
    if plan.poisson not in (None, "seeded", "secret"):
        raise SettingsError(f'poisson must be "seeded", "secret" or None, but is {plan.poisson!r}.')
    if plan.poisson and plan.last != "keep":
        raise SettingsError(
            f"Poisson batches have no short last one to {plan.last}: leave last={plan.last!r} out."
        )
    return plan
