"""What an object at a worker has to do with private rows: all that decides whether it may leave.

- *public*: it was sent by the user, or follows from what was.
- *mixed*: sums or means over private rows, and what is computed from such. Each sum treats its rows
  alike: it is of f(row) with one f for all of them.
- *rows*: its axis 0 stands for private rows, and each entry is f(row), with one f for all.
- *tangled*: anything else that private rows have entered.

`rows` counts the distinct private rows that the smallest sum is of, through which anything came.
What f is, nobody looks at: one that is zero for all rows but one is still alike for all of them
(docs/sharp_edges/minimum-rows.md).
"""

import enum
import math
from collections.abc import Iterable
from typing import Any, NamedTuple


class Kind(enum.Enum):
    """How an object holds private rows."""

    PUBLIC = "public"
    MIXED = "mixed"
    ROWS = "rows"
    TANGLED = "tangled"


class Label(NamedTuple):
    """What is known of one object."""

    kind: Kind
    rows: float = math.inf
    """Private rows behind the thinnest part of it; infinite where there is none."""
    key: Any = None
    """Of `rows`: which rows they are, in which order."""
    pure: bool = True
    """Of `rows`: whether nothing but the row itself and public values made each entry."""
    share: float = 1.0
    """Of `rows`: how many of them dropout has left in each entry, on average; 1 is all."""

    def __str__(self) -> str:
        if self.kind is Kind.PUBLIC:
            return "public"
        if self.kind is Kind.MIXED:
            return f"sums over {int(self.rows)} private rows"
        if self.kind is Kind.ROWS:
            return "private rows"
        return "made of private rows in a way that is not known to mix them"


PUBLIC = Label(Kind.PUBLIC)
TANGLED = Label(Kind.TANGLED, 0)
_BLENDS = (Kind.PUBLIC, Kind.MIXED)


def mixed(rows: float) -> Label:
    """Return the label of sums over at least so many rows."""
    return Label(Kind.MIXED, rows)


def summed(label: Label, size: int) -> Label:
    """Return the label of sums over all of so many rows."""
    # Of their own number, not of `rows`: the parameters of a model trained with dropout are of
    # fewer, and would be of fewer still with each step.
    return mixed(min(label.rows, math.floor(size * label.share + 1e-9)))


def is_blend(label: Label) -> bool:
    """Tell whether an object is public or mixed: whatever is computed from such, is so as well."""
    return label.kind in _BLENDS


def joined(labels: Iterable[Label]) -> Label:
    """Return the label of what any operator makes of public and mixed objects; else tangled."""
    thinnest = PUBLIC
    for label in labels:
        if label.kind is Kind.MIXED:
            if label.rows < thinnest.rows:
                thinnest = label
        elif label.kind is not Kind.PUBLIC:
            return TANGLED
    return thinnest
