"""Clip by layer: a bound for each layer, so that a large one does not drown the others.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
arXiv:1710.06963, section 3: with bounds C_l the whole update is no longer than sqrt(sum C_l^2),
which is what noise must hide. All layers are scaled by that one number, so that noise is the same
in each coordinate, as in the paper.
"""

import fnmatch
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from folkmoot.codecs.clip import GUARD, in_range, is_ordinary, length_of, positive_norm
from folkmoot.codecs.grid import refuse_noisy
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Path, Tree


def clip_by_layer(norms: float | Mapping[str, float]) -> Codec:
    """Scale each layer of an update to its own bound, and all together into the unit ball.

    What this does to the bounds: `l2` becomes 1.

    Args:
        norms: The norm of the whole update, which layers share alike: norm / sqrt(layers) each. A
            layer is what has one name up to the last dot: weight and bias of "0" are one. Or a
            norm for each pattern of names ("0.*"; * and ? as in file names); the leaves that a
            pattern means, and none above it, are clipped together. In units of the parameters.

    Returns:
        A linear codec, to be the first of its chain.

    Raises:
        SettingsError: If a norm is not a positive, finite number. At `init`: if a pattern means no
            leaf, or a leaf has no bound.

    Source: McMahan et al., ICLR 2018, arXiv:1710.06963, section 3, per-layer clipping.
    """
    if isinstance(norms, Mapping):
        if not norms:
            raise SettingsError('An empty dict bounds no leaf. Give norms, such as {"*": 1.0}.')
        positive_norm(**{f"norms[{pattern!r}]": norm for pattern, norm in norms.items()})
    else:
        positive_norm(norms=norms)
    name = "clip_by_layer"

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        if bounds.size != layout.size:
            raise SettingsError(
                f"{name} must stand first in its chain: what stands before it has made vectors of "
                f"{bounds.size} coordinates from leaves of {layout.size}."
            )
        groups = _groups(norms, layout)
        return _state(groups, norms, layout), bounds._replace(l2=1.0)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        runs, of_group = state["runs"].tolist(), state["groups"].tolist()
        allowed = state["norms"].tolist()
        parts = torch.split(vector, runs)
        lengths = _lengths(parts, of_group, len(allowed))
        if not all(map(is_ordinary, lengths)):
            vector = in_range(vector)
            parts = torch.split(vector, runs)
            lengths = _lengths(parts, of_group, len(allowed))
        whole = math.hypot(*allowed)
        sent = torch.empty_like(vector)
        for part, place, group in zip(parts, torch.split(sent, runs), of_group, strict=True):
            norm = allowed[group]
            torch.mul(part, GUARD * (norm / whole) / max(lengths[group], norm), out=place)
        return sent.float()

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total * (math.hypot(*state["norms"].tolist()) / GUARD), state

    return Codec(name, init, encode, decode)


def _lengths(parts: tuple[Tensor, ...], of_group: list[int], count: int) -> list[float]:
    """Return the norm of each group of parts."""
    lengths = [0.0] * count
    for part, group in zip(parts, of_group, strict=True):
        lengths[group] = math.hypot(lengths[group], length_of(part))
    return lengths


def _groups(norms: float | Mapping[str, float], layout: Layout) -> list[str]:
    """Return for each leaf what it is clipped with: a layer's name, or a pattern.

    Raises:
        SettingsError: If a pattern means no leaf, or a leaf has none.
    """
    names = [trees.name(path) for path in layout.paths]
    if not isinstance(norms, Mapping):
        return [name.rpartition(".")[0] or name for name in names]
    found = [next((p for p in norms if _means(p, path)), None) for path in layout.paths]
    listed = f"The leaves are {', '.join(names)}."
    for pattern in norms:
        if pattern not in found:
            raise SettingsError(
                f"clip_by_layer has a norm for {pattern!r}, which means no leaf that no pattern "
                f"before it means. {listed}"
            )
    for name, meant in zip(names, found, strict=True):
        if meant is None:
            raise SettingsError(
                f"clip_by_layer has no norm for the leaf {name}, which would then be unbounded. "
                f'Name it, or add "*" as the last pattern. {listed}'
            )
    return [pattern for pattern in found if pattern is not None]


def _means(pattern: str, path: Path) -> bool:
    """Tell whether a pattern means a leaf, by its name in the model or by all of its path."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path[-1], trees.name(path)))


def _state(groups: list[str], norms: float | Mapping[str, float], layout: Layout) -> Tree:
    """Return runs of coordinates that are clipped together: their lengths, groups and norms."""
    order = list(dict.fromkeys(groups))
    if isinstance(norms, Mapping):
        allowed = [float(norms[group]) for group in order]
    else:
        allowed = [norms / math.sqrt(max(len(order), 1))] * len(order)
    runs: list[list[int]] = []
    for group, shape in zip(groups, layout.shapes, strict=True):
        if runs and runs[-1][1] == order.index(group):
            runs[-1][0] += shape.numel()
        else:
            runs.append([shape.numel(), order.index(group)])
    return {
        "runs": torch.tensor([run for run, _ in runs], dtype=torch.int64),
        "groups": torch.tensor([group for _, group in runs], dtype=torch.int64),
        "norms": torch.tensor(allowed, dtype=torch.float64),
    }
