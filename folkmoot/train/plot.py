"""The picture of a run: its metric over rounds, how clients differ, and the loss.

Drawn with Matplotlib's objects alone, never with pyplot, so a notebook's backend and a program's
own figures stay as they are. Colours are of Okabe and Ito's palette, which color-blind readers can
tell apart.
"""

import contextlib
import functools
import io
import math
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folkmoot.core.errors import SettingsError
from folkmoot.train.checkpoint import write_atomically
from folkmoot.train.outcome import Outcome
from folkmoot.train.summary import chosen_metric, headline, metric_names, number, plural

_HELD_OUT, _CLIENTS = "#0072b2", "#d55e00"
_INK, _MUTED, _LINE, _PAPER = "#20242b", "#68707c", "#e2e5e9", "#fffffe"
_SUFFIXES = (".png", ".svg", ".pdf")
_DOTS = 40  # up to so many evaluations are marked one by one
_WIDE = 100.0  # a ratio of the loss from which it needs a logarithmic axis
_STYLE = {
    "font.size": 10,
    "text.color": _INK,
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
    _INK: "currentColor",
    _MUTED: "var(--muted, #808791)",
    _LINE: "var(--line, #80879140)",
    _PAPER: "var(--paper, #ffffff)",
    _HELD_OUT: "var(--held-out, #0072b2)",
    _CLIENTS: "var(--clients, #d55e00)",
}


class _Curve(NamedTuple):
    """One line of a panel: a column of the history, in the rounds that were evaluated."""

    column: str
    label: str
    colour: str
    width: float = 1.6
    style: str = "-"


def draw(outcome: Outcome) -> Any:
    """Return a Matplotlib figure of a whole run, with its name above."""
    with _matplotlib():
        figure = _figure((10.4, 5.6))
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.89))
        figure.text(0.012, 0.955, outcome.name, fontsize=14, fontweight="bold", va="center")
        figure.text(0.012, 0.907, headline(outcome), color=_MUTED, va="center")
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
            f"The ending of a picture's name is its format, but {path.name!r} ends in "
            f"{suffix or 'none'!r}. Use one of {', '.join(_SUFFIXES)}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _bytes(draw(outcome), suffix[1:]))
    return path


def inline_svg(outcome: Outcome, *, small: bool = False) -> str:
    """Return the picture as an <svg> element in the colours of the page that it stands in.

    Args:
        outcome: The run.
        small: Whether only the metric's curve is drawn.
    """
    with _matplotlib():
        figure = _figure((6.6, 2.8) if small else (10.4, 5.0))
        figure.patch.set_visible(False)
        if small:
            _main(figure.subplots(), outcome)
        else:
            _panels(figure, outcome)
        text = _bytes(figure, "svg").decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _ON_A_PAGE.items():
        text = text.replace(colour, variable)
    shown = f"{chosen_metric(outcome)} over {plural(outcome.rounds, 'round')}"
    described = f'role="img" aria-label="{re.sub(r"[^A-Za-z0-9 ]", " ", shown)}"'
    return text.replace("<svg", f'<svg {described} style="max-width: 100%; height: auto"', 1)


@contextlib.contextmanager
def _matplotlib() -> Iterator[None]:
    """Set our style for a while; keep Matplotlib from complaining of a home it cannot write to."""
    if "MPLCONFIGDIR" not in os.environ and not _has_home():
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="folkmoot-matplotlib-")
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _has_home() -> bool:
    """Tell whether there is a home folder in which Matplotlib can keep its list of fonts."""
    try:
        return os.access(Path.home(), os.W_OK)
    except RuntimeError:
        return False


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


def _panels(figure: Any, outcome: Outcome) -> None:
    """Lay out what there is: the metric to the left, loss and clients to the right."""
    names = metric_names(outcome)
    second = "loss" if "loss" in names[1:] else next(iter(names[1:]), None)
    right = [name for name, there in (("second", second), ("clients", outcome.clients)) if there]
    places = [["main", name] for name in right] or [["main"]]
    axes = figure.subplot_mosaic(places, width_ratios=[2.1, 1][: len(places[0])])
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    _main(axes["main"], outcome)
    if second:
        _second(axes["second"], outcome, second)
        axes["second"].set_xlabel("round", color=_MUTED)
    if outcome.clients:
        _histogram(axes["clients"], outcome, chosen_metric(outcome))


def _main(axes: Any, outcome: Outcome) -> None:
    """Draw the metric by which models are compared; who answered, where there is none."""
    names = metric_names(outcome)
    if not names:
        _answers(axes, outcome)
        return
    metric, best = names[0], outcome.best
    over = f"clients_{metric}"
    if f"test_{metric}" in outcome.metrics:
        whole = _Curve(f"test_{metric}", "held-out", _HELD_OUT, 2.2)
    else:
        whole = _Curve(over, "mean", _HELD_OUT, 2.2)
    spread = [
        _Curve(f"{over}_p90", "p90", _CLIENTS, 0),
        _Curve(f"{over}_median", "clients' median", _CLIENTS, 1.4),
        _Curve(f"{over}_p10", "p10", _CLIENTS, 0),
        _Curve(f"{over}_worst_decile", "worst decile", _CLIENTS, 1.4, "--"),
    ]
    curves = [*(spread if f"{over}_p10" in outcome.metrics else []), whole]
    _titles(axes, metric, "")
    _band(axes, outcome, f"{over}_p10", f"{over}_p90")
    _lines(axes, outcome, curves)
    axes.set_xlabel("round", color=_MUTED)
    if best.round and math.isfinite(best.value):
        axes.plot(
            best.round, best.value, "o", markersize=8, markerfacecolor=_PAPER,
            markeredgecolor=_HELD_OUT, markeredgewidth=1.8, zorder=5,
        )  # fmt: skip
        _titles(axes, metric, f"○ best {number(best.value)} in round {best.round:,}")


def _second(axes: Any, outcome: Outcome, metric: str) -> None:
    curves = [_Curve(f"clients_{metric}", "clients", _CLIENTS)]
    curves += [_Curve(f"test_{metric}", "held-out", _HELD_OUT)]
    found = [curve for curve in curves if curve.column in outcome.metrics]
    values = np.concatenate([_column(outcome, curve.column)[1] for curve in found])
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > _WIDE * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    _titles(axes, metric, "")
    _lines(axes, outcome, found)


def _histogram(axes: Any, outcome: Outcome, metric: str) -> None:
    """Draw how many clients have which value of the final model's metric."""
    every = np.array([client.metrics[metric] for client in outcome.clients.values()])
    values = every[np.isfinite(every)]
    lost = f", {len(every) - len(values)} not finite" if len(values) < len(every) else ""
    _titles(axes, f"{metric} by client", f"{plural(len(every), 'client')}{lost}")
    _frame(axes)
    axes.set_ylabel("clients", color=_MUTED)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    if not len(values):
        return
    bins = min(24, max(5, len(np.histogram_bin_edges(values, "fd")) - 1))
    axes.hist(values, bins, color=_CLIENTS, alpha=0.35, rwidth=0.92)
    lines = {"-": float(np.median(values))}
    lines["--"] = outcome.metrics.get(f"clients_{metric}_worst_decile", math.nan)
    for style, value in lines.items():
        if math.isfinite(value):
            axes.axvline(value, color=_CLIENTS, linewidth=1.4, linestyle=style)


def _answers(axes: Any, outcome: Outcome) -> None:
    """Draw how many clients answered, and how many were left out: all there is of a run that was
    not evaluated."""
    rounds = np.array([row["round"] for row in outcome.history])
    answered = np.array([row["answered"] for row in outcome.history])
    lost = np.array([len(row["left_out"]) for row in outcome.history])
    _titles(axes, "answers", "not evaluated")
    _frame(axes)
    axes.bar(rounds, answered, 0.8, color=_HELD_OUT, alpha=0.75, label="answered")
    if lost.any():
        axes.bar(rounds, lost, 0.8, answered, color=_CLIENTS, alpha=0.75, label="left out")
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    _axis_of_rounds(axes, rounds)
    axes.set_xlabel("round", color=_MUTED)
    axes.set_ylabel("clients", color=_MUTED)


def _lines(axes: Any, outcome: Outcome, curves: Sequence[_Curve]) -> None:
    """Draw curves with their last values as labels to the right."""
    _frame(axes)
    rounds = np.array([row["round"] for row in outcome.history if row["evaluated"]])
    dots = "o" if len(rounds) <= _DOTS else ""
    labels = []
    for curve in curves:
        where, values = _column(outcome, curve.column)
        shown = np.where(np.isfinite(values), values, np.nan)
        if curve.width:
            axes.plot(
                where, shown, curve.style, color=curve.colour, linewidth=curve.width, marker=dots,
                markersize=3, zorder=3,
            )  # fmt: skip
        finite = shown[np.isfinite(shown)]
        if len(finite):
            labels.append((float(finite[-1]), f"{curve.label} {number(values[-1])}", curve.colour))
    _axis_of_rounds(axes, rounds)
    if labels:
        _label(axes, labels)
    else:
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=_MUTED)


def _band(axes: Any, outcome: Outcome, low: str, high: str) -> None:
    """Shade what lies between two columns; for one round, a bar."""
    if low not in outcome.metrics:
        return
    where, bottom = _column(outcome, low)
    top = _column(outcome, high)[1]
    finite = np.isfinite(bottom) & np.isfinite(top)
    if len(where) == 1:
        axes.vlines(where[finite], bottom[finite], top[finite], _CLIENTS, linewidth=9, alpha=0.16)
    else:
        axes.fill_between(where, bottom, top, finite, color=_CLIENTS, alpha=0.16, linewidth=0)


def _column(outcome: Outcome, column: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (rounds, values) of a metric where it was measured."""
    rows = [row for row in outcome.history if column in row]
    values = np.array([row[column] for row in rows], dtype=np.float64)
    return np.array([row["round"] for row in rows]), values


def _label(axes: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write labels beside the last values, moved apart where they would touch."""
    places = axes.transAxes.inverted().transform(
        axes.transData.transform([(0, value) for value, _, _ in labels])
    )[:, 1]
    points = axes.get_window_extent().height * 72 / axes.figure.dpi
    order = np.argsort(places, kind="stable")
    for place, height in zip(order, _apart(places[order], 13 / points), strict=True):
        _, text, colour = labels[place]
        axes.text(
            1.02, height, text, transform=axes.transAxes, color=colour, va="center", fontsize=9
        )  # fmt: skip


def _apart(places: NDArray[Any], gap: float) -> list[float]:
    """Move ascending heights so that neighbours are a gap apart, around their common middle."""
    groups: list[list[float]] = []  # each is [middle, members]
    for place in places:
        groups.append([float(place), 1])
        while len(groups) > 1 and _touch(groups[-2], groups[-1], gap):
            middle, members = groups.pop()
            below = groups[-1]
            total = below[1] + members
            groups[-1] = [(below[0] * below[1] + middle * members) / total, total]
    return [
        middle + (rank - (members - 1) / 2) * gap
        for middle, members in groups
        for rank in range(int(members))
    ]


def _touch(below: Sequence[float], above: Sequence[float], gap: float) -> bool:
    return above[0] - below[0] < gap * (below[1] + above[1]) / 2


def _frame(axes: Any) -> None:
    """Take away what carries no information."""
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_MUTED, length=0, labelsize=9, which="both")
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _axis_of_rounds(axes: Any, rounds: NDArray[Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if len(rounds) == 1:
        axes.set_xlim(rounds[0] - 1, rounds[0] + 1)
        axes.set_xticks(rounds)


def _titles(axes: Any, left: str, right: str) -> None:
    axes.set_title(left, loc="left", color=_INK, fontweight="bold")
    axes.set_title(right, loc="right", color=_MUTED, fontsize=9)
