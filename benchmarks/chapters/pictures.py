"""The pictures of the page, in the colours and form of a run's own picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.data.picture import keep_out_of_home
from folkmoot.train.panels import CLIENTS, HELD_OUT, INK, LINE, MUTED

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
_STYLE: Any = {"font.size": 9, "text.color": INK, "savefig.bbox": "standard"}
Curves = Sequence[tuple[Sequence[float], Sequence[float]]]
"""(rounds, values) of each seed."""


def small_multiples(path: Path, title: str, base: str, curves: Mapping[str, Curves]) -> None:
    """Draw each algorithm's curve beside the base's: the mean over seeds, and their range.

    Args:
        path: Where to write.
        title: What the vertical axis means.
        base: The algorithm that stands in every panel, in grey.
        curves: By algorithm.
    """
    others = [name for name in curves if name != base]
    columns = min(4, len(others))
    lines = -(-len(others) // columns)
    figure, write = _figure((2.6 * columns, 1.75 * lines + 0.4))
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, others, strict=False):
        _curve(axes, curves[base], MUTED, 0.12)
        _curve(axes, curves[name], HELD_OUT, 0.2)
        axes.set_title(name, loc="left", fontsize=9.5)
        _frame(axes)
    for axes in grid.flat[len(others) :]:
        axes.set_visible(False)
    figure.suptitle(f"{title}; {base} in grey", x=0.01, ha="left", fontsize=10, color=MUTED)
    figure.supxlabel("round", fontsize=9, color=MUTED)
    write(path)


def strips(path: Path, title: str, values: Mapping[str, Sequence[float]], base: str) -> None:
    """Draw a row of dots for each algorithm, a dot a client, and a line at their mean.

    Args:
        path: Where to write.
        title: What the horizontal axis means.
        values: One of each client, by algorithm.
        base: The algorithm whose mean stands as a line through all rows.
    """
    figure, write = _figure((7.2, 0.32 * len(values) + 0.9))
    axes = figure.subplots()
    for row, (name, found) in enumerate(values.items()):
        where = HELD_OUT if name == base else CLIENTS
        axes.plot(found, [row] * len(found), "o", color=where, alpha=0.35, markersize=4.5, mew=0)
        axes.plot([np.mean(found)], [row], "|", color=INK, markersize=13, markeredgewidth=1.8)
    axes.axvline(
        float(np.mean(values[base])), color=HELD_OUT, linewidth=1, linestyle="--", zorder=0
    )
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    _frame(axes, "x")
    axes.set_title(title, loc="left", fontsize=10)
    write(path)


def against_epsilon(
    path: Path,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, Sequence[float]]]],
    without: float,
) -> None:
    """Draw a figure against the budget: the mean over seeds, and their range.

    Args:
        path: Where to write.
        title: What the vertical axis means.
        curves: By name, (epsilon, values of each seed).
        without: The figure without privacy, as a dashed line.
    """
    figure, write = _figure((6.8, 3.4))
    axes = figure.subplots()
    ends = []
    for (name, points), colour in zip(curves.items(), (HELD_OUT, CLIENTS, INK), strict=False):
        budgets = [epsilon for epsilon, _ in points]
        means, low, high = (
            [float(pick(values)) for _, values in points] for pick in (np.mean, min, max)
        )
        axes.fill_between(budgets, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(budgets, means, "o-", color=colour, linewidth=1.6, markersize=4)
        ends.append((means[-1], name, colour))
    first, last = budgets[0], budgets[-1]
    axes.plot([first, last], [without, without], "--", color=MUTED, linewidth=1, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, [f"{epsilon:g}" for epsilon in budgets])
    axes.set_xlim(first * 0.93, last * (1 + 0.35 * max(1.0, np.log2(last / first))))
    low, high = axes.get_ylim()
    height = 2 * high - low
    for value, name, colour in sorted(ends, reverse=True):
        # Labels that would touch are moved down.
        height = min(value, height - 0.075 * (high - low))
        axes.annotate(
            name, (last, height), (9, 0), textcoords="offset points", va="center", color=colour
        )
    axes.set_xlabel("epsilon", color=MUTED)
    axes.set_title(f"{title}; dashed without privacy", loc="left", fontsize=10)
    _frame(axes)
    write(path)


def _curve(axes: Any, curves: Curves, colour: str, shade: float) -> None:
    if not curves:
        axes.text(0.5, 0.5, "diverged", transform=axes.transAxes, ha="center", color=MUTED)
        return
    values = np.array([seed for _, seed in curves])
    rounds = np.array(curves[0][0])
    axes.fill_between(rounds, values.min(0), values.max(0), color=colour, alpha=shade, linewidth=0)
    axes.plot(rounds, values.mean(0), color=colour, linewidth=1.5)


def _frame(axes: Any, along: str = "y") -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=MUTED, length=0, labelsize=8)
    axes.grid(axis=along, color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(inches: tuple[float, float]) -> tuple[Any, Any]:
    keep_out_of_home()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=inches, dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)

    def write(path: Path) -> None:
        with matplotlib.rc_context(_STYLE):
            # Without the version of Matplotlib, so that equal figures are equal files.
            figure.savefig(path, metadata={"Software": None})

    return figure, write
