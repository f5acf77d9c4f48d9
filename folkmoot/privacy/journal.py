"""An append-only file of JSON lines that survives a kill at any byte, and tells if it was edited.

A record is on the disk when `append` returns, and acknowledged by nothing less: a last line without
its end was never acknowledged, and the next record takes its place. Each line ends with the sha256
of its record and of the line before, so one that was removed, edited or moved is found. Two things
are not: whole lines cut off from the end, and a forger who computes all sums anew. Where these must
be found too, keep `head`, the last sum, elsewhere.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from folkmoot.core.errors import CheckpointError, InfrastructureError, SettingsError

_FIRST = "0" * 64
"""What stands for the sum of a line before the first."""
_LINE = '{{"record": {}, "chain": "{}"}}'
_BEFORE, _AFTER = len('{"record": '), len(', "chain": ""}') + 64


class Journal:
    """A file that one process at a time may add records to; open until closed.

    Args:
        path: The file; it and its folder are made where they are missing.

    Raises:
        SettingsError: If it cannot be opened for writing, as a folder cannot.
        CheckpointError: If a line is damaged, or another process has the file open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = _FIRST
        """The last line's sum: sha256 in hex."""
        self._end, self._torn = 0, False
        # Without a buffer: one that could not be written would be tried again behind our back.
        self._file: Any = os.fdopen(_opened(path), "r+b", 0)
        try:
            self._lock()
            self.records = self._read()
            """What stood in the file when it was opened."""
            _settle(path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, record: dict[str, Any]) -> None:
        """Add a record, and wait until it is on the disk.

        Raises:
            InfrastructureError: If it cannot be written; it then does not count as added.
        """
        text = json.dumps(record, allow_nan=False)
        head = _chain(self.head, text.encode())
        line = _LINE.format(text, head).encode() + b"\n"
        if self._file is None:
            raise InfrastructureError(f"{self.path} is closed, so nothing can be added to it.")
        try:
            if self._torn:
                self._file.truncate(self._end)
            self._torn = True
            self._file.seek(self._end)
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InfrastructureError(f"{self.path} cannot be written: {error}.") from error
        self._torn = False
        self._end += len(line)
        self.head = head

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lock(self) -> None:
        if not _locked(self._file):
            raise CheckpointError(
                f"{self.path} is open elsewhere, and two who add to it at once would not see each "
                "other's records. Wait until the other has ended, or close it there."
            )

    def _read(self) -> list[dict[str, Any]]:
        data = self._file.read()
        self._end = data.rfind(b"\n") + 1
        # Behind it stands what a kill or a full disk has left half written, to be overwritten.
        self._torn = self._end < len(data)
        found = []
        for number, line in enumerate(data[: self._end].split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
                if row["chain"] != _chain(self.head, line[_BEFORE:-_AFTER]):
                    raise ValueError("its sum is not that of what stands there")
                found.append(row["record"])
            except (LookupError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"Line {number} of {self.path} is damaged, was edited, or follows one that "
                    f"was: {error}. The file is only ever added to; restore it from a copy."
                ) from error
            self.head = row["chain"]
        return found


def _opened(path: Path) -> int:
    if path.is_dir():
        raise SettingsError(
            f"{path} is a folder. Name a file in it, such as {path / 'ledger.jsonl'}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be opened: {error}. Name a file that may be written."
        ) from error


def _chain(before: str, record: bytes) -> str:
    return hashlib.sha256(before.encode() + record).hexdigest()


def _settle(folder: Path) -> None:
    """Put a new file's name on the disk, where the system has a way to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _locked(file: BinaryIO) -> bool:
    """Take a file for this process alone, and tell whether that was possible.

    The lock goes with the process, however it ends.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # One byte far behind all records: who reads them is not kept out.
            file.seek(1 << 40)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
