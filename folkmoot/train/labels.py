"""Labels before a run: which the model has outputs for, which clients hold, how far from iid."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from folkmoot.core import tree as trees
from folkmoot.core.tree import Tree
from folkmoot.local.replica import call
from folkmoot.train.attempt import attempt
from folkmoot.train.census import Fault, Held, labels_in

TEST_SET = "The test set"
_ROWS = 2


def classes_of(objective: Any, state: Tree, data: Tree) -> int | None:
    """Return how many classes the model has outputs for.

    None where it learns no classes, or cannot be called: the trial of one step then says why.

    Args:
        objective: Learns classes if it reports an accuracy.
        state: Holds the model's parameters.
        data: Some client's examples, of which two rows are shown to the model.
    """
    if not any("accuracy" in metric.name for metric in objective.metrics):
        return None
    model = objective.module(state).eval()
    rows = trees.map(lambda leaf: leaf[:_ROWS].clone(), data)
    shown = attempt(_shown, objective, model, rows)
    return None if isinstance(shown, Exception) else _classes(*shown)


def _shown(objective: Any, model: nn.Module, rows: Tree) -> tuple[Any, Any]:
    """Return a model's outputs for some rows, and their targets."""
    inputs, targets = objective.split(rows)
    with torch.no_grad():
        return call(model, inputs), targets


def _classes(outputs: Any, targets: Any) -> int | None:
    """Read the number of classes off the shapes of outputs and targets."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return None
    if targets.is_floating_point() or not outputs.is_floating_point():
        return None
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        return 2
    if outputs.dim() != targets.dim() + 1:
        return None
    # A language model's outputs are (rows, length, vocabulary), all others' (rows, classes, ...).
    spoken = outputs.dim() == 3 and outputs.shape[1] == targets.shape[1]
    return outputs.shape[2] if spoken else outputs.shape[1]


def label_faults(
    held: Sequence[Held],
    held_out: Tree | None,
    classes: int | None,
    target: str | None,
    ignored: int | None,
) -> tuple[list[Fault], list[Fault]]:
    """Return what is wrong with labels, and what is only remarkable.

    Args:
        held: What clients hold.
        held_out: The researcher's test set.
        classes: Classes that the model has outputs for; None where that is not known.
        target: The leaf with the labels.
        ignored: The target of a place that counts nowhere; None where every target counts.
    """
    if classes is None:
        return [], []
    problems = []
    owners = [(f"Client {client.id!r}", client.labels) for client in held]
    if held_out is not None and target in held_out:
        owners.append((TEST_SET, labels_in(held_out[target], ignored)))
    for owner, labels in owners:
        strange = without_output(labels, classes)
        if strange:
            shown = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
            problems.append(
                Fault(
                    "labels",
                    f"{owner}: leaf {target!r} holds the label{'s' * (len(strange) > 1)} {shown}, "
                    f"but the model has outputs for {classes} classes, 0 to {classes - 1}. Count "
                    "labels from 0, or give the last layer one output a class.",
                )
            )
    return problems, _single_class(held)


def without_output(labels: Iterable[int], classes: int | None) -> list[int]:
    """Return the labels that the model has no output for."""
    return sorted(label for label in labels if classes and not 0 <= label < classes)


def _single_class(held: Sequence[Held]) -> list[Fault]:
    alone = [client for client in held if len(client.labels) == 1]
    if not alone or len(_pooled(held)) < 2:
        return []
    named = ", ".join(f"{client.id!r} only {next(iter(client.labels))}" for client in alone[:3])
    more = ", ..." if len(alone) > 3 else ""
    verb = "holds" if len(alone) == 1 else "hold"
    return [
        Fault(
            "single class",
            f"{len(alone)} of {len(held)} clients {verb} one class only ({named}{more}). Local "
            "training pulls such clients far apart: use few local steps, or an algorithm that "
            "corrects the drift.",
        )
    ]


def non_iid_score(held: Sequence[Held]) -> tuple[float, float]:
    """Return how far clients' labels are from the pooled ones, and how far chance would put them.

    The first is the mean over clients of the total variation distance between a client's label law
    and the law of all labels that were looked at: 0 if all are alike, towards 1 if each client
    knows one rare label. Small clients are far off even if dealt at random, by about
    sum_k sqrt(2 q_k (1 - q_k) / (pi n)) / 2 for n rows; the second is the mean of that.
    """
    counts = [client.labels for client in held if client.labels]
    pooled = _pooled(held)
    law = np.array(list(pooled.values()), dtype=np.float64)
    law /= law.sum()
    sizes = np.array([sum(labels.values()) for labels in counts], dtype=np.float64)
    shares = (
        np.array([[labels.get(label, 0) for label in pooled] for labels in counts]) / sizes[:, None]
    )
    distances = 0.5 * np.abs(shares - law).sum(axis=1)
    chance = 0.5 * np.sqrt(2 * law * (1 - law) / np.pi).sum() / np.sqrt(sizes)
    return float(distances.mean()), float(np.minimum(chance, 1.0).mean())


def _pooled(held: Sequence[Held]) -> Counter[int]:
    pooled: Counter[int] = Counter()
    for client in held:
        pooled.update(client.labels)
    return pooled
