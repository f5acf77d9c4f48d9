"""Evaluation is work like any other: its update is the metrics' sums, and only sums leave."""

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Objective, Plan, Seen
from folkmoot.core.tree import Tree


def evaluate(
    objective: Objective, *, batch_size: int | None = 500, of: LocalWork | None = None
) -> LocalWork:
    """Measure a model on each client's examples, without learning.

    Args:
        objective: Whose metrics are measured.
        batch_size: Rows of one forward pass; a metric that must see all rows at once overrides it.
        of: Work whose clients have models of their own, to measure these; it is told what is
            broadcast and each client's private state. None measures what is broadcast.

    Returns:
        Work whose update holds, under each metric's name, its sums in float64; the weight is 1.
    """
    metrics = objective.metrics  # type: ignore[attr-defined]
    if any(metric.whole for metric in metrics):
        batch_size = None
    plan = Plan(epochs=1, batch_size=batch_size, shuffle=False)
    of_client = of.model if of else None

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        zeros = {m.name: torch.zeros(m.size, dtype=torch.float64) for m in metrics}
        return {"sums": zeros, **({"model": of_client(sent, own)} if of_client else {})}

    def step(work: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        model = carry.get("model", sent)
        sums = work.objective.measure(model["params"], model["buffers"], model["counts"], batch)
        return {**carry, "sums": trees.add(carry["sums"], sums)}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        return Update(carry["sums"], 1.0), {}

    return LocalWork(
        "evaluate",
        objective,
        plan,
        start,
        step,
        finish,
        own=of.own if of_client and of else None,
        correct=None,
        train=False,
        model=of_client,
    )


def finished(objective: Objective, sums: Tree) -> dict[str, float]:
    """Turn added sums into values by metric name.

    Args:
        objective: Whose metrics they are.
        sums: From `evaluate`, of one client or added over several.
    """
    return {
        metric.name: metric.finish(sums[metric.name].to(torch.float64))
        for metric in objective.metrics  # type: ignore[attr-defined]
    }
