"""Which leaves of a model are meant: by pattern, by layer type, or by a predicate."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from folkmoot.core.algorithm import Objective
from folkmoot.core.errors import SettingsError

Choice = str | type[nn.Module] | Callable[[str], bool]
Keep = Choice | Sequence[Choice]
"""A pattern such as "head.*", a layer's class, a function of a leaf's name, or several of them."""


def chosen(objective: Objective, keep: Keep) -> frozenset[str]:
    """Return the names of the leaves that are meant; a leaf goes by each name that it is tied to.

    Args:
        objective: Whose model.
        keep: A pattern ("head.*"; * and ? as in file names), a class of layers (all leaves of such
            layers, also of its subclasses), a function of a leaf's name, or a list of these.

    Raises:
        SettingsError: If one of them means no leaf; the leaves are listed.
    """
    leaves = {name: name for part in objective.init().values() for name in part}
    model = getattr(objective, "model", None)
    aliases = leaves if model is None else {**_aliases(model, leaves), **leaves}
    choices = keep if isinstance(keep, list | tuple | set | frozenset) else (keep,)
    if not choices:
        raise SettingsError('An empty list names no leaf. Give a pattern, such as "head.*".')
    found: set[str] = set()
    for choice in choices:
        meant = _meant(choice, model, aliases)
        if not meant:
            raise SettingsError(
                f"No leaf of the model is meant by {_said(choice)}. Its leaves are "
                f"{', '.join(leaves)}."
            )
        found |= meant
    return frozenset(found)


def _meant(choice: Any, model: nn.Module | None, aliases: dict[str, str]) -> set[str]:
    if isinstance(choice, str):
        return {leaf for name, leaf in aliases.items() if fnmatch.fnmatchcase(name, choice)}
    if isinstance(choice, type):
        layers = [] if model is None else model.named_modules(remove_duplicate=False)
        tops = [name for name, layer in layers if isinstance(layer, choice)]
        return {
            leaf
            for name, leaf in aliases.items()
            if any(not top or name.startswith(f"{top}.") for top in tops)
        }
    # A module can be called, but not with a name.
    if callable(choice) and not isinstance(choice, nn.Module):
        return {leaf for name, leaf in aliases.items() if choice(name)}
    raise SettingsError(
        'Leaves are named by a pattern such as "head.*", a layer\'s class, or a function of a '
        f"leaf's name, but one is {choice!r}."
    )


def _aliases(model: nn.Module, leaves: dict[str, str]) -> dict[str, str]:
    """Return each name under which a travelling leaf stands in a module -> the one it goes by."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    goes_by = {id(tensor): name for name, tensor in reversed(named) if name in leaves}
    return {name: goes_by[id(tensor)] for name, tensor in named if id(tensor) in goes_by}


def _said(choice: Any) -> str:
    return repr(choice) if isinstance(choice, str) else getattr(choice, "__name__", repr(choice))
