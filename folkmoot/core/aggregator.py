"""Aggregators: codecs around one sum, and the rule that makes an aggregate of it.

What enters the sum is `weight * encoded value`. The weight stands behind the codecs, so that
clipping and compression see an update in the parameters' own units and no lossy stage touches the
weight (docs/decisions/0002-weights-behind-codecs.md).
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree


class Update(NamedTuple):
    """What one client's work produced."""

    value: Tree
    """Floating leaves only."""
    weight: float | Tensor = 1.0
    """A number of at least 0; examples, as a rule. Under vmap (clients,)."""
    counts: Tree = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """Integer and boolean leaves: never clipped, noised or counted in a norm."""
    packed_bytes: int | None = None
    """Bytes in which the value travels; None for those of its leaves."""


class Sees(enum.Enum):
    """What of the updates the server must see."""

    SUM = "sum"
    EACH = "each"


SUM, EACH = Sees.SUM, Sees.EACH


class Sum(NamedTuple):
    """The keystone: everything that a cohort's encoded updates add up to."""

    value: Tree
    """weight * encoded value; half-precision leaves are added in float32."""
    weight: float
    counts: Tree
    """weight * counts, in float64."""
    count: int  # type: ignore[assignment]
    """Clients in the sum."""


class Aggregate(NamedTuple):
    """What a round receives."""

    value: Tree
    count: float  # type: ignore[assignment]
    """Clients that the value is a mean of: those that answered, or the rule's fixed divisor."""
    population: int
    """Clients that there are; for algorithms that keep a share for each."""
    counts: Tree
    """Integer and boolean leaves in their own dtype."""


class State(NamedTuple):
    """An aggregator's public state, sent with each task."""

    codec: Tree
    bounds: Bounds
    layout: Layout
    counts: Tree
    """Integer leaves of the update, for their dtypes."""


class Aggregator(NamedTuple):
    """A rule. `sees` says whether it needs single updates or only their sum."""

    name: str
    init: Callable[[Update, int], State]
    """`init(example update, most clients)`: plan layout and codecs; refuses impossible chains."""
    encode: Callable[[State, Update, int], Update]
    """`encode(state, update, key)`, on the client: the update whose value may be added."""
    decode: Callable[[State, Any, int], tuple[Tree, Tree, State]]
    """`decode(state, Sum, key)` (a list of updates for EACH) -> value, counts, next state."""
    sees: Sees = SUM
    averages: bool = True
    """Whether clients who are alike give what one of them gives, as a mean does and a sum not."""
    divisor: float | None = None
    """What a sum is divided by, whoever answers; None where that follows from who does."""
    bounded: "Callable[[tuple[Codec, ...], tuple[Codec, ...], float], Aggregator] | None" = None
    """`bounded(before, after, divisor)`: this rule with more stages before and after its own, in
    which no client counts more than another; None where there is no such rule."""
    fielded: "Callable[[Codec, int, float], Aggregator] | None" = None
    """`fielded(field, most, length)`: this rule as a sum of whole numbers, of weights up to `most`,
    with a clip far above `length` where nothing bounds an update; None where there is none."""
