"""Whether a run can be kept where it shall be, found out before round 1; and writing there."""

import os
import tempfile
from pathlib import Path

from folkmoot.core.errors import InfrastructureError


def checked_folders(
    checkpoint: str | Path | None, save: str | Path | None, place: Path | None
) -> Path | None:
    """Return where checkpoints are written, None for nowhere, once all folders can be.

    Args:
        checkpoint, save: As for `run`.
        place: The command line's folder, which keeps checkpoints where `checkpoint` is None.
    """
    for option, folder in {"checkpoint=": checkpoint, "save=": save, "--out": place}.items():
        if folder is not None:
            refuse_unwritable(option, Path(folder))
    kept, option = (place, "--out") if checkpoint is None else (Path(checkpoint), "checkpoint=")
    if kept is None:
        return None
    refuse_unwritable(option, kept / "checkpoints")
    return kept / "checkpoints"


def refuse_unwritable(option: str, folder: Path) -> None:
    """Refuse before the first round what could not be written after the last.

    The folder itself is not made: its names are tried, with a file, in a folder beside it that is
    removed at once. So a run that is refused later leaves nothing behind.

    Args:
        option: Where another folder can be named, such as "save=".
        folder: Where files will be written; it may not be there yet.

    Raises:
        InfrastructureError: If nothing can be written there.
    """
    whole = folder.absolute()
    try:
        there = next(place for place in (whole, *whole.parents) if place.exists())
        with tempfile.TemporaryDirectory(prefix=".folkmoot-", dir=there) as probe:
            tried = Path(probe) / whole.relative_to(there)
            tried.mkdir(parents=True, exist_ok=True)
            (tried / "probe").write_bytes(b"probe")
    except OSError as error:
        raise InfrastructureError(
            f"The run cannot be kept in {folder}: {type(error).__name__}, {error.strerror}. Name "
            f"another folder by {option}."
        ) from error


def write_atomically(path: Path, *data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash.

    Args:
        path: Its folder is there.
        data: Its bytes, in pieces.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.writelines(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
