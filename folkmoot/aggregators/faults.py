"""Which updates may not enter a sum, and why: all that a broken or hostile client could send."""

import math

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.tree import Tree


def fault(update: Update, expected: Update) -> str | None:
    """Say why an update may not enter a sum, or be seen, or None.

    A weight of 0 is no excuse for a NaN: a rule may weigh otherwise, or look at each value.

    Args:
        update: What a client sent.
        expected: An update of the leaves, shapes and dtypes that the task asks for.
    """
    return misfit(update, expected) or not_finite(update.value)


def misfit(update: Update, expected: Update) -> str | None:
    """Say why an update is not of the form that was asked, or None.

    Args:
        update: What a client sent.
        expected: An update of the leaves, shapes and dtypes that the task asks for.
    """
    weight = float(update.weight)
    if not (math.isfinite(weight) and weight >= 0):
        return f"its weight is {weight}, not a finite number of at least 0"
    for part, given, wanted in (
        ("value", update.value, expected.value),
        ("counts", update.counts, expected.counts),
    ):
        if not _same(given, wanted):
            found = differences(wanted, given) or ["it has other empty parts"]
            return f"its {part} does not fit the model: {'; '.join(found[:3])}"
    return None


def _same(given: Tree, wanted: Tree) -> bool:
    """Compare structure, shapes and dtypes, fast where they are equal."""
    if given.keys() != wanted.keys():
        return False
    for key, leaf in wanted.items():
        other = given[key]
        if type(leaf) is dict:
            if type(other) is not dict or not _same(other, leaf):
                return False
        elif (
            not isinstance(other, Tensor) or other.shape != leaf.shape or other.dtype != leaf.dtype
        ):
            return False
    return True


def not_finite(value: Tree) -> str | None:
    """Name the first leaf that holds a NaN or an infinity, or None."""
    if is_finite(value):
        return None
    for path, leaf in trees.items(value):
        bad = int((~torch.isfinite(leaf)).sum())
        if bad:
            return (
                f"leaf {trees.name(path)} holds {bad} of {leaf.numel()} numbers that are NaN or "
                "infinite"
            )
    return None


def holds(encoded: Tree, value: Tree) -> bool:
    """Tell whether a value is added as it is, beside whatever else is: a sum then shows its NaN."""
    return encoded is value or all(encoded.get(name) is part for name, part in value.items())


def is_finite(tree: Tree) -> bool:
    """Return whether no leaf holds a NaN or an infinity."""
    for leaf in trees.leaves(tree):
        # A sum is several times cheaper than isfinite; only a suspicious one is looked at again.
        if not math.isfinite(leaf.sum()) and not torch.isfinite(leaf).all():
            return False
    return True


def differences(expected: Tree, found: Tree) -> list[str]:
    """Name how leaves of `found` differ from `expected`: missing, extra, shapes, dtypes."""
    wanted, given = dict(trees.items(expected)), dict(trees.items(found))
    faults = [f"leaf {trees.name(path)} is missing" for path in wanted if path not in given]
    faults += [f"leaf {trees.name(path)} is not expected" for path in given if path not in wanted]
    for path, leaf in wanted.items():
        other = given.get(path)
        if other is None:
            continue
        if not isinstance(other, Tensor):
            faults.append(f"leaf {trees.name(path)} is a {type(other).__name__}, not a tensor")
        elif other.shape != leaf.shape:
            faults.append(
                f"leaf {trees.name(path)} has shape {tuple(other.shape)}, not {tuple(leaf.shape)}"
            )
        elif other.dtype != leaf.dtype:
            faults.append(f"leaf {trees.name(path)} has dtype {other.dtype}, expected {leaf.dtype}")
    return faults
