"""A chunk of clients as one program: their rows gathered, their steps mapped, their updates added.

Nothing here loops over clients where a step is taken; what is done once a client is kept to a few
microseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from folkmoot.aggregators.faults import fault
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Sum, Update
from folkmoot.core.algorithm import Batch, Seen, Task
from folkmoot.core.engine import ClientId, Cohort, LeftOut, Setting
from folkmoot.core.errors import DataError
from folkmoot.core.rng import mix_array
from folkmoot.core.tree import Tree
from folkmoot.engines.batches import Cut, at_most, cut, rows
from folkmoot.engines.held import Skipped, held
from folkmoot.engines.shuffle import orders
from folkmoot.engines.stream import needs_pairs, refuse_too_few


class Chunk(NamedTuple):
    """Clients that are trained together, those with most steps first."""

    clients: list[ClientId]
    data: Tree
    """The rows of all clients, one client after the other."""
    cuts: list[Cut]
    order: Tensor
    """Places of rows, in the order in which all clients' epochs visit them."""
    begins: Tensor
    """(clients, steps); where in `order` each client's batch begins."""
    sizes: Tensor
    """(clients, steps); rows of each batch, 0 behind a client's last one."""
    epochs: Tensor
    """(clients, steps)."""
    keys: Tensor
    """int64 (clients, 1 + steps): the start's and each step's."""


def gather(
    setting: Setting, task: Task, cohort: Cohort, clients: Sequence[ClientId]
) -> tuple[Chunk, list[LeftOut]]:
    """Load clients and lay out all of their batches; those without a batch are left out."""
    found: list[tuple[ClientId, Tree, Cut]] = []
    left_out: list[LeftOut] = []
    paired, known = needs_pairs(task.work), {}
    for client in clients:
        try:
            data = held(setting.clients, client, cohort)
            examples = rows(data)
            if examples not in known:
                known[examples] = cut(examples, task.work.plan, paired)
            refuse_too_few(task.work, known[examples])
        except Skipped as skipped:
            left_out.append(LeftOut(client, cohort.round, str(skipped)))
            continue
        if found and not _alike(data, found[0][1]):
            # `torch.cat` would let an extra leaf go, and change a dtype, in silence.
            raise DataError(
                f"client {client!r} holds leaves of other names, shapes or dtypes than client "
                f"{found[0][0]!r}"
            )
        found.append((client, data, at_most(known[examples], cohort.steps.get(client))))
    # A stable sort: clients of one length stay ascending.
    found.sort(key=lambda one: -one[2].steps)
    kept = [client for client, _, _ in found]
    cuts = [one for _, _, one in found]
    base = rng.derive(setting.seed, round=cohort.round, purpose=cohort.purpose(task.work.name))
    keys = [rng.of_client(base, client) for client in kept]
    data = (
        trees.map(lambda *leaves: torch.cat(leaves), *(tree for _, tree, _ in found))
        if found
        else {}
    )
    return Chunk(kept, data, cuts, *_layout(cuts, keys)), left_out


def _alike(one: Tree, other: Tree) -> bool:
    """Tell whether two clients' leaves differ in their number of rows only."""
    if one.keys() != other.keys():
        return False
    for key, leaf in one.items():
        twin = other[key]
        if type(leaf) is dict or type(twin) is dict:
            if type(leaf) is not type(twin) or not _alike(leaf, twin):
                return False
        elif leaf.dtype != twin.dtype or leaf.shape[1:] != twin.shape[1:]:
            return False
    return True


def _layout(cuts: list[Cut], keys: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return order, begins, sizes, epochs and keys of a chunk."""
    most = max((one.steps for one in cuts), default=0)
    first_rows = np.cumsum([0, *(one.examples for one in cuts)])
    begins, sizes, epochs = (np.zeros((len(cuts), most), dtype=np.int64) for _ in range(3))
    alike: dict[Cut, list[int]] = {}
    for place, one in enumerate(cuts):
        alike.setdefault(one, []).append(place)
    for one, places in alike.items():
        epoch, within = np.divmod(np.arange(one.steps), len(one.sizes))
        starts = np.cumsum([0, *one.sizes[:-1]])[within] + epoch * first_rows[-1]
        begins[places, : one.steps] = starts + first_rows[places][:, None]
        sizes[places, : one.steps] = np.array(one.sizes)[within]
        epochs[places, : one.steps] = epoch
    passes = int(epochs.max(initial=0)) + 1 if most else 0
    order = [_one_pass(cuts, keys, first_rows, epoch) for epoch in range(passes)]
    whole = torch.cat(order) if order else torch.zeros(0, dtype=torch.int64)
    drawn = mix_array(
        np.array(keys, dtype=np.uint64)[:, None] ^ np.arange(1 + most, dtype=np.uint64)
    )
    begun, long, passed, key = map(torch.from_numpy, (begins, sizes, epochs, drawn.view(np.int64)))
    return whole, begun, long, passed, key


def _one_pass(cuts: list[Cut], keys: list[int], first_rows: np.ndarray, epoch: int) -> Tensor:
    """Return the rows of all clients in the order of one epoch."""
    order = torch.arange(int(first_rows[-1]))
    mixed = [place for place, one in enumerate(cuts) if one.shuffled]
    if not mixed:
        return order
    drawn = orders([keys[at] for at in mixed], [cuts[at].examples for at in mixed], epoch)
    for place, mine in zip(mixed, drawn, strict=True):
        begin = int(first_rows[place])
        order[begin : begin + len(mine)] = mine + begin
    return order


def train_together(
    task: Task, chunk: Chunk, own: Mapping[ClientId, Tree], pads: bool
) -> tuple[Update, Tree]:
    """Train a chunk and return its updates and private states, leaves (clients, *shape).

    Args:
        task: Work and broadcast.
        chunk: From `gather`.
        own: Private states of clients that have one.
        pads: Whether short batches may be padded with rows of weight 0.
    """
    work, sent = task.work, task.broadcast
    states: Tree = {}
    if work.own is not None:
        fresh = work.own(sent)
        states = trees.map(
            lambda *leaves: torch.stack(leaves),
            *(own.get(client, fresh) for client in chunk.clients),
        )
    start = torch.func.vmap(
        lambda state, key: work.start(sent, state, key), in_dims=(0 if states else None, 0)
    )
    # What `start` passes on is expanded, not copied; steps write into their carry.
    carry = trees.clone(start(states, chunk.keys[:, 0]))

    def step(carry: Tree, batch: Batch) -> Tree:
        return work.step(work, sent, carry, batch)

    # Rows are weighed in the parameters' own precision.
    dtype = next(leaf.dtype for leaf in trees.leaves(carry) if leaf.is_floating_point())
    for at in range(chunk.sizes.shape[1]):
        active = int((chunk.sizes[:, at] > 0).sum())
        for places, batch, dims in _batches(chunk, at, active, pads, dtype):
            part = trees.map(lambda leaf, places=places: leaf[places], carry)
            after = torch.func.vmap(step, in_dims=(0, dims))(part, batch)
            # A step that wrote in place into a view is done; all others are copied back.
            trees.map(lambda leaf, new, places=places: _put(leaf, places, new), carry, after)
    steps = (chunk.sizes > 0).sum(dim=1)
    used = torch.tensor([one.used for one in chunk.cuts])

    def finish(carry: Tree, steps: Tensor, used: Tensor) -> tuple[tuple[Any, ...], Tree]:
        update, kept = work.finish(sent, carry, Seen(steps, used))
        # A mapped program returns tensors only.
        return (update.value, update.weight, update.counts), kept

    found, states = torch.func.vmap(finish)(carry, steps, used)
    return Update(*found), states


def _put(leaf: Tensor, places: slice | Tensor, new: Tensor) -> Tensor:
    view = leaf[places]
    if view.data_ptr() != new.data_ptr():
        leaf[places] = new
    return leaf


def _batches(
    chunk: Chunk, at: int, active: int, pads: bool, dtype: torch.dtype
) -> list[tuple[slice | Tensor, Batch, Batch]]:
    """Return one step's batches: (which clients, batch, its mapped dimensions)."""
    sizes = chunk.sizes[:active, at]
    if pads or bool((sizes == sizes[0]).all()):
        groups: list[slice | Tensor] = [slice(0, active)]
    else:
        groups = [(sizes == size).nonzero()[:, 0] for size in sizes.unique()]
    found = []
    for places in groups:
        lengths = sizes[places]
        inside = torch.arange(int(lengths.max()))
        begins = chunk.begins[:active, at][places]
        ragged = bool((lengths != lengths[0]).any())
        index = begins[:, None] + inside
        if ragged:
            real = inside < lengths[:, None]
            index = torch.where(real, index, begins[:, None])
        data = trees.map(lambda leaf, index=index: leaf[chunk.order[index]], chunk.data)
        weight = real.to(dtype) / lengths[:, None] if ragged else None
        keys, epochs = chunk.keys[:active, 1 + at][places], chunk.epochs[:active, at][places]
        dims = Batch(0, None if weight is None else 0, 0, 0)  # type: ignore[arg-type]
        found.append((places, Batch(data, weight, keys, epochs), dims))
    return found


def row(updates: Update, at: int) -> Update:
    """Return one client's update of a chunk's."""
    value = trees.map(lambda leaf: leaf[at], updates.value)
    counts = trees.map(lambda leaf: leaf[at], updates.counts)
    return Update(value, float(updates.weight[at]), counts)  # type: ignore[index]


def sound(updates: Update, expected: Update) -> tuple[list[int], dict[int, str]]:
    """Split a chunk's places into those that may enter the sum and those that may not, with why."""
    weights = torch.as_tensor(updates.weight, dtype=torch.float64)
    finite = torch.isfinite(weights) & (weights >= 0)
    for leaf in trees.leaves(updates.value):
        finite &= torch.isfinite(leaf.reshape(len(leaf), -1).sum(dim=1))
    first = fault(row(updates, 0), expected)
    if first is None and bool(finite.all()):
        return list(range(len(finite))), {}
    reasons = {at: fault(row(updates, at), expected) for at in range(len(finite))}
    faulty = {at: reason for at, reason in reasons.items() if reason is not None}
    return [at for at in reasons if at not in faulty], faulty


def add_rows(total: Sum, encoded: Update, good: list[int], clients: int) -> Sum:
    """Add a chunk's encoded updates, (clients, *shape), to a sum that is written into."""
    if not good:
        return total
    weights = torch.as_tensor(encoded.weight, dtype=torch.float64).expand(clients)
    if len(good) < clients:
        keep = torch.tensor(good, dtype=torch.int64)
        weights = weights[keep]
        value = trees.map(lambda leaf: leaf[keep], encoded.value)
        encoded = Update(value, weights, trees.map(lambda leaf: leaf[keep], encoded.counts))

    def added(target: Tensor, leaf: Tensor) -> Tensor:
        share = weights.to(target.dtype) @ leaf.reshape(len(leaf), -1).to(target.dtype)
        return target.add_(share.view(target.shape))

    trees.map(added, total.value, encoded.value)
    trees.map(added, total.counts, encoded.counts)
    weight = total.weight + float(weights.sum())
    return Sum(total.value, weight, total.counts, total.count + len(good))
