"""The loss over a client's whole data, of the model that was broadcast.

It is measured batch by batch over the first epoch, in evaluation mode, and added by examples; plans
of fewer steps than an epoch give the loss over the batches that they reach.
"""

import dataclasses
import threading

import torch
from torch import Tensor

from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Objective, Seen
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_work, refuse_private
from folkmoot.local.module import ModuleObjective
from folkmoot.local.parts import but

_TINY = 1e-30
"""Divides what is added over no example, which is 0."""


def beside(verb: str, work: LocalWork) -> LocalWork:
    """Measure the full loss beside a work's own steps; `mean` reads it in an outer `finish`.

    Cost: one more forward pass for each step of the first epoch.

    Args:
        verb: Who asks, for a refusal.
        work: Any work.

    Raises:
        SettingsError: If `work` is none.
    """
    refuse_no_work(verb, work)
    refuse_private(verb, work, "measures the loss of each client's examples")

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        nothing = torch.zeros(2, dtype=torch.float64)
        return {**work.start(sent, own, key), "loss": nothing}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        sums, epoch = carry["loss"], batch.epoch
        if isinstance(epoch, Tensor) or not epoch:
            # An engine may have replaced the objective.
            found = _measured(alone(outer.objective), sent, batch)
            sums = sums + (found * (epoch == 0) if isinstance(epoch, Tensor) else found)
        return {**work.step(outer, sent, but(carry, "loss"), batch), "loss": sums}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return work.finish(sent, but(carry, "loss"), seen)

    return work.changed(start=start, step=step, finish=finish)


def mean(carry: Tree) -> Tensor:
    """Return the full loss of what was sent, float64 [], as a mean over examples; 0 over none."""
    added, examples = carry["loss"].unbind()
    return added / examples.clamp(min=_TINY)


def alone(objective: Objective) -> Objective:
    """Return an objective that measures its loss and no other metric, in a model of its own.

    Others may need all rows of a client at once, and have no value for a batch. A model that is
    only looked at stays bound to what was sent, and the one that learns to its parameters.
    """
    if not isinstance(objective, ModuleObjective):
        return objective
    # One for good, kept where nobody looks for what a program was built with.
    found = objective.variants.get("judge")
    if found is None:
        metrics = objective.metrics[:1]
        found = dataclasses.replace(
            objective, metrics=metrics, threads=threading.local(), variants={}
        )
        objective.variants["judge"] = found
    return found


def _measured(judge: Objective, sent: Tree, batch: Batch) -> Tensor:
    """Return the loss of what was sent, added over a batch's rows, and their number."""
    if isinstance(judge, ModuleObjective) and judge.keeps:
        judge.renew()
    found: Tensor = judge.measure(sent["params"], sent["buffers"], sent["counts"], batch)["loss"]
    return found
