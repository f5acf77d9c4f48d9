"""Make `ClientData` from arrays, a function, torch Datasets, or a list or dict of any of these.

`as_clients` is what a run calls on its `clients=` argument.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import describe, is_array, is_hugging_face, is_pair, owner_of
from folkmoot.data.client_data import Client, ClientData, Id
from folkmoot.data.digest import digest_of
from folkmoot.data.examples import as_examples, check_examples, number_of_classes, read_dataset


def from_function(
    ids: Iterable[Id],
    load: Callable[[Any], Any],
    *,
    test: Callable[[Any], Any] | None = None,
    name: str = "function",
    num_classes: int | None = None,
) -> ClientData:
    """Build clients from a function that loads one client's examples when they are asked for.

    Nothing is kept: every round in which a client takes part calls the function again, in whichever
    worker has its turn. Equal ids must give equal examples: what is drawn from a global generator
    differs from worker to worker, so draw from one that is made of the id.

    Args:
        ids: Client ids, for instance `range(1_000_000)`, which is never materialised.
        load: `load(id)` returns a Tree, an (x, y) pair or a torch Dataset. It may raise a
            ClientError where the client has none at the moment: it is left out of the round, with
            what that says; any other error ends the run.
        test: The same for a client's own test examples; may return None.
        name: What the set is called in tables and errors.
        num_classes: Number of classes of "y", where it is a class.

    Raises:
        DataError: When a client is asked for and what its function returned cannot be used.
    """
    for label, function in (("load", load), ("test", test)):
        if function is not None and not callable(function):
            raise DataError(
                f"{name}: {label} must be a function of a client id, but is {describe(function)}."
            )

    def held_out(client: Id) -> Tree | None:
        found = test(client) if test else None
        return None if found is None else checked(found, client, "test")

    return ClientData(
        ids,
        lambda client: checked(load(client), client, "train"),
        test=held_out if test else None,
        name=name,
        num_classes=num_classes,
    )


def from_datasets(
    datasets: Any,
    tests: Any = None,
    *,
    name: str = "datasets",
) -> ClientData:
    """Build clients from one Dataset (torch's or Hugging Face's), (x, y) pair or Tree a client.

    A Dataset is read whole, torch's through its default collate, each time its client is asked for,
    and must give equal examples each time; pairs and Trees lie in memory and are checked now.

    Args:
        datasets: A list (ids are then 0, 1, ...) or a dict from id to a client's train examples.
        tests: A list of the same length, or a dict with some of the ids: the clients' own test
            examples.
        name: What the set is called in tables and errors.

    Raises:
        DataError: If there is none, a client holds nothing, or `tests` names other clients.
    """
    train = _by_id(datasets, name)
    held_out = {} if tests is None else _by_id(tests, name)
    stray = [client for client in held_out if client not in train]
    if stray:
        raise DataError(f"{name}: tests names client {stray[0]!r}, which has no train examples.")
    trees = {client: _ready(value, client, "train") for client, value in train.items()}
    test_trees = {client: _ready(value, client, "test") for client, value in held_out.items()}
    in_memory = all(isinstance(value, dict) for value in [*trees.values(), *test_trees.values()])
    classes = [number_of_classes(value) for value in trees.values() if isinstance(value, dict)]

    def test(client: Id) -> Tree | None:
        return _read(test_trees[client], client, "test") if client in test_trees else None

    def content() -> str:
        parts = {str(client): value for client, value in sorted(trees.items())}
        return digest_of(
            {"train": parts, "test": {str(key): value for key, value in test_trees.items()}}
        )

    return ClientData(
        trees,
        lambda client: _read(trees[client], client, "train"),
        test=test if test_trees else None,
        sizes=[_size(value) for value in trees.values()],
        name=name,
        num_classes=max(known) if (known := [found for found in classes if found]) else None,
        content=content if in_memory else None,
    )


def as_clients(anything: Any) -> ClientData:
    """Turn a run's `clients=` argument into `ClientData`.

    Args:
        anything: `ClientData`, which passes through; a list or dict (by id) of Datasets (torch's or
            Hugging Face's), of (x, y) pairs or of Trees; or a list of `Client`.

    Raises:
        DataError: If it is anything else; the sentence says what to do with what was passed.
    """
    if isinstance(anything, ClientData):
        return anything
    advice = _advice(anything)
    if advice:
        raise DataError(f"clients= is {describe(anything)}: {advice}")
    values = list(anything.values() if isinstance(anything, Mapping) else anything)
    if values and all(isinstance(value, Client) for value in values):
        chosen = {value.id: value for value in values}
        if all(value._data is values[0]._data for value in values):
            return values[0]._data.subset([value.id for value in values])
        return from_function(
            chosen, lambda id: chosen[id].train, test=lambda id: chosen[id].test, name="clients"
        )
    return from_datasets(anything, name="clients")


def _advice(anything: Any) -> str:
    if isinstance(anything, str):
        return f"pass the clients themselves: clients, test = fm.data.load({anything!r})."
    if isinstance(anything, tuple) and anything and isinstance(anything[0], ClientData):
        return "this looks like what fm.data.load returned; unpack it first: clients, test = ..."
    if is_hugging_face(anything):
        return (
            "say which column tells the client, clients = fm.data.from_hugging_face(split, "
            "client='...'), or pass a list with one Dataset a client."
        )
    one = (
        "this is one data set, not one a client; split it with fm.data.partition, or pass a list "
        "with one a client."
    )
    if isinstance(anything, Dataset | Tensor | np.ndarray) or is_pair(anything):
        return one
    if isinstance(anything, Mapping) and any(is_array(value) for value in anything.values()):
        return one
    if hasattr(anything, "columns") and hasattr(anything, "to_numpy"):
        return "build clients from a table: fm.data.from_frame(frame, client='...', target='...')."
    if not isinstance(anything, Mapping | list | tuple):
        return (
            "pass ClientData, or a list or dict of torch Datasets, of (x, y) pairs or of dicts of "
            "tensors."
        )
    return ""


def checked(found: Any, client: Id, part: str) -> Tree:
    """Turn what a client holds into a Tree and refuse it if it cannot be used."""
    tree = as_examples(found, owner=owner_of(client, part))
    check_examples(tree, client, part)
    return tree


def _by_id(datasets: Any, name: str) -> dict[Id, Any]:
    if isinstance(datasets, Mapping):
        return dict(datasets)
    if isinstance(datasets, list | tuple):
        return dict(enumerate(datasets))
    raise DataError(
        f"{name}: expected a list or a dict with one data set a client, found {describe(datasets)}."
    )


def _ready(value: Any, client: Id, part: str) -> Any:
    splits = is_hugging_face(value) and isinstance(value, Mapping)
    if isinstance(value, Dataset) or (is_hugging_face(value) and not splits):
        # A Dataset without a length or without items is refused now, the others are read later.
        if not hasattr(value, "__len__") or len(value) == 0:
            return read_dataset(value, owner=owner_of(client, part))
        return value
    return checked(value, client, part)


def _read(value: Any, client: Id, part: str) -> Tree:
    return value if isinstance(value, dict) else checked(value, client, part)


def _size(value: Any) -> int:
    return check_examples(value, None, "train") if isinstance(value, dict) else len(value)
