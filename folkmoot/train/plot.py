"""The picture of a run: its metric over rounds, how clients differ, and the loss.

Drawn with Matplotlib's objects alone, never with pyplot, so a notebook's backend and a program's
own figures stay as they are. Colours are of Okabe and Ito's palette, which color-blind readers can
tell apart.
"""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from folkmoot.core.errors import SettingsError
from folkmoot.data.picture import keep_out_of_home
from folkmoot.train.efficiency import curves_of, efficiency_panels, shown_metric
from folkmoot.train.folders import write_atomically
from folkmoot.train.gantt import gantt
from folkmoot.train.outcome import Outcome
from folkmoot.train.panels import CLIENTS, HELD_OUT, INK, LINE, MUTED, PAPER, main_panel, panels
from folkmoot.train.privacy_panels import privacy_panels
from folkmoot.train.summary import chosen_metric, headline
from folkmoot.train.traffic_panels import traffic_panels
from folkmoot.train.words import plural

_SUFFIXES = (".png", ".svg", ".pdf")
_STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    # Names of runs, data and metrics may hold a "$".
    "text.parse_math": False,
    "text.usetex": False,
    "axes.titlesize": 10.5,
    "lines.solid_capstyle": "round",
    "savefig.bbox": "standard",
    "savefig.facecolor": "auto",
    "svg.fonttype": "none",
    "svg.hashsalt": "folkmoot",
    "pdf.fonttype": 42,
}
_ON_A_PAGE = {
    INK: "currentColor",
    MUTED: "var(--muted, #808791)",
    LINE: "var(--line, #80879140)",
    PAPER: "var(--paper, #ffffff)",
    HELD_OUT: "var(--held-out, #0072b2)",
    CLIENTS: "var(--clients, #d55e00)",
}


def draw(outcome: Outcome) -> Any:
    """Return a Matplotlib figure of a whole run, with its name above."""
    with _matplotlib():
        figure = _figure((10.4, 5.8))
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.87))
        figure.text(0.012, 0.957, outcome.name, fontsize=14, fontweight="bold", va="center")
        figure.text(0.012, 0.91, headline(outcome), color=MUTED, va="center")
        panels(figure, outcome)
    return figure


def draw_privacy(outcome: Outcome) -> Any:
    """Return a Matplotlib figure of what a run has promised and spent."""
    with _matplotlib():
        figure = _figure((10.4, 3.2))
        privacy_panels(figure, outcome)
    return figure


def draw_efficiency(outcome: Outcome, others: Mapping[str, Outcome] = MappingProxyType({})) -> Any:
    """Return a Matplotlib figure of a metric against rounds, bytes up, and virtual time.

    Args:
        outcome: The run.
        others: Runs to be drawn beside it, by what they are to be called.
    """
    curves = curves_of(outcome, others)
    with _matplotlib():
        figure = _figure((10.4, 3.4))
        efficiency_panels(figure, curves, shown_metric(outcome))
    return figure


def draw_traffic(outcome: Outcome) -> Any:
    """Return a Matplotlib figure of who took part, how late, and how far the model moved."""
    with _matplotlib():
        figure = _figure((10.4, 3.0))  # It grows with its panels.
        traffic_panels(figure, outcome)
    return figure


def draw_round(outcome: Outcome, round: int | None = None) -> Any:
    """Return a Matplotlib figure of what each device did in a round; None is the last one known."""
    with _matplotlib():
        figure = _figure((10.4, 5.4))
        gantt(figure, outcome, round)
    return figure


def draw_panel(inches: tuple[float, float], panel: Callable[[Any], None]) -> Any:
    """Return a Matplotlib figure of one panel, which is given its axes."""
    with _matplotlib():
        figure = _figure(inches)
        panel(figure.subplots())
    return figure


def write_picture(path: Path, shown: Any, drawn: Callable[[Any], Any] = draw) -> Path:
    """Write a picture as PNG, SVG or PDF, by the path's ending, and return the path.

    Args:
        path: Where.
        shown: What it shows: a run, as a rule.
        drawn: What draws it.

    Raises:
        SettingsError: If the ending is another one.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise SettingsError(
            f"The ending of a picture's name is its format, but {path.name!r} ends in "
            f"{suffix or 'none'!r}. Use one of {', '.join(_SUFFIXES)}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _bytes(drawn(shown), suffix[1:]))
    return path


def inline_svg(outcome: Outcome, *, small: bool = False) -> str:
    """Return the picture as an <svg> element in the colours of the page that it stands in.

    Args:
        outcome: The run.
        small: Whether only the metric's curve is drawn.
    """
    with _matplotlib():
        figure = _figure((6.6, 2.8) if small else (10.4, 5.0))
        if small:
            main_panel(figure.subplots(), outcome)
        else:
            panels(figure, outcome)
    shown = f"{chosen_metric(outcome)} over {plural(outcome.rounds, 'round')}"
    return element(figure, shown)


def privacy_svg(outcome: Outcome) -> str:
    """Return what a run has promised and spent, as an <svg> element of a page."""
    return element(draw_privacy(outcome), f"epsilon over {plural(outcome.rounds, 'round')}")


def element(figure: Any, shown: str) -> str:
    """Return a figure as an <svg> element of a page, with what it shows in words."""
    with _matplotlib():
        figure.patch.set_visible(False)
        text = _bytes(figure, "svg").decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _ON_A_PAGE.items():
        text = text.replace(colour, variable)
    described = f'role="img" aria-label="{re.sub(r"[^A-Za-z0-9 ]", " ", shown)}"'
    return text.replace("<svg", f'<svg {described} style="max-width: 100%; height: auto"', 1)


@contextlib.contextmanager
def _matplotlib() -> Iterator[None]:
    """Set our style for a while."""
    keep_out_of_home()
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _figure(inches: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=inches, dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    # A notebook that has not imported pyplot shows the picture all the same.
    figure._repr_png_ = functools.partial(_bytes, figure, "png")
    return figure


def _bytes(figure: Any, form: str) -> bytes:
    """Return a figure as a file's bytes, without the time it was made at."""
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with _matplotlib():
        figure.savefig(buffer, format=form, metadata=dates.get(form))
    return buffer.getvalue()
