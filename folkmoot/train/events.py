"""What a run tells while it goes: plain events for plain functions."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One thing that happened in a run."""

    kind: str
    """"start", "round" (done and, where it was due, evaluated) or "end"."""
    round: int
    """Rounds done."""
    rounds: int
    """Rounds asked for."""
    row: dict[str, Any]
    """The round's row of the history, in a private run with "epsilon_bound", a quick upper bound on
    what is spent; settings at the start; the last row at the end."""


Callback = Callable[[Event], None]
