"""The picture of a run: its metric over rounds, how clients differ, and the loss.

Drawn with Matplotlib's objects alone, never with pyplot, so a notebook's backend and a program's
own figures stay as they are. Colours are of Okabe and Ito's palette, which color-blind readers can
tell apart.
"""

import io
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from folkmoot.core.errors import SettingsError
from folkmoot.train.checkpoint import write_atomically
from folkmoot.train.outcome import Outcome
from folkmoot.train.summary import (
    chosen_metric,
    headline,
    last_evaluated,
    metric_names,
    number,
    plural,
)

_HELD_OUT, _CLIENTS, _INK, _MUTED, _LINE = "#0072b2", "#d55e00", "#20242b", "#68707c", "#e2e5e9"
_SUFFIXES = (".png", ".svg", ".pdf")
_DOTS = 40  # up to so many evaluations are marked one by one
_STYLE = {
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": _INK,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "folkmoot",
    "pdf.fonttype": 42,
}
_PAGE = {
    _INK: "currentColor",
    _MUTED: "var(--muted, #808791)",
    _LINE: "var(--line, rgba(128, 135, 145, .28))",
    _HELD_OUT: "var(--held-out, #0072b2)",
    _CLIENTS: "var(--clients, #d55e00)",
}


class _Curve(NamedTuple):
    """One line of a panel: a value a round, NaN where there is none."""

    name: str
    values: np.ndarray
    colour: str
    style: str = "-"
    width: float = 1.6


def draw(outcome: Outcome) -> Any:
    """Return a Matplotlib figure of a whole run, with its name above."""
    with _matplotlib():
        figure = _figure((10.4, 5.6))
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.895))
        figure.text(0.012, 0.955, outcome.name, fontsize=14, fontweight="bold", va="center")
        figure.text(0.012, 0.905, headline(outcome), color=_MUTED, va="center")
        _panels(figure, outcome)
    return figure


def write_picture(path: Path, outcome: Outcome) -> Path:
    """Write the picture as PNG, SVG or PDF, by the path's ending, and return the path.

    Raises:
        SettingsError: If the ending is another one.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise SettingsError(
            f"A picture's format is read from its ending, but {path.name!r} ends in "
            f"{suffix or 'none'!r}. Use one of {', '.join(_SUFFIXES)}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _bytes(draw(outcome), suffix[1:]))
    return path


def inline_svg(outcome: Outcome, *, small: bool = False) -> str:
    """Return the picture as an <svg> element that takes a page's colours, and needs no network.

    Args:
        outcome: What is drawn.
        small: Whether only the metric's curve is drawn.
    """
    with _matplotlib():
        figure = _figure((6.2, 2.7) if small else (10.4, 5.0))
        figure.patch.set_visible(False)
        if small:
            _main(figure.subplots(), outcome)
        else:
            _panels(figure, outcome)
        text = _bytes(figure, "svg").decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _PAGE.items():
        text = text.replace(colour, variable)
    named = f'<svg role="img" aria-label="{_alternative(outcome)}" style="max-width: 100%; height: auto"'
    return text.replace("<svg", named, 1)


def _alternative(outcome: Outcome) -> str:
    """Return what the picture shows, for readers who do not see it; without any markup."""
    metric = re.sub(r"[^\w ]", " ", chosen_metric(outcome))
    return f"{metric} over {plural(outcome.rounds, 'round')}"
