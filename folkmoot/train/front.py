"""What the command line decides for the runs of an app, which calls `fm.run` without knowing of it.

    with behind(Front(workers=2, place=folder_of)):
        result = app()

`run` reads `current()` once, at its start. What was typed wins over what the app says of workers
and display; the folder is added to those that the app names itself.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.train.progress import Progress


class Front(NamedTuple):
    """Defaults for every run inside a `with behind(...)`."""

    workers: int | None = None
    """Streams of clients, in place of the app's."""
    progress: Progress | None = None
    """How to show what happens, in place of the app's."""
    name: str | None = None
    """What a run is called that the app leaves without a name."""
    place: Callable[[str], Path] | None = None
    """From a run's name to the folder in which it is kept, as it goes and at its end."""
    resume: bool = False
    """Whether to go on from that folder."""
    checks: bool = False
    """Whether `run` only looks: it raises `Checked` with the report instead of training."""
    hands_over: bool = False
    """Whether `run` only tells what it was asked for: it raises `Handed` with it."""
    app: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """What a run's settings say of the app: file, digest, and what was set."""


class Checked(BaseException):
    """Ends an app at its first run, of which only the check is wanted.

    No `except Exception` of the app stops it.
    """

    def __init__(self, report: Any) -> None:
        super().__init__("The run was checked, not trained.")
        self.report = report


class Handed(BaseException):
    """Ends an app at its first run, of which only the arguments are wanted, as of `Checked`."""

    def __init__(self, algorithm: Any, clients: Any, options: dict[str, Any]) -> None:
        super().__init__("The run was handed over, not trained.")
        self.algorithm, self.clients = algorithm, clients
        self.options = options
        """Those that say what a run releases."""


_CURRENT: ContextVar[Front] = ContextVar("front")
_NOBODY = Front()


def current() -> Front:
    """Return what stands in front of this run; outside of the command line nothing does."""
    return _CURRENT.get(_NOBODY)


@contextlib.contextmanager
def behind(front: Front) -> Iterator[None]:
    """Let every run inside of the block read `front`."""
    token = _CURRENT.set(front)
    try:
        yield
    finally:
        _CURRENT.reset(token)
