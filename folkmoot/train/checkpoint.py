"""Checkpoints: what a run needs to go on, written whole or not at all.

One safetensors file a round, under a temporary name until it is on the disk, so that a kill at any
instant leaves the previous one. The two newest are kept. Each vouches for all of its bytes with a
sha256, so that a damaged one is found, reported, and the one before it used. Private states of
clients are not in it, but in files of their own, which it names by their sha256: each is written
once, however many checkpoints name it.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError, SettingsError
from folkmoot.core.tree import Tree
from folkmoot.train.folders import write_atomically
from folkmoot.train.loop import Snapshot
from folkmoot.train.states import ClientStates
from folkmoot.train.store import CLIENT_MEMORY, KEPT, Store, remove_unused

_NAMES = "checkpoint-*.safetensors"
_STATES = "states"
"""The folder of private states, beside the checkpoints."""
_SUM = "sha256"
_BLANK = "0" * 64
"""Stands in the file's metadata while its sum is taken."""
_FIRST = "initial_model"
"""A fact that may differ where a run that goes on has all of its model from the checkpoint."""
_MOST_NAMED = 5


class Stored(NamedTuple):
    """What a checkpoint holds."""

    snapshot: Snapshot
    best: Tree
    """The best model so far, or an empty tree."""
    facts: dict[str, Any]
    """History, the best round and its score, and what the program was."""
    tally: Tree
    """What each client has been asked for and has sent."""


def store_of(
    folder: Path | None, memory_bytes: int = CLIENT_MEMORY, save: str | Path | None = None
) -> Store:
    """Return where private states lie: with the checkpoints if there are any.

    Args:
        folder: Where checkpoints lie; None for nowhere.
        memory_bytes: As for `Store`.
        save: Where the finished run will lie, which has room for a temporary folder.
    """
    if folder is None:
        return Store(memory_bytes, beside=None if save is None else Path(save))
    return Store(memory_bytes, folder / _STATES)


def save_checkpoint(folder: Path, stored: Stored) -> Path:
    """Write a checkpoint atomically and remove all but the two newest.

    Args:
        folder: Where checkpoints lie.
        stored: Its private states are in the folder's store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = stored.snapshot
    files, places = snapshot.own.named()
    tree = {
        "state": snapshot.state,
        "codecs": snapshot.codecs,
        "bases": snapshot.bases,
        "tally": stored.tally,
        "places": places,
        "best": stored.best,
    }
    owners = list(snapshot.own)
    header = {"round": snapshot.round, "owners": owners, "files": files, "facts": stored.facts}
    path = folder / f"checkpoint-{snapshot.round:07d}.safetensors"
    write_atomically(
        path, sealed(wire.to_bytes(tree, {_SUM: _BLANK, "folkmoot": json.dumps(header)}))
    )
    # A kill in the midst of writing leaves a file under its temporary name.
    for old in [*sorted(folder.glob(_NAMES))[:-KEPT], *folder.glob(f".{_NAMES}.*")]:
        old.unlink(missing_ok=True)
    remove_unused(folder / _STATES)
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
    remove_unused(folder / _STATES)


def load_checkpoint(folder: Path, store: Store | None = None) -> Stored | None:
    """Return the newest checkpoint that can be read; None where there is none at all.

    Args:
        folder: Where checkpoints lie.
        store: From `store_of`, to go on with.

    Raises:
        CheckpointError: If there are checkpoints and none can be read.
    """
    store, faults = store or store_of(folder), []
    for path in sorted(folder.glob(_NAMES), reverse=True):
        try:
            stored = _read(path, store)
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


def _read(path: Path, store: Store) -> Stored:
    data = path.read_bytes()
    tree, metadata = wire.from_bytes(data)
    refuse_damage(data, metadata[_SUM])
    header = json.loads(metadata["folkmoot"])
    own = ClientStates.read(store, header["owners"], header["files"], tree["places"])
    snapshot = Snapshot(header["round"], tree["state"], tree["codecs"], own, tree["bases"])
    return Stored(snapshot, tree["best"], header["facts"], tree["tally"])


def refuse_other_program(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on where the checkpoint was made by another program.

    Raises:
        SettingsError: Naming each setting that differs, with both values.
    """
    # What a run says of itself comes before what its functions are and hold.
    names = sorted({**now, **stored}, key=lambda name: "." in name or name == "is")
    changed = [
        f"{name} was {stored.get(name)!r} and is {now.get(name)!r}"
        for name in names
        if stored.get(name) != now.get(name) and name != _FIRST
    ]
    if not changed and "personal" in now and stored[_FIRST] != now[_FIRST]:
        raise SettingsError(
            f"{_FIRST} was {stored[_FIRST]!r} and is {now[_FIRST]!r}. Clients that have not been "
            "asked yet begin with the personal leaves of the first model, which are in no "
            "checkpoint: build it with the same weights, such as after torch.manual_seed(0)."
        )
    if changed:
        more = f"; and {len(changed) - _MOST_NAMED} others" if len(changed) > _MOST_NAMED else ""
        raise SettingsError(
            f"The checkpoint belongs to another program: {'; '.join(changed[:_MOST_NAMED])}{more}. "
            "Restore these settings, or choose another folder."
        )
