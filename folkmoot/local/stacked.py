"""Several models side by side: one tree whose leaves have a first dimension for the models."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from folkmoot.aggregators.faults import differences
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError, positive
from folkmoot.core.tree import Tree
from folkmoot.local.composed import kind_of
from folkmoot.local.parts import PARTS
from folkmoot.local.replica import shared_leaves


def picked(models: Tree, cluster: Tensor) -> Tree:
    """Return a copy of one of the stacked models."""
    return trees.map(lambda leaf: leaf.index_select(0, cluster.reshape(1))[0], models)


def starts(
    verb: str, first: Tree, models: int | Sequence[nn.Module], spread: float, seed: int
) -> Tree:
    """Return several models, stacked, no two of them equal.

    Args:
        verb: Who asks, for a refusal.
        first: A model {"params", "buffers", "counts"}.
        models: How many copies of it to make, each with noise of its own; or modules like it.
        spread: Of that noise, normal by leaf, in units of the leaf's root mean square; above 0.
        seed: Of that noise.

    Raises:
        SettingsError: If there are fewer than 2, one is unlike the first, or two are equal.
    """
    if isinstance(models, int):
        positive(spread=spread)
        if not isinstance(seed, int):
            raise SettingsError(f"seed must be a whole number, but is {seed!r}.")
        found = [_noisy(first, spread, seed, place) for place in range(models)]
    elif isinstance(models, list | tuple | nn.ModuleList):
        found = [_leaves_of(module, first, verb) for module in models]
    else:
        raise SettingsError(
            f"{verb}() needs a number of models, or a list of modules, but was given "
            f"{kind_of(models)}."
        )
    if len(found) < 2:
        count = models if isinstance(models, int) else len(found)
        raise SettingsError(f"{verb}() needs at least 2 models, but was given {count}.")
    for one, other in itertools.combinations(range(len(found)), 2):
        pairs = zip(*(trees.leaves(found[at]["params"]) for at in (one, other)), strict=True)
        if all(torch.equal(a, b) for a, b in pairs):
            raise SettingsError(
                f"{verb}() was given models {one} and {other} with equal weights, which would stay "
                "equal. Give a list of modules with other weights; noise is in units of the "
                "weights, so weights of 0 have none."
            )
    return trees.map(lambda *leaves: torch.stack(leaves), *found)


def _noisy(first: Tree, spread: float, seed: int, place: int) -> Tree:
    draw = rng.generator(rng.derive(seed, purpose=f"model {place}"))

    def noisy(leaf: Tensor) -> Tensor:
        noise = torch.as_tensor(draw.standard_normal(leaf.shape), dtype=leaf.dtype)
        return leaf + spread * leaf.square().mean().sqrt() * noise

    return {**first, "params": trees.map(noisy, first["params"])}


def _leaves_of(module: nn.Module, first: Tree, verb: str) -> Tree:
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{verb}() needs modules, but one is {kind_of(module)}.")
    found: Tree = dict(zip(PARTS, shared_leaves(module), strict=True))
    faults = differences(first, found)
    if faults:
        raise SettingsError(
            f"{verb}() needs modules like the work's, but in one {'; '.join(faults[:3])}."
        )
    return trees.map(lambda leaf: leaf.detach().clone(), found)
