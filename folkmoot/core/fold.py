"""How a cohort becomes one sum, with the same bits wherever its clients ran.

Ascending ids are cut into blocks whose sizes follow from the cohort's size alone (guided: a tenth
of what is left, at least 1 and a 128th of the cohort). Each block is folded in order from zero, and
blocks are added in order. Engines and coordinator all call this file.
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Sum, Update
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError


def ascending(ids: Iterable[ClientId]) -> tuple[ClientId, ...]:
    """Sort ids; all must be ints or all strings, and none may stand twice."""
    found = list(ids)
    kinds = {type(client).__name__ for client in found}
    if not kinds <= {"int"} and not kinds <= {"str"}:
        raise SettingsError(f"Client ids must be all int or all str, but here are {sorted(kinds)}.")
    ordered = tuple(sorted(found))
    for left, right in itertools.pairwise(ordered):
        if left == right:
            raise SettingsError(
                f"Client {left!r} stands twice in one cohort; each may answer once."
            )
    return ordered


def blocks(clients: Sequence[ClientId]) -> list[Sequence[ClientId]]:
    """Cut a cohort, in its order, into blocks of max(1, cohort // 128, left // 10) clients."""
    cut: list[Sequence[ClientId]] = []
    begin = 0
    while begin < len(clients):
        size = max(1, len(clients) // 128, (len(clients) - begin) // 10)
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
        # Vectors of integers are added as such, by rules in which every client counts the same.
        trees.axpy_(total.value, 1 if weight == 1 else weight, update.value)
        if update.counts:
            trees.axpy_(total.counts, weight, trees.map(Tensor.double, update.counts))
    return Sum(total.value, total.weight + weight, total.counts, total.count + 1)


def merge(total: Sum, block: Sum) -> Sum:
    """Add a finished block; the sum's leaves are written into."""
    trees.axpy_(total.value, 1, block.value)
    trees.axpy_(total.counts, 1, block.counts)
    return Sum(total.value, total.weight + block.weight, total.counts, total.count + block.count)
