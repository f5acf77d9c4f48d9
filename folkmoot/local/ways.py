"""Three ways to a batch's per-example gradients: closed forms, `torch.func.vmap`, one by one.

Which one a model takes is asked of the model, not of its names: at weights moved by noise, a row
and one like it must give together what each gives alone. So a model that mixes the rows of a batch,
or uses a layer's weight behind its back, is computed row by row. The first way that passes is the
fastest: `closed`, which never holds a dense layer's gradients, then `mapped`.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch
from folkmoot.core.tree import Tree
from folkmoot.local import ghost
from folkmoot.local.dropout import KeyedDropout, mix_tensor
from folkmoot.local.module import ModuleObjective
from folkmoot.local.pieces import Piece, Whole, add_, norms_of
from folkmoot.local.replica import Replica, call

_ROW = int(rng.as_tensor(rng.label("row")))
_ROUNDING = 1e-3
"""Largest distance of two gradients, over their norm, that differ by rounding only."""


class Rows(NamedTuple):
    """A batch's examples at a model."""

    params: Tree
    buffers: Tree
    counts: Tree
    data: Tree
    """Leaves (rows, ...)."""
    key: Tensor
    """int64 []; the step's."""
    epoch: Any
    first: int = 0
    """The place in the batch of the first of these rows."""

    @property
    def number(self) -> int:
        """How many rows there are."""
        return len(trees.leaves(self.data)[0])

    @property
    def keys(self) -> Tensor:
        """A key for each row, (rows,), int64: by its place, so their law tells of no row."""
        places = torch.arange(self.first, self.first + self.number)
        return mix_tensor(mix_tensor(self.key ^ _ROW) ^ places)

    def cut(self, begin: int, end: int) -> "Rows":
        """Return some of the rows."""
        if not begin and end == self.number:
            return self
        data = trees.map(lambda leaf: leaf[begin:end], self.data)
        return self._replace(data=data, first=self.first + begin)


Way = Callable[[Any, Rows], list[Piece]]
"""`way(objective, rows)` -> the rows' gradients by each parameter."""


def alone(objective: Any, rows: Rows) -> list[Piece]:
    """Take one row after another, as batches of one: any model, any loss."""
    found = []
    for place, key in enumerate(rows.keys):
        data = trees.map(lambda leaf, at=place: leaf[at : at + 1], rows.data)
        batch = Batch(data, None, key, rows.epoch)
        gradient, _ = objective.grad(rows.params, rows.buffers, rows.counts, batch)
        found.append([gradient[name].reshape(-1) for name in rows.params])
    return [Whole(torch.stack(leaves)) for leaves in zip(*found, strict=True)]


def mapped(objective: ModuleObjective, rows: Rows) -> list[Piece]:
    """Map the gradient of one row over all, each alone with itself."""
    replica = objective.replica()
    replica.mode(True)
    replica.hold(rows.buffers, rows.counts)

    def loss(params: Tree, data: Tree, key: Tensor) -> Tensor:
        replica.bind(list(params.values()))
        data = trees.map(lambda leaf: leaf[None], data)
        with _around(objective, replica, lambda: key):
            return _losses(objective, replica, data).sum()

    lent = replica.training_inputs.lend(rows.data)
    with torch.enable_grad():
        mapping = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        gradients = mapping(rows.params, lent, rows.keys)
    replica.training_inputs.take_back(lent)
    replica.bind(list(rows.params.values()))
    return [
        Whole(gradients[name].flatten(1) if leaf.dim() else gradients[name][:, None])
        for name, leaf in rows.params.items()
    ]


def closed(objective: ModuleObjective, rows: Rows, copies: bool = False) -> list[Piece]:
    """Take closed forms of layers' gradients, after one pass of all rows together."""
    replica = objective.replica()
    replica.mode(True)
    replica.bind(list(rows.params.values()))
    replica.hold(rows.buffers, rows.counts)
    lent = replica.training_inputs.lend(rows.data)
    with torch.enable_grad(), ghost.noted(replica.module, copies) as uses:
        with _around(objective, replica, lambda: rows.keys):
            losses = _losses(objective, replica, lent)
        pieces = ghost.pieces(replica, losses, uses, list(rows.params))
    replica.training_inputs.take_back(lent)
    return pieces


def closed_on_copies(objective: ModuleObjective, rows: Rows) -> list[Piece]:
    """As `closed`, for models that write into what layers give, such as ReLU(inplace=True)."""
    return closed(objective, rows, copies=True)


_WAYS: dict[str, Way] = {
    "closed": closed,
    "closed on copies": closed_on_copies,
    "mapped": mapped,
    "alone": alone,
}


def _losses(objective: ModuleObjective, replica: Replica, data: Tree) -> Tensor:
    inputs, targets = objective.split(data)
    return objective.loss(call(replica.module, inputs), targets)


@contextlib.contextmanager
def _around(
    objective: ModuleObjective, replica: Replica, keys: Callable[[], Tensor]
) -> Iterator[None]:
    """Enter the precision and the dropout of a training pass."""
    with contextlib.ExitStack() as stack:
        if objective.precision == "bf16":
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
        if replica.training_draws.keyed:
            stack.enter_context(KeyedDropout(keys()))
        yield


def way_of(objective: Any, rows: Rows, ways: dict[str, str]) -> Way:
    """Return how a model's gradients are taken: as was learnt, else learnt now.

    Args:
        objective: Whose gradients.
        rows: At least one.
        ways: What has been learnt of the model, under "way"; written into.
    """
    if not isinstance(objective, ModuleObjective):
        return alone
    draws = objective.replica().training_draws
    if draws.unknown:
        alone(objective, rows.cut(0, 1))
    if draws.closely or draws.opaque:
        # Numbers of the process's one generator are borrowed for one row at a time.
        return alone
    if "way" not in ways:
        learnt = _learnt(objective, rows)
        if learnt is None:
            return alone
        ways["way"] = learnt
    return _WAYS[ways["way"]]


def _learnt(objective: ModuleObjective, rows: Rows) -> str | None:
    """Return the first way that gives what rows give alone; None if those are no numbers."""
    # It is a question of arithmetic, which half precision would blur.
    objective = objective.with_precision("float32")
    # Two rows are made of the first, so that nothing depends on how many there are.
    data = trees.map(lambda leaf: torch.cat([leaf[:1], _other(leaf[:1])]), rows.data)
    moved = rows._replace(params=_moved(rows.params), data=data)
    reference = alone(objective, moved)
    if not bool(norms_of(reference).isfinite().all()):
        return None
    for name, way in _WAYS.items():
        # A model may fail in any way where it is mapped or noted, and be none the worse alone.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            # An operation without a rule of its own is slower when mapped.
            warnings.filterwarnings("error", "There is a performance drop")
            if _agree(way(objective, moved), reference, rows.params):
                return name
    return "alone"


def _other(row: Tensor) -> Tensor:
    """Return a row like one, of which a model makes something else."""
    flipped = row.flip(-1) if row.dim() > 1 else row
    return flipped / 2 if row.is_floating_point() else flipped


def _moved(params: Tree) -> Tree:
    """Return weights moved by noise, for some gradients are 0 at a first model."""
    draw = rng.generator(0)

    def moved(leaf: Tensor) -> Tensor:
        noise = torch.as_tensor(draw.standard_normal(leaf.shape), dtype=leaf.dtype)
        return leaf + 0.1 * noise * leaf.std(correction=0).clamp(min=0.1)

    return trees.map(moved, params)


def _agree(pieces: Sequence[Piece], reference: Sequence[Piece], params: Tree) -> bool:
    """Tell whether norms by row, and a sum in which rows count differently, are equal."""
    norms, expected = norms_of(pieces), norms_of(reference)
    shares = torch.arange(1.0, len(norms) + 1, dtype=torch.float64)
    size = sum(leaf.numel() for leaf in params.values())
    sums = [torch.zeros(size, dtype=torch.float64) for _ in range(2)]
    for total, found in zip(sums, (pieces, reference), strict=True):
        add_(total, found, shares, params)
    near = bool(((norms - expected).abs() <= _ROUNDING * expected).all())
    return near and bool((sums[0] - sums[1]).norm() <= _ROUNDING * sums[1].norm())
