"""What a program may ask beside operators: to send, to name data, to flow back, to draw anew."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from folkmoot.remote.errors import RemoteError
from folkmoot.remote.judgement import FAILS
from folkmoot.remote.labels import PUBLIC, Kind, Label, joined
from folkmoot.remote.objects import Held
from folkmoot.remote.operators import DTYPES
from folkmoot.remote.session import Session, Verb, failed

Arrays = Mapping[str, Tensor]
Outs = list[int]


def _held(value: Any) -> Held:
    if type(value) is not Held:
        raise RemoteError("it needs an object where something else stands.")
    return value


def _send(session: Session, arrays: Arrays, outs: Outs, name: Any, wants_grad: Any) -> None:
    tensor = arrays.get(str(name)) if type(name) is int else None
    if tensor is None:
        raise RemoteError("it names an array that did not come along.")
    if tensor.dtype not in DTYPES.values():
        raise RemoteError(f"a tensor of {tensor.dtype} is none that a worker computes with.")
    session.objects.refuse_more(tensor.numel() * tensor.element_size())
    if wants_grad is True and not tensor.dtype.is_floating_point:
        raise RemoteError(f"a tensor of {tensor.dtype} has no gradient.")
    # A copy, for an array may be named twice.
    mine = tensor.clone().requires_grad_(wants_grad is True)
    session.objects.put(outs[0], mine, PUBLIC)


def _data(session: Session, arrays: Arrays, outs: Outs, table: Any, column: Any) -> None:
    names = list(session.tables)
    if type(table) is not int or not 0 <= table < len(names):
        raise RemoteError("there is no table of that number.")
    columns = list(session.tables[names[table]].values())
    if type(column) is not int or not 0 <= column < len(columns):
        raise RemoteError(f"the table {names[table]!r} has no column of that number.")
    # Another tensor of the same memory: whether it wants a gradient is a matter of each session.
    tensor = columns[column].detach()
    session.objects.refuse_more(0)
    label = Label(Kind.ROWS, tensor.shape[0], (names[table],))
    session.objects.put(outs[0], tensor, label)


def _backward(
    session: Session, arrays: Arrays, outs: Outs, loss: Any, gradient: Any, retain: Any
) -> None:
    parts = [_held(one) for one in (loss, gradient) if one is not None]
    if len(parts) == 2 and parts[0].tensor.shape != parts[1].tensor.shape:
        raise RemoteError("the gradient that it is given has another shape.")
    start = parts[0].tensor
    # A copy: torch may keep it as a leaf's gradient, to which it later adds in place.
    given = parts[1].tensor.clone() if len(parts) == 2 else None
    try:
        torch.autograd.backward(start, given, retain_graph=retain is True)
    except FAILS as error:
        raise failed(error, parts) from error
    finally:
        session.objects.flowed(joined(part.label for part in parts))


def _grad(session: Session, arrays: Arrays, outs: Outs, leaves: Any) -> None:
    if type(leaves) is not list or len(leaves) != len(outs):
        raise RemoteError("it gives one gradient for each of a list.")
    for number, leaf in zip(outs, leaves, strict=True):
        session.objects.put_grad(number, _held(leaf))


def _no_grad(session: Session, arrays: Arrays, outs: Outs, leaves: Any) -> None:
    if type(leaves) is not list:
        raise RemoteError("it takes a list.")
    for leaf in leaves:
        session.objects.set_grad(_held(leaf), None)


def _set_grad(session: Session, arrays: Arrays, outs: Outs, leaf: Any, value: Any) -> None:
    session.objects.set_grad(_held(leaf), _held(value))


def _requires_grad(session: Session, arrays: Arrays, outs: Outs, value: Any, flag: Any) -> None:
    held = _held(value)
    if not held.tensor.is_leaf or not held.tensor.dtype.is_floating_point:
        raise RemoteError("only floats that nothing was computed into can begin a gradient.")
    held.tensor.requires_grad_(flag is True)
    session.objects.note_leaf(held)


def _seed(session: Session, arrays: Arrays, outs: Outs, seed: Any) -> None:
    if type(seed) is not int:
        raise RemoteError("a seed is a whole number.")
    session.random = torch.Generator().manual_seed(seed).get_state()


VERBS = {
    "backward": Verb(_backward, 0, 3),
    "data": Verb(_data, 1, 2),
    "grad": Verb(_grad, None, 1),
    "no_grad": Verb(_no_grad, 0, 1),
    "requires_grad": Verb(_requires_grad, 0, 2),
    "seed": Verb(_seed, 0, 1),
    "send": Verb(_send, 1, 2),
    "set_grad": Verb(_set_grad, 0, 2),
}
"""Name -> verb."""
