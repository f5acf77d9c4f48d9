"""Checkpoints: what a run needs to go on, written whole or not at all.

One safetensors file a round, under a temporary name until it is on the disk, so that a kill at any
instant leaves the previous one. The two newest are kept; a damaged one is reported and the one
before it is used.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError
from folkmoot.core.tree import Tree
from folkmoot.train.loop import Snapshot

_KEPT = 2


class Stored(NamedTuple):
    """What a checkpoint holds."""

    snapshot: Snapshot
    best: Tree
    """The best model so far, or an empty tree."""
    facts: dict[str, Any]
    """History, the best round and its score, and what the program was."""


def save_checkpoint(folder: Path, stored: Stored) -> Path:
    """Write a checkpoint atomically and remove all but the two newest."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = stored.snapshot
    owners = list(snapshot.own)
    tree = {
        "state": snapshot.state,
        "codecs": snapshot.codecs,
        "own": {f"{place}": snapshot.own[client] for place, client in enumerate(owners)},
        "best": stored.best,
    }
    header = {"round": snapshot.round, "owners": owners, "facts": stored.facts}
    path = folder / f"checkpoint-{snapshot.round:07d}.safetensors"
    write_atomically(path, wire.to_bytes(tree, {"folkmoot": json.dumps(header)}))
    for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> Stored | None:
    """Return the newest checkpoint that can be read; None where there is none at all.

    Raises:
        CheckpointError: If there are checkpoints and none can be read.
    """
    faults = []
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        try:
            stored = _read(path)
        except (CheckpointError, KeyError, ValueError, OSError) as error:
            faults.append(f"{path.name}: {error}")
            continue
        if faults:
            warnings.warn(
                f"A checkpoint in {folder} is damaged ({faults[0]}); going on from round "
                f"{stored.snapshot.round} instead.",
                stacklevel=2,
            )
        return stored
    if faults:
        raise CheckpointError(
            f"No checkpoint in {folder} can be read: {'; '.join(faults)}. Remove the folder to "
            "begin anew."
        )
    return None


def _read(path: Path) -> Stored:
    tree, metadata = wire.from_bytes(path.read_bytes())
    header = json.loads(metadata["folkmoot"])
    own = {client: tree["own"][f"{place}"] for place, client in enumerate(header["owners"])}
    snapshot = Snapshot(header["round"], tree["state"], tree["codecs"], own)
    return Stored(snapshot, tree["best"], header["facts"])


def refuse_other_program(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on where the checkpoint was made by another program.

    Raises:
        CheckpointError: Naming each setting that differs, with both values.
    """
    changed = [
        f"{name} was {stored.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if stored.get(name) != value
    ]
    if changed:
        raise CheckpointError(
            f"The checkpoint belongs to another program: {'; '.join(changed)}. Restore these "
            "settings, or choose another "
            "folder."
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
