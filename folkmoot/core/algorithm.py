"""What is asked of clients, what they answer, and the generator that asks.

An algorithm's `round(state)` yields `Task`s and receives only aggregates, so it never holds one
client's update. Everything here is data or pure functions.
"""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from folkmoot.core.aggregator import Aggregate, Aggregator, Update
from folkmoot.core.tree import Tree


class Batch(NamedTuple):
    """What one local step is given, beside the models."""

    data: Tree
    """Leaves (rows, ...); a classifier reads "x" and "y"."""
    weight: Tensor | None
    """(rows,), adds up to 1, 0 on padding; None is the plain mean of rows that are all real."""
    key: Tensor
    """int64 []; the stream of this client and step."""
    epoch: int | Tensor
    """Pass over the client's data, from 0."""


class Seen(NamedTuple):
    """What a client has worked through, counted by the engine."""

    steps: int | Tensor
    """Local steps done."""
    examples: int | Tensor
    """Examples that the steps worked through, at most an epoch's."""


class Plan(NamedTuple):
    """How a client's examples become batches; data, so that every engine can iterate by itself."""

    epochs: int | None = 1
    """Passes over the data; None where `steps` is given."""
    steps: int | None = None
    """Steps to do, passing over the data as often as needed; None where `epochs` is given."""
    batch_size: int | None = 10
    """Rows of a batch; None for all of a client's rows at once."""
    shuffle: bool = True
    """Whether each epoch has an order of its own."""
    last: str = "keep"
    """A short last batch: "keep" it, "drop" it, or "join" it to the batch before."""
    poisson: str | None = None
    """Whose coin puts each row, by itself, into each batch: the run's, "seeded", or a "secret" one;
    `batch_size` is then what they hold on average. For private works: such batches are sealed."""


class Objective(Protocol):
    """A model with its loss and its metrics, as functions of trees."""

    def init(self) -> Tree:
        """Return {"params", "buffers", "counts"}, as the user's model has them."""
        ...

    def with_precision(self, precision: str) -> "Objective":
        """Return this objective with gradients in "float32" or "bf16"."""
        ...

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        """Return the gradient and the loss, [], of a batch; buffers and counts are written into.

        The batch is not: others are given the same rows.
        The gradient is the caller's, who may write into it: keep none, and give none twice.
        """
        ...

    def measure(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> Tree:
        """Return the sums of every metric over a batch, which is not written into."""
        ...


Correct = Callable[[Tree, Tree, Tree, Tree], Tree]
"""`correct(gradient, params, sent, own)` -> gradient: the one seam before the optimizer step.

It may write into the gradient that it is given, which is no one else's.
"""


def unchanged(gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
    """Return the gradient as it is."""
    return gradient


class LocalWork(NamedTuple):
    """The client's half of a task: pure functions that every engine can run.

    A carry holds tensors only. `step` may write into its carry, never into `sent` or `own`, also
    where that stands in the carry as "own"; it has no `if` on a tensor. The engine gives each
    client a carry that, but for "own", shares no memory with `sent` or what the client keeps.
    """

    name: str
    objective: Objective
    plan: Plan
    start: Callable[[Tree, Tree, Tensor], Tree]
    """`start(sent, own, key)` -> carry."""
    step: "Callable[[LocalWork, Tree, Tree, Batch], Tree]"
    """`step(work, sent, carry, batch)` -> carry; by the work, replaced parts of it are heard."""
    finish: Callable[[Tree, Tree, Seen], tuple[Update, Tree]]
    """`finish(sent, carry, seen)` -> update, own."""
    own: Callable[[Tree], Tree] | None = None
    """`own(sent)` -> a first private state; None where clients keep nothing."""
    correct: Correct | None = unchanged
    """None in a work whose step has no such seam."""
    train: bool = True
    """Whether steps learn; evaluation works do not, so the engine need not copy what was sent."""
    optimizer: Any = None
    """What steps along the corrected gradient; None in a work that writes its own step."""
    personal: frozenset[str] = frozenset()
    """Leaves of the model that stay with each client."""
    model: Callable[[Tree, Tree], Tree] | None = None
    """`model(sent, own)` -> a client's own {"params", "buffers", "counts"}; None: what was sent."""
    plain: "LocalWork | None" = None
    """The work that transforms have been put on; None where there is none."""
    around: "Callable[[LocalWork], LocalWork] | None" = None
    """A transform that stays outermost, as personal leaves do: what rides on them sees a whole
    model in `start` and `step`, whichever of the two came first."""

    def init(self) -> Tree:
        """Return what is broadcast of the objective's first {"params", "buffers", "counts"}."""
        first, kept = self.objective.init(), self.personal
        return {k: {n: v for n, v in part.items() if n not in kept} for k, part in first.items()}

    def changed(self, **parts: Any) -> "LocalWork":
        """Return this work with other parts, as a transform does."""
        made = self._replace(plain=self.plain or self, **parts)
        return self.around(made) if self.around else made


class Task(NamedTuple):
    """One exchange: what is broadcast, what is done with it, how the answers are combined."""

    broadcast: Tree
    work: LocalWork
    aggregator: Aggregator


Round = Generator[Task, Aggregate, Tree]


class Algorithm(NamedTuple):
    """The server's half."""

    name: str
    init: Callable[[], Tree]
    """First state, with the objective's parameters; `params`, `buffers`, `counts` are the model."""
    round: Callable[[Tree], Round]
    """One round, as a generator of tasks that returns the next state."""
    works: tuple[LocalWork, ...]
    """Every work that a round may ask for."""

    @property
    def objective(self) -> Any:
        """The objective of the first work, which also judges the global model."""
        return self.works[0].objective
