"""How a cohort becomes one sum, with the same bits wherever its clients ran.

Ascending ids are cut into blocks whose sizes follow from the cohort's size alone (guided: a tenth
of what is left, at least 1). Each block is folded in order from zero, and blocks are added in
order. Engines and coordinator all call this file.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Sum, Update
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree


def ascending(ids: Iterable[ClientId]) -> tuple[ClientId, ...]:
    """Sort ids; all must be ints or all strings, and none may stand twice."""
    found = list(ids)
    kinds = {type(client).__name__ for client in found}
    if not kinds <= {"int"} and not kinds <= {"str"}:
        raise SettingsError(f"Client ids must be all int or all str, but here are {sorted(kinds)}.")
    ordered = tuple(sorted(found))  # type: ignore[type-var]
    for left, right in zip(ordered, ordered[1:], strict=False):
        if left == right:
            raise SettingsError(
                f"Client {left!r} stands twice in one cohort; each may answer once."
            )
    return ordered


def blocks(clients: Sequence[ClientId]) -> list[Sequence[ClientId]]:
    """Cut a cohort, in its order, into blocks of max(1, left // 10) clients."""
    cut: list[Sequence[ClientId]] = []
    begin = 0
    while begin < len(clients):
        size = max(1, (len(clients) - begin) // 10)
        cut.append(clients[begin : begin + size])
        begin += size
    return cut


def _accumulator(leaf: Tensor) -> Tensor:
    half = leaf.dtype in (torch.bfloat16, torch.float16)
    return torch.zeros(leaf.shape, dtype=torch.float32 if half else leaf.dtype)


def zero(like: Update) -> Sum:
    """Return the sum of nobody, with the leaves of an encoded update."""
    counts = trees.map(lambda leaf: torch.zeros(leaf.shape, dtype=torch.float64), like.counts)
    return Sum(trees.map(_accumulator, like.value), 0.0, counts, 0)


def add(total: Sum, update: Update) -> Sum:
    """Add one encoded update; the sum's leaves are written into."""
    weight = float(update.weight)
    # A weight of 0 adds nothing, not even 0 * NaN.
    if weight:
        trees.axpy_(total.value, weight, update.value)
        for path, leaf in trees.items(update.counts):
            target = total.counts
            for key in path:
                target = target[key]
            target.add_(leaf.double(), alpha=weight)  # type: ignore[attr-defined]
    return Sum(total.value, total.weight + weight, total.counts, total.count + 1)


def merge(total: Sum, block: Sum) -> Sum:
    """Add a finished block; the sum's leaves are written into."""
    trees.axpy_(total.value, 1, block.value)
    trees.axpy_(total.counts, 1, block.counts)
    return Sum(total.value, total.weight + block.weight, total.counts, total.count + block.count)


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
            found = trees.differences(wanted, given)
            return f"its {part} does not fit the model: {'; '.join(found[:3])}"
    return None


def _same(given: Tree, wanted: Tree) -> bool:
    """Compare structure, shapes and dtypes, fast where they are equal."""
    if given.keys() != wanted.keys():
        return False
    for key, leaf in wanted.items():
        other = given[key]
        if isinstance(leaf, dict):
            if not isinstance(other, dict) or not _same(other, leaf):
                return False
        elif (
            not isinstance(other, Tensor) or other.shape != leaf.shape or other.dtype != leaf.dtype
        ):
            return False
    return True


def not_finite(value: Tree) -> str | None:
    """Name the first leaf that holds a NaN or an infinity, or None."""
    if trees.is_finite(value):
        return None
    for path, leaf in trees.items(value):
        bad = int((~torch.isfinite(leaf)).sum())
        if bad:
            return (
                f"leaf {trees.name(path)} holds {bad} of {leaf.numel()} numbers that are NaN or "
                "infinite"
            )
    return None
