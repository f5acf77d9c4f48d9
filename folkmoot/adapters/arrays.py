"""Arrays of other libraries as leaves of trees, and back in the form in which they came.

Arrays lie in nested dicts, lists or tuples; their keys, joined by dots, are the names of leaves, as
a module's parameters have them. Dtypes stay: a float64 array is a float64 leaf.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.core.tree import Tree

Arrays = Any
"""Arrays in nested dicts, lists or tuples, such as {"coef_": ..., "intercept_": ...}."""


def tensors_of(state: Tree) -> dict[str, Tensor]:
    """Return a state's arrays by name."""
    return {**state["params"], **state["counts"]}


def tensors(found: Arrays) -> dict[str, Tensor]:
    """Return arrays as tensors of the same dtypes, in memory of their own, by dotted names."""
    named = list(_named(found, ""))
    if len({name for name, _ in named}) < len(named):
        raise SettingsError("get() returns two arrays of one name, where dots join nested names.")
    return {name: _tensor(name, value) for name, value in named}


def arrays(data: Tree) -> dict[str, Any]:
    """Return copies of a batch's leaves as numpy arrays, nested as they were."""
    return {
        name: arrays(leaf) if isinstance(leaf, dict) else leaf.numpy().copy()
        for name, leaf in data.items()
    }


def _pairs(found: Arrays) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        yield from ((f"{key}", inner) for key, inner in found.items())
    else:
        yield from ((f"{place}", inner) for place, inner in enumerate(found))


def _named(found: Arrays, above: str) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping | list | tuple):
        for key, inner in _pairs(found):
            yield from _named(inner, f"{above}.{key}" if above else key)
    elif above:
        yield above, found
    else:
        raise SettingsError(
            f"get() must return arrays in a dict or a list, but returned a {type(found).__name__}."
        )


def _tensor(name: str, value: Any) -> Tensor:
    try:
        given = isinstance(value, Tensor)
        found = value.detach().cpu().clone() if given else torch.from_numpy(np.array(value))
        if found.is_complex():
            raise TypeError("a mean of models is one of real numbers")
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"get() returns {name!r} as a {type(value).__name__} that is no array of numbers: "
            f"{error}."
        ) from error
    return found


def like(found: Arrays, leaves: Tree, above: str) -> Arrays:
    """Return leaves in the form in which a learner's own arrays were found."""
    if isinstance(found, Mapping):
        return {
            key: like(inner, leaves, f"{above}.{key}" if above else f"{key}")
            for key, inner in found.items()
        }
    if isinstance(found, list | tuple):
        return [
            like(inner, leaves, f"{above}.{place}" if above else f"{place}")
            for place, inner in enumerate(found)
        ]
    leaf = leaves[above].detach().clone()
    if isinstance(found, Tensor):
        return leaf
    if isinstance(found, np.generic):
        # A number of numpy has a dtype, which one of Python would lose.
        return leaf.numpy()[()]
    return leaf.item() if isinstance(found, bool | int | float) else leaf.numpy()


def parts_of(leaves: dict[str, Tensor]) -> Tree:
    floats = {name: leaf for name, leaf in leaves.items() if leaf.is_floating_point()}
    others = {name: leaf for name, leaf in leaves.items() if name not in floats}
    return {"params": floats, "buffers": {}, "counts": others}


def refitted(found: dict[str, Tensor], held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a fit has made of arrays, in their own dtypes, or refuse what cannot be added."""
    if found.keys() != held.keys():
        odd = sorted(found.keys() ^ held.keys())
        raise ClientError(
            f"fit() changed which arrays get() returns: {', '.join(odd)} came or went. They must "
            "be the same ones at all clients."
        )
    for name, leaf in found.items():
        before = held[name]
        if leaf.shape != before.shape:
            raise ClientError(
                f"fit() changed the shape of leaf {name!r} from {tuple(before.shape)} to "
                f"{tuple(leaf.shape)}, and arrays of other shapes cannot be added. State what it "
                "hangs on (classes, inputs) when the learner is built."
            )
        if leaf.is_floating_point() != before.is_floating_point():
            raise ClientError(
                f"fit() changed leaf {name!r} from {before.dtype} to {leaf.dtype}. Keep floating "
                "arrays floating."
            )
    return {name: found[name].to(leaf.dtype) for name, leaf in held.items()}
