"""Clients' own models in the folder of a run: the leaves in which they differ from the global one.

They lie in `clients/0000.safetensors` and so on, each under "<client>/<leaf of the state dict>", in
which "%" and "/" of a client's name are written %25 and %2F. A file's size is bounded, so that
neither writing nor reading holds all clients in memory.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from folkmoot.core.engine import ClientId
from folkmoot.core.errors import CheckpointError
from folkmoot.core.tree import Tree
from folkmoot.local.parts import PARTS
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.folders import write_atomically

_FOLDER = "clients"
_NAME = "[0-9][0-9][0-9][0-9].safetensors"
_FILE_BYTES = 2**26
"""A file is closed once it holds this much."""

Leaves = Callable[[], dict[str, Tensor]]


def differing(model: Tree, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the leaves of a model {"params", "buffers", "counts"} that a state dict has otherwise.

    A tied weight is there under its first name.
    """
    leaves = {name: leaf for part in PARTS for name, leaf in model.get(part, {}).items()}
    return {
        name: leaf
        for name, leaf in leaves.items()
        if name in weights and not torch.equal(leaf, weights[name])
    }


def write_own_models(folder: Path, clients: Mapping[ClientId, ClientResult]) -> None:
    """Write what of each client's model is its own, over what an earlier run has left."""
    written = set()
    # One file after the other: a result that was read from this folder reads what it writes.
    for number, group in enumerate(_grouped(clients)):
        (folder / _FOLDER).mkdir(exist_ok=True)
        path = folder / _FOLDER / f"{number:04d}.safetensors"
        owned = {
            _key(client, name): leaf.detach().cpu().clone().contiguous()
            for client, leaves in group.items()
            for name, leaf in leaves.items()
        }
        told = [[client, list(leaves)] for client, leaves in group.items()]
        data = save(owned, {"folkmoot": json.dumps(told)})
        # A file that is as it was stays, for results that have been read from it.
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)
        written.add(path)
    # Half-written ones too, but nothing that is not ours.
    for stale in {*_ours(folder, _NAME), *_ours(folder, f".{_NAME}.*")} - written:
        stale.unlink()


def read_own_models(folder: Path) -> dict[ClientId, Leaves]:
    """Return, for each client with leaves of its own, what reads them when it is asked.

    Raises:
        CheckpointError: If a file cannot be read.
    """
    found: dict[ClientId, Leaves] = {}
    for path in sorted(_ours(folder, _NAME)):
        try:
            with safe_open(path, "pt") as opened:
                told = json.loads(opened.metadata()["folkmoot"])
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}. Save the run again.") from error
        for client, names in told:
            found[client] = functools.partial(_leaves, path, _stamp(path), client, names)
    return found


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what differs once a file has been written anew."""
    about = path.stat()
    return about.st_ino, about.st_mtime_ns, about.st_size


def _ours(folder: Path, pattern: str) -> Iterator[Path]:
    return (folder / _FOLDER).glob(pattern)


def _leaves(
    path: Path, stamp: tuple[int, ...], client: ClientId, names: list[str]
) -> dict[str, Tensor]:
    try:
        if _stamp(path) != stamp:
            raise CheckpointError(
                f"The model of client {client!r} cannot be read from {path}, which has changed "
                "since the result was loaded. Load it again."
            )
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(_key(client, name)) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The model of client {client!r} cannot be read from {path}: {error}. Save the run "
            "again."
        ) from error


def _key(client: ClientId, name: str) -> str:
    return f"{client}".replace("%", "%25").replace("/", "%2F") + f"/{name}"


def _grouped(clients: Mapping[ClientId, ClientResult]) -> Iterator[dict[ClientId, Tree]]:
    """Cut clients into files' worth."""
    group: dict[ClientId, Tree] = {}
    size = 0
    for client, result in clients.items():
        leaves = result.leaves() if result.leaves else {}
        if leaves:
            group[client] = leaves
            size += sum(leaf.numel() * leaf.element_size() for leaf in leaves.values())
        if size >= _FILE_BYTES:
            yield group
            group, size = {}, 0
    if group:
        yield group
