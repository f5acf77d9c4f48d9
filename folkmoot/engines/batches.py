"""From a client's examples and a plan to batches: the same ones in every engine.

Poisson batches, of which each row is a part by a coin of its own, vary in size and may be empty. A
plan says whose coins they are: secret ones hide who was in a batch from those who know the seed.
"""

import functools
import secrets
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs import entropy
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch, Plan
from folkmoot.core.tree import Tree
from folkmoot.engines.shuffle import orders as shuffled
from folkmoot.engines.shuffle import step_keys
from folkmoot.local.sealed import Sealed

_BITS = 53
"""Of a coin: a row's share of batches is this fine."""


class Cut(NamedTuple):
    """How one client's rows are cut."""

    examples: int
    sizes: tuple[int, ...]
    """Rows of each batch of an epoch; none where the client has too few."""
    steps: int
    """Local steps to do."""
    shuffled: bool
    """Whether epochs have orders of their own; a batch of all rows needs none."""
    poisson: str | None = None
    """The plan's; the first size is then what every batch holds on average."""

    @property
    def used(self) -> int:
        """Examples that the steps work through, at most an epoch's."""
        # An epoch's where no step is asked: a cohort whose weights are all 0 would have no mean.
        return sum(self.sizes[: self.steps] if self.steps else self.sizes)


class Draws(NamedTuple):
    """One client's random numbers for one round."""

    key: int
    order: Tensor | None
    """The first epoch's order; None where rows stay as they are."""
    keys: tuple[Tensor, ...]
    """int64 scalars: one for the start, one for each step."""


def rows(data: Tree) -> int:
    """Return how many examples a client's data hold."""
    for leaf in data.values():
        return rows(leaf) if type(leaf) is dict else len(leaf)
    return 0


@functools.lru_cache(maxsize=4096)
def cut(examples: int, plan: Plan, needs_pairs: bool) -> Cut:
    """Cut a client's rows into the batches of an epoch.

    Args:
        examples: The client's rows.
        plan: Batch size, epochs or steps, and what becomes of a short last batch.
        needs_pairs: Whether a batch of one row must join the batch before it.
    """
    size = min(plan.batch_size or examples, examples)
    if not examples or (plan.last == "drop" and size < (plan.batch_size or 0)):
        return Cut(examples, (), 0, False)
    whole, rest = divmod(examples, size)
    sizes = [size] * whole
    if rest and (plan.last == "join" or (needs_pairs and rest == 1)):
        sizes[-1] += rest
    elif rest and plan.last == "keep":
        sizes.append(rest)
    steps = plan.steps if plan.steps is not None else (plan.epochs or 0) * len(sizes)
    shuffled = plan.shuffle and sizes[0] < examples and not plan.poisson
    return Cut(examples, tuple(sizes), steps, shuffled, plan.poisson)


def at_most(one: Cut, steps: int | None) -> Cut:
    """Return a cut of no more steps; None for as many as there are."""
    return one if steps is None or one.steps <= steps else one._replace(steps=steps)


def draw(keys: Sequence[int], cuts: Sequence[Cut]) -> list[Draws]:
    """Draw for many clients at once; a client's numbers do not depend on who is drawn with it."""
    steps = step_keys(keys, [one.steps for one in cuts])
    orders: list[Tensor | None] = [None] * len(cuts)
    mixed = [place for place, one in enumerate(cuts) if one.shuffled]
    if mixed:
        found = shuffled([keys[at] for at in mixed], [cuts[at].examples for at in mixed], 0)
        for place, order in zip(mixed, found, strict=True):
            orders[place] = order
    return [Draws(*parts) for parts in zip(keys, orders, steps, strict=True)]


def batches(data: Tree, cut: Cut, draws: Draws) -> Iterator[Batch]:
    """Yield a client's batches, one a step; always copies, for a model may write into them."""
    if cut.poisson:
        yield from _by_lot(data, cut, draws)
        return
    if len(cut.sizes) == 1 and cut.sizes[0] == cut.examples:
        for step in range(cut.steps):
            yield Batch(trees.clone(data), None, draws.keys[1 + step], step)
        return
    step = epoch = 0
    while step < cut.steps:
        order = draws.order
        if epoch and cut.shuffled:
            order = shuffled([draws.key], [cut.examples], epoch)[0]
        for part in _parts(data, order, cut.sizes):
            if step == cut.steps:
                return
            step += 1
            yield Batch(part, None, draws.keys[step], epoch)
        epoch += 1


def _by_lot(data: Tree, cut: Cut, draws: Draws) -> Iterator[Batch]:
    """Yield sealed batches, each of the rows whose coins say so."""
    expected, secret = cut.sizes[0], cut.poisson == "secret"
    # Rounded down: nobody is in more batches than is accounted for.
    share = np.uint64((expected << _BITS) // cut.examples)
    for step in range(cut.steps):
        key = rng.as_tensor(secrets.randbits(64)) if secret else draws.keys[1 + step]
        coins = _secret_coins(cut.examples) if secret else _seeded_coins(key, cut.examples)
        chosen = torch.from_numpy(np.flatnonzero(coins >> np.uint64(64 - _BITS) < share))
        picked = trees.map(lambda leaf, chosen=chosen: leaf.index_select(0, chosen), data)
        sealed = Sealed(picked, expected, secret)
        yield Batch(sealed, None, key, step // len(cut.sizes))


def _secret_coins(rows: int) -> np.ndarray:
    """Return 64 random bits for each row that follow from nothing."""
    return entropy.system()(2 * rows).view(np.uint64)


def _seeded_coins(key: Tensor, rows: int) -> np.ndarray:
    """Return 64 bits for each row that follow from a step's key."""
    start = rng.mix(int(key) ^ rng.label("lot"))
    return rng.mix_array(np.uint64(start) ^ np.arange(rows, dtype=np.uint64))


def _parts(data: Tree, order: Tensor | None, sizes: tuple[int, ...]) -> list[Tree]:
    """Gather an epoch's rows once and cut them into views."""
    kept = sum(sizes)
    split: dict[str, Sequence[Tensor] | list[Tree]] = {}
    for name, leaf in data.items():
        if type(leaf) is dict:
            split[name] = _parts(leaf, order, sizes)
            continue
        if order is None:
            gathered = leaf[:kept].clone()
        else:
            gathered = leaf.index_select(0, order if len(order) == kept else order[:kept])
        split[name] = torch.split_with_sizes(gathered, sizes)
    names = list(split)
    return [dict(zip(names, parts, strict=True)) for parts in zip(*split.values(), strict=True)]
