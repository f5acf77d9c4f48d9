"""Checkpoints: what a run needs to go on, written whole or not at all.

One safetensors file a round, under a temporary name until it is on the disk, so that a kill at any
instant leaves the previous one. The two newest are kept. Each vouches for all of its bytes with a
sha256, so that a damaged one is found, reported, and the one before it used.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError, SettingsError
from folkmoot.core.tree import Tree
from folkmoot.train.loop import Snapshot
from folkmoot.train.states import ClientStates

_KEPT = 2
_NAMES = "checkpoint-*.safetensors"
_SUM = "sha256"
_BLANK = "0" * 64
"""Stands in the file's metadata while its sum is taken."""
_FREE = ("initial_model",)
"""Facts that may differ: a run that goes on takes its model from the checkpoint."""
_MOST_NAMED = 5


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
    write_atomically(
        path, sealed(wire.to_bytes(tree, {_SUM: _BLANK, "folkmoot": json.dumps(header)}))
    )
    # A kill in the midst of writing leaves a file under its temporary name.
    for old in [*sorted(folder.glob(_NAMES))[:-_KEPT], *folder.glob(f".{_NAMES}.*")]:
        old.unlink(missing_ok=True)
    return path


def sealed(data: bytes) -> bytes:
    """Write the sha256 of a file into its own metadata, where zeros stood."""
    return data.replace(_BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def refuse_damage(data: bytes, noted: str) -> None:
    """Refuse bytes that are not those for which `sealed` has vouched."""
    blank = data.replace(noted.encode(), _BLANK.encode(), 1)
    if hashlib.sha256(blank).hexdigest() != noted:
        raise CheckpointError("its bytes are not those that were written")


def begin_anew(folder: Path, finished: Path) -> None:
    """Make room for a new run's checkpoints; those of a run that can still go on are kept.

    Args:
        folder: Where checkpoints lie.
        finished: A file that is there once the run has ended.

    Raises:
        SettingsError: If there are checkpoints and their run has not ended.
    """
    old = sorted(folder.glob(_NAMES))
    if old and not finished.exists():
        raise SettingsError(
            f"{folder} holds {old[-1].name} of a run that has not ended. Go on with it by "
            "resume=True, choose another folder, or remove this one."
        )
    finished.unlink(missing_ok=True)
    for path in old:
        path.unlink()


def load_checkpoint(folder: Path) -> Stored | None:
    """Return the newest checkpoint that can be read; None where there is none at all.

    Raises:
        CheckpointError: If there are checkpoints and none can be read.
    """
    faults = []
    for path in sorted(folder.glob(_NAMES), reverse=True):
        try:
            stored = _read(path)
        except (CheckpointError, LookupError, TypeError, ValueError, OSError) as error:
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
    data = path.read_bytes()
    tree, metadata = wire.from_bytes(data)
    refuse_damage(data, metadata[_SUM])
    header = json.loads(metadata["folkmoot"])
    own = {client: tree["own"][f"{place}"] for place, client in enumerate(header["owners"])}
    snapshot = Snapshot(header["round"], tree["state"], tree["codecs"], ClientStates(own))
    return Stored(snapshot, tree["best"], header["facts"])


def refuse_other_program(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on where the checkpoint was made by another program.

    Raises:
        SettingsError: Naming each setting that differs, with both values.
    """
    changed = [
        f"{name} was {stored.get(name)!r} and is {now.get(name)!r}"
        for name in {**now, **stored}
        if stored.get(name) != now.get(name) and name not in _FREE
    ]
    if changed:
        more = f"; and {len(changed) - _MOST_NAMED} others" if len(changed) > _MOST_NAMED else ""
        raise SettingsError(
            f"The checkpoint belongs to another program: {'; '.join(changed[:_MOST_NAMED])}{more}. "
            "Restore these settings, or choose another folder."
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
