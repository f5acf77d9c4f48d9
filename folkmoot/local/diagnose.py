"""From an error deep inside PyTorch to the sentence that the user needs."""

from collections.abc import Sequence

import torch

from folkmoot.core import tree as trees
from folkmoot.core.engine import ClientId, Cohort
from folkmoot.core.tree import Tree


def where(cohort: Cohort, client: ClientId, stage: str, held_out: Sequence[Tree] = ()) -> str:
    """Say where an error happened, as a note below it.

    Args:
        cohort: Whose round and part it was.
        client: The client, or the number of the held-out set's piece.
        stage: "load", "start", "step 3", "finish" or "encode".
        held_out: The pieces of the researcher's own test set.
    """
    if cohort.part == "held_out":
        ends = [0]
        for piece in held_out[: int(client) + 1]:
            ends.append(ends[-1] + len(trees.leaves(piece)[0]))
        rows = f"rows {ends[-2]} to {ends[-1] - 1} of the held-out examples (test=)"
        return f"In {rows}, judged after round {cohort.round}."
    if cohort.part == "test":
        return f"In the test examples of client {client!r}, judged after round {cohort.round}."
    return f"In client {client!r}, round {cohort.round}, stage {stage}."


def explain(objective: object, data: Tree, error: Exception) -> str:
    """Say what in a client's data most likely made a model or a loss fail, and what to do.

    Args:
        objective: Whose model and loss failed.
        data: The client's examples, leaves (n, ...).
        error: What was raised.
    """
    leaves = dict(trees.items(data))
    target = getattr(objective, "target", None)
    text = str(error)
    params = trees.leaves(objective.init()["params"])  # type: ignore[attr-defined]
    wanted = params[0].dtype
    for path, leaf in leaves.items():
        # An index into an embedding is an integer, and then a complaint is about the target.
        mixed = "dtype" in text and "target" not in text
        if path[-1] != target and leaf.dtype != wanted and mixed:
            return (
                f"Leaf {trees.name(path)} is {_short(leaf.dtype)}, but the model's parameters are "
                f"{_short(wanted)}: convert the data with .to({wanted}), or the model."
            )
    labels = leaves.get((target,)) if isinstance(target, str) else None
    if target is not None and labels is None:
        return f"There is no leaf {target!r} with the targets; the leaves are {_shapes(data)}."
    if labels is not None and "out of bounds" in text and not labels.is_floating_point():
        return (
            f"Leaf {target} holds labels from {int(labels.min())} to {int(labels.max())}, which do "
            "not fit the number of the model's outputs. Count labels from 0, or give the last "
            "layer one output a class."
        )
    if labels is not None and labels.is_floating_point() and "Long" in text:
        found = _short(labels.dtype)
        return f"Leaf {target} is {found}, but classes must be int64: convert it with .long()."
    return f"The data are {_shapes(data)}; see that the model takes rows of this shape and dtype."


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shapes(data: Tree) -> str:
    return ", ".join(
        f"{trees.name(path)} {_short(leaf.dtype)} {tuple(leaf.shape)}"
        for path, leaf in trees.items(data)
    )
