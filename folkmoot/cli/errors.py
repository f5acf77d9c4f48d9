"""How an error is told: one sentence with cause and cure, the user's own frames, and an exit code.

The process ends here, so this is where errors of every kind are caught.
"""

import contextlib
import json
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import FrameSummary
from typing import Any, TextIO

import typer

from folkmoot.core.errors import FolkmootError

USER_CODE = 3
INFRASTRUCTURE = 5
INTERRUPTED = 130

_OURS = Path(__file__).parents[1]
_LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib")]


@contextlib.contextmanager
def reported(
    debug: bool = False,
    machine: TextIO | None = None,
    hint: Callable[[BaseException], str | None] = lambda error: None,
) -> Iterator[None]:
    """Turn whatever is raised inside into a message on stderr and an exit code.

    Args:
        debug: Show the whole traceback.
        machine: Where one JSON object is written as well; None for nowhere.
        hint: A last sentence, such as how to go on after this error.

    Raises:
        typer.Exit: With the exit code.
    """
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt as stop:
        _tell(["Interrupted."], INTERRUPTED, stop, debug, machine, hint(stop))
    except BaseException as error:  # the process boundary
        _tell(_lines(error), exit_code(error), error, debug, machine, hint(error))


def exit_code(error: BaseException) -> int:
    """Return 2 to 5: what folkmoot raises knows its own, all else is the user's code.

    A file or memory that fails in folkmoot's own hands is the machine's fault.
    """
    if isinstance(error, FolkmootError):
        return error.exit_code
    if isinstance(error, OSError | MemoryError) and _is_ours(_frames(error)):
        return INFRASTRUCTURE
    return USER_CODE


def own_frames(error: BaseException) -> list[FrameSummary]:
    """Return the frames of an error that lie in the user's files, outermost first."""
    return [
        frame
        for frame in _frames(error)
        if not frame.filename.startswith("<frozen")
        and not _inside(frame, [_OURS, *_LIBRARIES])
        and not {"site-packages", "dist-packages"} & set(Path(frame.filename).parts)
    ]


def _frames(error: BaseException) -> list[FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _inside(frame: FrameSummary, folders: list[Path]) -> bool:
    return any(Path(frame.filename).is_relative_to(folder) for folder in folders)


def _is_ours(frames: list[FrameSummary]) -> bool:
    """Tell whether the last frame outside of the libraries is folkmoot's."""
    named = [frame for frame in frames if not _inside(frame, _LIBRARIES)]
    return bool(named) and _inside(named[-1], [_OURS])


def _lines(error: BaseException) -> list[str]:
    """Write an error and its notes; kinds of folkmoot's own go without their name."""
    notes = [f"  {line}" for note in getattr(error, "__notes__", []) for line in note.splitlines()]
    if isinstance(error, FolkmootError):
        return [str(error), *notes]
    if isinstance(error, SyntaxError):
        place = f"  {_short(error.filename or '')}, line {error.lineno}"
        return [f"{type(error).__name__}: {error.msg}", place, f"    {(error.text or '').strip()}"]
    if isinstance(error, SystemExit):
        return [f"The app ended the program by sys.exit({error.code!r}); let it return the run."]
    text = str(error)
    return [f"{type(error).__name__}: {text}" if text else type(error).__name__, *notes]


def _tell(
    lines: list[str],
    code: int,
    error: BaseException,
    debug: bool,
    machine: TextIO | None,
    hint: str | None,
) -> None:
    """Write the message, and end with the code."""
    typer.secho("Error: " if code != INTERRUPTED else "", fg="red", err=True, nl=False)
    typer.echo("\n".join(lines), err=True)
    if debug:
        typer.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    elif code != INTERRUPTED:
        for frame in own_frames(error):
            place = f"  {_short(frame.filename)}, line {frame.lineno}, in {frame.name}"
            typer.echo(f"{place}\n    {frame.line}" if frame.line else place, err=True)
        if not isinstance(error, FolkmootError):
            typer.echo("--debug shows the whole traceback.", err=True)
    if hint:
        typer.echo(hint, err=True)
    if machine is not None:
        told: dict[str, Any] = {"event": "error", "exit_code": code, "kind": type(error).__name__}
        print(json.dumps({**told, "message": "\n".join(lines)}), file=machine, flush=True)
    raise typer.Exit(code)


def _short(filename: str) -> str:
    """Return a path from here, where the file lies below."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
