"""Where private states of clients lie: in memory up to a bound, beyond it in files.

States that are written together lie in one file, one safetensors after the other. A file never
changes; its name is the sha256 of its bytes, so whoever names it, such as a checkpoint, vouches for
what it holds.
"""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from folkmoot.core import tree as trees
from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError, InfrastructureError
from folkmoot.core.tree import Tree
from folkmoot.train.folders import write_atomically

CLIENT_MEMORY = 2**30
"""Bytes of states that stay in memory where nothing else is asked."""
KEPT = 2
"""Checkpoints that are kept."""
_FILE_BYTES = 2**26
"""A file is closed once it holds this much: to write one takes that much memory."""
_ROOM = 16
"""A part of the bound that is free once room was made, so that it is not made in each round."""
_FEW = 1_000
"""States that are looked through without a thought."""
_LEAF_BYTES = 512
"""What a tensor takes in memory beside its numbers."""


class File:
    """States that were written together."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size


class Place(NamedTuple):
    """Where in a file a state lies, in bytes."""

    file: File
    begin: int
    size: int

    def read(self) -> bytes:
        """Return the state's bytes.

        Raises:
            CheckpointError: If the file is not there, or is too short.
        """
        path = self.file.path
        try:
            with path.open("rb") as opened:
                opened.seek(self.begin)
                data = opened.read(self.size)
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
        if len(data) < self.size:
            raise CheckpointError(f"{path} has been cut")
        return data


class State:
    """What one client kept after one round: in memory, in a file, or both."""

    __slots__ = ("__weakref__", "place", "tree")

    def __init__(self, tree: Tree | None, place: Place | None = None) -> None:
        self.tree = tree
        self.place = place

    def packed(self) -> bytes:
        """Return the state as it is written."""
        if self.tree is not None:
            return wire.to_bytes(self.tree)
        return self.place.read() if self.place is not None else b""


_LIVE: weakref.WeakValueDictionary[Path, File] = weakref.WeakValueDictionary()
"""Files that some state in this process refers to: they are not removed."""


class Store:
    """Keeps the states of one run.

    Args:
        memory_bytes: Of states that stay in memory, beside those of the last round.
        folder: Where files are kept for good. None is a temporary folder, which is made when it is
            needed and removed with the store.
        beside: In which folder the temporary one is made; None is the system's.
    """

    def __init__(
        self,
        memory_bytes: int = CLIENT_MEMORY,
        folder: Path | None = None,
        beside: Path | None = None,
    ) -> None:
        self.memory_bytes = memory_bytes
        # One name for each file, for who asks whether it is in use.
        self._folder = folder and folder.resolve()
        self._beside = beside and beside.resolve()
        self._durable = folder is not None
        self._recent: deque[weakref.ref[State]] = deque()
        self._held = 0
        """Bytes of recent states, some of which may be gone since."""
        self._most = _FEW
        """Recent states, also those that are gone, at which they are looked through."""
        self._written = 0
        """States written since files were last looked through."""
        self._vouched: deque[set[File]] = deque(maxlen=KEPT)
        """Files of the checkpoints that are kept."""

    def hold(self, tree: Tree) -> State:
        """Take a new state into memory."""
        state = State(tree)
        self._recent.append(weakref.ref(state))
        self._held += _size(tree)
        return state

    def make_room(self) -> None:
        """Leave the states that were renewed longest ago to files, where memory is full."""
        if self._held <= self.memory_bytes and len(self._recent) <= self._most:
            return
        # A state that nobody refers to any more is gone.
        recent = [state for found in self._recent if (state := found()) is not None]
        sizes = [_size(state.tree) for state in recent]
        self._held = sum(sizes)
        leaving = 0
        while self._held > self.memory_bytes - self.memory_bytes // _ROOM:
            self._held -= sizes[leaving]
            leaving += 1
        self.write(state for state in recent[:leaving] if state.place is None)
        for state in recent[:leaving]:
            state.tree = None
        self._recent = deque(map(weakref.ref, recent[leaving:]))
        self._most = 2 * len(self._recent) + _FEW
        if self._folder is not None and not self._durable:
            remove_unused(self._folder)

    def compact(self, states: Collection[State]) -> None:
        """Write anew what is left in files that are stale for the most part, now and then.

        A look goes through all states; there is one for each time that all have been written.
        """
        if self._written <= len(states):
            return
        left: Counter[File] = Counter()
        for state in states:
            if state.place is not None:
                left[state.place.file] += state.place.size
        stale = {file for file, size in left.items() if 2 * size < file.size}
        self.write(state for state in states if state.place and state.place.file in stale)
        self._written = 0

    def write(self, states: Iterable[State]) -> None:
        """Put states into new files; those in memory stay there as well.

        Raises:
            InfrastructureError: If they cannot be written; all are then where they were.
        """
        for group in _grouped(states):
            file, begin = self._file([piece for _, piece in group]), 0
            for state, piece in group:
                state.place = Place(file, begin, len(piece))
                begin += len(piece)
            self._written += len(group)

    def vouch(self, files: Iterable[File]) -> None:
        """Keep the files of one more checkpoint, and those of the one before it."""
        self._vouched.append(set(files))

    def folder(self) -> Path:
        """Return where files are written; a temporary folder is made the first time."""
        if self._folder is None:
            if self._beside is not None:
                self._beside.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=".folkmoot-states-", dir=self._beside))
            weakref.finalize(self, _remove, self._folder, os.getpid())
        return self._folder

    def _file(self, pieces: Sequence[bytes]) -> File:
        """Write one file; one that is kept for good is on the disk when this returns."""
        hashed = hashlib.sha256()
        for piece in pieces:
            hashed.update(piece)
        try:
            path = self.folder() / f"{hashed.hexdigest()}.states"
            file = _LIVE.get(path)
            # The folder may have been removed by hand, while earlier states were in it.
            if file is not None and path.exists():
                return file
            if self._durable:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, *pieces)
            else:
                with path.open("wb") as opened:
                    opened.writelines(pieces)
        except OSError as error:
            raise InfrastructureError(
                f"Private states of clients cannot be written: {type(error).__name__}, {error}. "
                "Make room there, name another folder by checkpoint=, or keep more in memory by "
                "client_memory=."
            ) from error
        return _LIVE.setdefault(path, File(path, sum(map(len, pieces))))


def checked(path: Path) -> File:
    """Return a file whose bytes are those that its name vouches for.

    Raises:
        CheckpointError: If it is not there, or holds other bytes.
    """
    try:
        with path.open("rb") as opened:
            found, size = hashlib.file_digest(opened, "sha256").hexdigest(), opened.tell()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    if found != path.stem:
        raise CheckpointError(f"the bytes of {path} are not those that were written")
    return _LIVE.setdefault(path, File(path, size))


def remove_unused(folder: Path) -> None:
    """Remove files of states that nothing in this process refers to, also half-written ones."""
    for path in folder.resolve().glob("*.states*"):
        if path not in _LIVE:
            path.unlink(missing_ok=True)


def _size(tree: Tree | None) -> int:
    """Return the bytes that a state takes in memory."""
    found = trees.leaves(tree or {})
    return sum(leaf.numel() * leaf.element_size() + _LEAF_BYTES for leaf in found)


def _grouped(states: Iterable[State]) -> Iterator[list[tuple[State, bytes]]]:
    """Cut a series of states into files' worth, each with its bytes."""
    group: list[tuple[State, bytes]] = []
    size = 0
    for state in states:
        group.append((state, state.packed()))
        size += len(group[-1][1])
        if size >= _FILE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _remove(folder: Path, owner: int) -> None:
    """Remove a temporary folder; a forked worker leaves it to the process that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
