"""What clients hold, looked at before a run: rows, leaves, labels, and everything that is wrong.

Nothing here stops at the first fault; `check` wants them all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData, as_clients, as_examples, check_examples
from folkmoot.data.examples import count
from folkmoot.train.attempt import attempt

Signature = tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
"""Path, dtype and the shape of one row, for each leaf."""


class Fault(NamedTuple):
    """Something that is wrong, or may be."""

    kind: str
    """Faults of one kind are printed together."""
    sentence: str


class Held(NamedTuple):
    """What one client holds, without the examples themselves."""

    id: ClientId
    rows: int
    test_rows: int
    payload_bytes: int
    signature: Signature
    labels: dict[int, int]
    """Rows (tokens, in a language model) of each label; empty where targets are no classes."""


class Gathered(NamedTuple):
    """A run's `clients=`, as far as they can be used."""

    usable: ClientData | None
    ids: Sequence[ClientId]
    """All clients, also those that were refused."""
    faults: list[Fault]


def gather(clients: Any) -> Gathered:
    """Turn a run's `clients=` into `ClientData`, and say why some of them cannot be used."""
    try:
        federation = as_clients(clients)
        return Gathered(federation, federation.ids, [])
    except DataError as error:
        given = clients if isinstance(clients, Mapping) else None
        if isinstance(clients, list | tuple):
            given = dict(enumerate(clients))
        refused = {
            client: str(why)
            for client, value in (given or {}).items()
            if (why := _refusal(client, value))
        }
        if given is None or str(error) not in refused.values():
            # What was passed is no list of clients at all, and the error says what it is.
            return Gathered(None, (), [Fault("clients", str(error))])
        faults = [Fault("data", why) for why in refused.values()]
        good = {client: value for client, value in given.items() if client not in refused}
        return Gathered(as_clients(good) if good else None, tuple(given), faults)


def _refusal(client: ClientId, value: Any) -> DataError | None:
    try:
        as_clients({client: value})
    except DataError as error:
        return error
    return None


def look(
    federation: ClientData,
    clients: Iterable[ClientId],
    target: str | None,
    ignored: int | None,
) -> tuple[list[Held], list[Fault]]:
    """Load clients one after another and note what each holds.

    Args:
        federation: All clients.
        clients: Ids of those to look at.
        target: The leaf with the targets, whose labels are counted; None for no such leaf.
        ignored: The target of a place that counts nowhere; None where every target counts.

    Returns:
        What was found, of clients whose train examples can be used, and all faults.
    """
    held, faults = [], []
    for client in clients:
        loaded = attempt(_loaded, federation, client)
        if isinstance(loaded, Exception):
            kind = "data" if isinstance(loaded, DataError) else "loading"
            unread = f"Client {client!r} cannot be loaded. {named(loaded)}"
            faults.append(Fault(kind, str(loaded) if kind == "data" else unread))
            continue
        train, test = loaded
        found = leaf_faults(train, client, "train")
        faults += found
        faults += leaf_faults(test, client, "test") if test is not None else []
        if not found:
            rows, test_rows = count(train), count(test or {})
            labels = labels_in(train.get(target), ignored) if target else {}
            payload_bytes = trees.num_bytes(train)
            held.append(Held(client, rows, test_rows, payload_bytes, signature(train), labels))
    return held, faults


def _loaded(federation: ClientData, client: ClientId) -> tuple[Tree, Tree | None]:
    return federation[client].train, federation[client].test


def leaf_faults(tree: Tree, client: ClientId | None, part: str) -> list[Fault]:
    """Return a fault for each leaf that cannot be used, else one where they do not fit together."""
    found = []
    for path, leaf in trees.items(tree):
        # "there are none" is said once, not of each leaf.
        if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf):
            found += _refused({trees.name(path): leaf}, client, part)
    return found or _refused(tree, client, part)


def _refused(tree: Tree, client: ClientId | None, part: str) -> list[Fault]:
    try:
        check_examples(tree, client, part)
    except DataError as error:
        return [Fault("data", str(error))]
    return []


def held_out_faults(test: Any) -> tuple[Tree | None, list[Fault]]:
    """Return the held-out set as a tree, if it can be used, and what is wrong with it."""
    if test is None:
        return None, []
    try:
        tree = as_examples(test)
    except DataError as error:
        return None, [Fault("test", str(error))]
    faults = [fault._replace(kind="test") for fault in leaf_faults(tree, None, "test")]
    return (None if faults else tree), faults


def signature(tree: Tree) -> Signature:
    """Return the leaves of examples without their number of rows."""
    return tuple(
        (trees.name(path), leaf.dtype, tuple(leaf.shape[1:])) for path, leaf in trees.items(tree)
    )


def spelled(signature: Signature) -> str:
    """Write leaves as a reader knows them: `x float32 (n, 28, 28)`."""
    written = []
    for path, dtype, shape in signature:
        rows = f"({', '.join(['n', *map(str, shape)])})" if shape else "(n,)"
        written.append(f"{path} {str(dtype).removeprefix('torch.')} {rows}")
    return ", ".join(written)


def named(error: BaseException) -> str:
    """Write an error as `Kind: what it says`, on one line."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"


def labels_in(leaf: Any, ignored: int | None) -> dict[int, int]:
    """Count the labels of an integer leaf, but not those of places that count nowhere."""
    if not isinstance(leaf, Tensor) or leaf.is_floating_point() or leaf.is_complex():
        return {}
    values, counts = torch.unique(leaf, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    return {int(value): times for value, times in pairs if value != ignored}
