"""What a command shows while it runs: a live bar, a line a round, JSON for machines, or nothing."""

import contextlib
import functools
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from folkmoot.train.events import Callback, Event
from folkmoot.train.progress import Progress, bar, lines, quiet


def display(machine: TextIO | None, silent: bool) -> Progress:
    """Choose how a run is shown.

    Args:
        machine: Where one JSON object an event is written; None for people.
        silent: Show nothing until the end.
    """
    if silent:
        return quiet
    if machine is not None:
        return functools.partial(_json_lines, machine)
    return bar if sys.stderr.isatty() else functools.partial(lines, every_round=True)


@contextlib.contextmanager
def _json_lines(machine: TextIO) -> Iterator[Callback]:
    def listen(event: Event) -> None:
        write_json(machine, {"event": event.kind, "round": event.round, **event.row})

    yield listen


def write_json(machine: TextIO, facts: dict[str, Any]) -> None:
    """Write one object on one line; NaN and infinities, which JSON has not, become null."""
    print(json.dumps(_finite(facts), default=str, allow_nan=False), file=machine, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
