"""Three ways to a batch's per-example gradients: closed forms, `torch.func.vmap`, one by one.

That a row's gradient follows from that row alone, and one row moves a clipped sum by no more than
the clip, rests on how the ways are built and on no experiment. `alone` shows the model one row;
`closed` and `mapped` call it under `torch.func.vmap`, in which it sees one row too. It may mix the
rows that it is shown as it likes: there is but one. Trusted are vmap's own batching rules, and
those of an `autograd.Function` that brings one along. What passes keep for later ones is looked
for in `local.memory`.

Which way a model takes is a question of correct gradients, so it is asked of the model: at weights
moved by noise, made-up rows must get by it what they get alone, parameter by parameter. So a weight
that is used behind its layer's back is found out. Rows whose gradients are 0 or not finite tell
nothing; then a batch goes one by one, and the next one is asked again. The first way that passes is
the fastest: `closed`, which never holds a dense layer's gradients, then `mapped`.
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
from folkmoot.local.probes import drawn, flipped, moved
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
        with _around(objective, replica, key):
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
    """Take closed forms of layers' gradients, after one mapped pass, each row alone with itself."""
    replica = objective.replica()
    replica.mode(True)
    replica.aliases(rows.params)
    replica.hold(rows.buffers, rows.counts)
    uses = []

    def loss(inputs: Any, targets: Any, key: Tensor) -> Tensor:
        with (
            ghost.noted(replica.module, key, copies) as noted,
            _around(objective, replica, key),
        ):
            outputs = call(replica.module, _batch_of_one(inputs))
            found = objective.loss(outputs, _batch_of_one(targets)).sum()
        uses.extend(noted)
        return found

    # A tenth of a small model's pass, for nothing where nothing is drawn.
    keys = rows.keys if replica.training_draws.keyed else torch.arange(rows.number)
    lent = replica.training_inputs.lend(rows.data)
    with torch.enable_grad():
        losses = torch.func.vmap(loss)(*objective.split(lent), keys)
        pieces = ghost.pieces(replica, losses, uses, list(rows.params))
    replica.training_inputs.take_back(lent)
    return pieces


def _batch_of_one(row: Any) -> Any:
    return trees.map(_batch_of_one, row) if isinstance(row, dict) else row[None]


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
def _around(objective: ModuleObjective, replica: Replica, key: Tensor) -> Iterator[None]:
    """Enter the precision and the dropout of a training pass."""
    with contextlib.ExitStack() as stack:
        if objective.precision == "bf16":
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
        if replica.training_draws.keyed:
            stack.enter_context(KeyedDropout(key))
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
    """Return the first way that gives what rows get alone; None if that cannot be told."""
    # It is a question of arithmetic, which half precision would blur.
    objective = objective.with_precision("float32")
    asked = rows._replace(params=moved(objective.init()["params"]))
    told = None
    # Numbers that are made up may be none that the model takes.
    with contextlib.suppress(Exception):
        told = _told(objective, asked._replace(data=drawn(rows.data)))
    told = told or _told(objective, asked._replace(data=flipped(rows.data)))
    if told is None:
        return None
    asked, reference = told
    for name, way in _WAYS.items():
        # A model may fail in any way where it is mapped or noted, and be none the worse alone.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            # An operation without a rule of its own is slower when mapped.
            warnings.filterwarnings("error", "There is a performance drop")
            if _agree(way(objective, asked), reference, rows.params):
                return name
    return "alone"


def _told(objective: ModuleObjective, rows: Rows) -> tuple[Rows, list[Piece]] | None:
    """Return the rows with their gradients alone, if none of these is 0 or not finite."""
    reference = alone(objective, rows)
    norms = norms_of(reference)
    return (rows, reference) if bool((norms.isfinite() & (norms > 0)).all()) else None


def _agree(pieces: Sequence[Piece], reference: Sequence[Piece], params: Tree) -> bool:
    """Tell whether all parameters' norms by row, and sums in which rows count differently, are
    equal but for rounding: of the parameter's own gradient, or a tenth of that of the whole."""
    whole = norms_of(reference)
    shares = torch.arange(1.0, len(whole) + 1, dtype=torch.float64)
    for piece, right, (name, leaf) in zip(pieces, reference, params.items(), strict=True):
        norms, expected = norms_of([piece]), norms_of([right])
        rounding = _ROUNDING * torch.maximum(expected, whole / 10)
        totals = [torch.zeros(leaf.numel(), dtype=torch.float64) for _ in range(2)]
        for total, found in zip(totals, (piece, right), strict=True):
            add_(total, [found], shares, {name: leaf})
        near = bool(((norms - expected).abs() <= rounding).all())
        if not near or bool((totals[0] - totals[1]).norm() > (shares * rounding).sum()):
            return False
    return True
