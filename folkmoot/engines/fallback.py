"""What becomes of work that cannot be run as one program, though each client can by itself.

A failure of many clients at once says nothing of whose it is, so they are trained again, one by
one: a mistake is then a client's own, and comes with client, round and stage. If nobody fails, the
program was at fault. An engine that was named refuses such work; one that nobody named gives way.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.engine import ClientId, Cohort, Collected, Engine, LeftOut, Opener, Setting
from folkmoot.core.errors import FolkmootError, SettingsError
from folkmoot.core.tree import Tree

_BY_VALUES = re.compile(r"data-dependent|\.item\(\)", re.IGNORECASE)
_MOST_LETTERS = 120


DRAWN = "its batches are drawn row by row, and no two have one size"
"""Why no work with Poisson batches is one program."""


class UnfitError(SettingsError):
    """Work that an engine cannot run as one program, though each client can be trained alone."""


def cause(error: Exception) -> str:
    """Say in a few words why a program failed; what PyTorch tells fills pages."""
    if _BY_VALUES.search(str(error)):
        return "it decides by the values of tensors"
    first = re.split(r"\n|\. |\.$", str(error).strip(), maxsplit=1)[0]
    if isinstance(error, FolkmootError):
        return first
    short = first if len(first) <= _MOST_LETTERS else first[:_MOST_LETTERS] + "..."
    return f"{type(error).__name__}: {short}"


class Yielding:
    """An engine that nobody named; another one goes on from the first work that does not fit it."""

    def __init__(self, engine: Engine, other: Callable[[], Engine]) -> None:
        self._other = other
        self._may_yield = True
        self._run(engine)

    def _run(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.exact, self.streams = engine.name, engine.exact, engine.streams

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Ask the engine, or the other one if it cannot."""
        try:
            return self._engine.ask(task, state, cohort, own)
        except UnfitError:
            if not self._may_yield:
                raise
        self.close()
        self._may_yield = False
        self._run(self._other())
        return self._engine.ask(task, state, cohort, own)

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield single updates."""
        yield from self._engine.stream(task, cohort, own)

    def close(self) -> None:
        """Close the engine that runs."""
        self._engine.close()


def yielding(first: Opener, other: Opener) -> Opener:
    """Open an engine that gives way to another one for work that does not fit it."""

    def open(setting: Setting) -> Engine:
        return Yielding(first(setting), lambda: other(setting))

    return open
