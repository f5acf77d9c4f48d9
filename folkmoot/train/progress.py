"""How a run shows itself: on a terminal, in a notebook, and elsewhere.

A terminal has a live bar, a notebook a live line, anything else a line for each evaluation. Each
builder returns a context whose value is a function of events, so that a bar is closed also when the
run fails.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from folkmoot.core.errors import SettingsError
from folkmoot.engines.clock import now
from folkmoot.train.events import Callback, Event

Progress = Callable[[], AbstractContextManager[Callback]]

_BAR_S = 0.1  # between two drawings of a bar
_CELL_S = 0.2  # between two writings of a notebook's line, which travel through its server

_DRAWING = threading.Lock()
"""Held while a bar is drawn, and by every fork: what a worker prints goes through the bar, whose
locks the worker would wait for without end if the drawing thread held them when it was forked."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_DRAWING.acquire,
        after_in_parent=_DRAWING.release,
        after_in_child=_DRAWING.release,
    )


@contextlib.contextmanager
def bar() -> Iterator[Callback]:
    """Show a live bar on a terminal, with the newest metrics and the time left."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Rich's own thread cannot be told of a fork, so the bar is drawn by one that can.
    with (
        RichProgress(*columns, console=Console(stderr=True), auto_refresh=False) as display,
        _drawn(display),
    ):
        task, advice_of = display.add_task("", total=None, metrics=""), heeded()

        def listen(event: Event) -> None:
            if event.kind == "start":
                display.update(task, description=str(event.row["name"]), total=event.rounds)
                if promised := promise_of(event.row):
                    display.console.print(promised, highlight=False)
            display.update(task, completed=event.round)
            if event.row.get("evaluated"):
                shown_now = [metrics_of(event.row), meter_of(event.row)]
                display.update(task, metrics="  ".join(filter(None, shown_now)))
            if event.kind == "round" and (advice := advice_of(event.row)):
                display.console.print(advice, highlight=False, markup=False)

        yield listen


@contextlib.contextmanager
def _drawn(display: RichProgress) -> Iterator[None]:
    """Draw a bar again and again, but never during a fork."""
    ended = threading.Event()

    def draw() -> None:
        while not ended.wait(_BAR_S):
            with _DRAWING:
                display.refresh()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def cell() -> Iterator[Callback]:
    """Show one line below a notebook's cell, which is written anew as rounds go by."""
    from IPython.display import display

    handle: Any = display({"text/plain": ""}, raw=True, display_id=True)
    begun, written, first, metrics = now(), 0.0, 0, ""

    def listen(event: Event) -> None:
        nonlocal written, first, metrics
        if event.kind == "start":
            first = event.round
        if event.row.get("evaluated"):
            kind = (event.row.get("advice") or "").partition(":")[0]
            found = [metrics_of(event.row), meter_of(event.row), kind]
            metrics = "  ".join(filter(None, found))
        is_due = event.kind == "end" or now() - written > _CELL_S
        if not is_due or event.round == first:
            return
        written = now()
        left_s = (written - begun) * (event.rounds - event.round) / (event.round - first)
        left = f"{left_s:.0f} s left" if event.kind == "round" else f"{written - begun:.1f} s"
        shown = [f"round {event.round}/{event.rounds}", metrics, left]
        handle.update({"text/plain": "  ".join(filter(None, shown))}, raw=True)

    yield listen


@contextlib.contextmanager
def lines(every_round: bool = False) -> Iterator[Callback]:
    """Print a line for each evaluated round, or for every round, to stderr."""
    advice_of = heeded()

    def listen(event: Event) -> None:
        promised = promise_of(event.row) if event.kind == "start" else None
        if promised:
            print(promised, file=sys.stderr, flush=True)
        if event.kind == "round" and (every_round or event.row["evaluated"]):
            print(line_of(event), file=sys.stderr, flush=True)
            if advice := advice_of(event.row):
                print(advice, file=sys.stderr, flush=True)

    yield listen


@contextlib.contextmanager
def quiet() -> Iterator[Callback]:
    """Show nothing."""
    yield lambda event: None


def shown(progress: Progress | bool | None) -> AbstractContextManager[Callback]:
    """Return the display that was asked for; None chooses by where the output goes."""
    if progress is False:
        return quiet()
    if progress is None or progress is True:
        if _in_notebook():
            return cell()
        return bar() if sys.stderr.isatty() else lines()
    if not callable(progress):
        raise SettingsError(
            "progress must be True, False, None, or a function that returns a display, but is "
            f"{progress!r}."
        )
    return progress()


def metrics_of(row: dict[str, Any]) -> str:
    """Return the newest metrics as one short text: those of the held-out set, else over clients."""
    part = "test" if any(key.startswith("test_") for key in row) else "clients"
    found = [key for key in row if key.startswith(f"{part}_")]
    # Over clients each metric also has quantiles, in columns of their own.
    shown_keys = [key for key in found if part == "test" or f"{key}_p10" in row][:2]
    return "  ".join(f"{key.removeprefix(f'{part}_')} {row[key]:.4f}" for key in shown_keys)


def promise_of(row: dict[str, Any]) -> str | None:
    """Return a private run's budget and its expected noise in one line, before the first round."""
    found = row.get("privacy")
    if found is None:
        return None
    budget = "" if found["epsilon_target"] is None else f"epsilon {found['epsilon_target']:g}, "
    return (
        f"privacy of each {found['unit']}: {budget}delta {found['delta']:g}, noise "
        f"{found['noise_multiplier']:.4g} x clip, expected noise to signal "
        f"{found['noise_to_signal']:.2g}"
    )


def heeded() -> Callable[[dict[str, Any]], str]:
    """Return a function of rows that returns the monitor's advice where it is of a new kind."""
    last = ""

    def advice_of(row: dict[str, Any]) -> str:
        nonlocal last
        if not row.get("evaluated"):
            return ""
        said = row.get("advice") or ""
        # Its numbers change with each evaluation; what it is about stands before the colon.
        before, last = last, said.partition(":")[0]
        return f"advice: {said}" if said and last != before else ""

    return advice_of


def meter_of(row: dict[str, Any]) -> str:
    """Return how much of a budget has gone, at most; the result says how much it was."""
    return f"epsilon <= {row['epsilon_bound']:.3g}" if "epsilon_bound" in row else ""


def line_of(event: Event) -> str:
    """Return a round as one line: number, metrics, who answered, seconds."""
    row = event.row
    found = [f"round {event.round}/{event.rounds}", metrics_of(row) if row["evaluated"] else ""]
    found.append(meter_of(row))
    found.append(f"{row['answered']} of {row['asked']} clients")
    found.append(f"{row['train_s']:.2f} s")
    if row["skipped"]:
        found.append(row["skipped"])
    return "  ".join(part for part in found if part)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return bool(shell and shell.get_ipython() and "IPKernelApp" in shell.get_ipython().config)
