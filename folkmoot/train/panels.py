"""The panels of a run's picture: curves with their last values as labels, a band, a histogram."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folkmoot.train.outcome import Outcome
from folkmoot.train.summary import chosen_metric, metric_names
from folkmoot.train.words import number, plural

HELD_OUT, CLIENTS = "#0072b2", "#d55e00"
INK, MUTED, LINE, PAPER = "#20242b", "#68707c", "#e2e5e9", "#fffffe"
_DOTS = 12  # up to so many evaluations are marked one by one
_WIDE = 100.0  # a ratio of the loss from which it needs a logarithmic axis


class _Curve(NamedTuple):
    """One line of a panel: a column of the history, in the rounds that were evaluated."""

    column: str
    label: str
    colour: str
    width: float = 1.6
    style: str = "-"


def panels(figure: Any, outcome: Outcome) -> None:
    """Lay out what there is: the metric to the left, loss and clients to the right."""
    names = metric_names(outcome)
    second = "loss" if "loss" in names[1:] else next(iter(names[1:]), None)
    right = [name for name, there in (("second", second), ("clients", outcome.judged)) if there]
    places = [["main", name] for name in right] or [["main"]]
    axes = figure.subplot_mosaic(places, width_ratios=[2.1, 1][: len(places[0])])
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    main_panel(axes["main"], outcome)
    if second:
        _second(axes["second"], outcome, second)
        axes["second"].set_xlabel("round", color=MUTED)
    if outcome.judged:
        _histogram(axes["clients"], outcome, chosen_metric(outcome))


def main_panel(axes: Any, outcome: Outcome) -> None:
    """Draw the metric by which models are compared; who answered, where there is none."""
    names = metric_names(outcome)
    if not names:
        _answers(axes, outcome)
        return
    metric, best = names[0], outcome.best
    over, (common, own) = f"clients_{metric}", _whose(outcome)
    if f"test_{metric}" in outcome.metrics:
        whole = _Curve(f"test_{metric}", common, HELD_OUT, 2.2)
    else:
        whole = _Curve(over, "mean", HELD_OUT, 2.2)
    spread = [
        _Curve(f"{over}_p90", "p90", CLIENTS, 0),
        _Curve(f"{over}_median", f"{own}' median", CLIENTS, 1.4),
        _Curve(f"{over}_p10", "p10", CLIENTS, 0),
        _Curve(f"{over}_worst_decile", "worst decile", CLIENTS, 1.4, "--"),
    ]
    curves = [*(spread if f"{over}_p10" in outcome.metrics else []), whole]
    titled(axes, metric, "")
    _band(axes, outcome, f"{over}_p10", f"{over}_p90")
    _lines(axes, outcome, curves)
    axes.set_xlabel("round", color=MUTED)
    if best.round and math.isfinite(best.value):
        axes.plot(
            best.round, best.value, "o", markersize=8, markerfacecolor=PAPER,
            markeredgecolor=HELD_OUT, markeredgewidth=1.8, zorder=5,
        )  # fmt: skip
        titled(axes, metric, f"○ best {number(best.value)} in round {best.round:,}")


def _whose(outcome: Outcome) -> tuple[str, str]:
    """Return what curves of the held-out set and of clients' tests are called."""
    if outcome.settings.get("own_models"):
        return "global model", "own models"
    return "held-out", "clients"


def _second(axes: Any, outcome: Outcome, metric: str) -> None:
    common, own = _whose(outcome)
    curves = [_Curve(f"clients_{metric}", own, CLIENTS)]
    curves += [_Curve(f"test_{metric}", common, HELD_OUT)]
    found = [curve for curve in curves if curve.column in outcome.metrics]
    values = np.concatenate([_column(outcome, curve.column)[1] for curve in found])
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > _WIDE * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    titled(axes, metric, "")
    _lines(axes, outcome, found)


def _histogram(axes: Any, outcome: Outcome, metric: str) -> None:
    """Draw how many clients have which value of the final model's metric."""
    every = np.array([client.metrics[metric] for client in outcome.judged.values()])
    values = every[np.isfinite(every)]
    lost = len(every) - len(values)
    whose = "' own models" if outcome.settings.get("own_models") else ""
    clients = plural(len(every), "client")
    titled(axes, f"{metric} of {clients}{whose}", f"{lost:,} NaN" if lost else "")
    frame(axes)
    axes.set_ylabel("clients", color=MUTED)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    if not len(values):
        return
    axes.hist(values, _edges(values), color=CLIENTS, alpha=0.35, rwidth=0.92)
    lines = {"-": float(np.median(values))}
    lines["--"] = outcome.metrics.get(f"clients_{metric}_worst_decile", math.nan)
    for style, value in lines.items():
        if math.isfinite(value):
            axes.axvline(value, color=CLIENTS, linewidth=1.4, linestyle=style)
    deviation = outcome.metrics.get(f"clients_{metric}_std", math.nan)
    if math.isfinite(deviation):
        low, high = axes.get_ylim()
        labelled(axes, [((low + high) / 2, f"std {number(deviation)}", CLIENTS)])


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Return the edges of 5 to 24 bins, also where all values are one."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        room = max(0.5, 0.05 * abs(high))
        low, high = low - room, high + room
    return np.linspace(low, high, 1 + min(24, max(5, round(len(values) ** 0.5))))


def _answers(axes: Any, outcome: Outcome) -> None:
    """Draw how many clients answered or were left out: all there is of a run not evaluated."""
    rounds = np.array([row["round"] for row in outcome.history])
    answered = np.array([row["answered"] for row in outcome.history])
    lost = np.array([len(row["left_out"]) for row in outcome.history])
    titled(axes, "answers", "not evaluated")
    frame(axes)
    axis_of_rounds(axes, rounds)
    axes.set_xlabel("round", color=MUTED)
    if not len(rounds):
        axes.set_xticks([])
        nothing(axes, "no rounds")
        return
    axes.set_ylabel("clients", color=MUTED)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.bar(rounds, answered, 0.8, color=HELD_OUT, alpha=0.6)
    labels = [(answered[-1] / 2, f"answered {answered.sum():,}", HELD_OUT)]
    if lost.any():
        axes.bar(rounds, lost, 0.8, answered, color=CLIENTS, alpha=0.6)
        labels += [(answered[-1] + lost[-1] / 2, f"left out {lost.sum():,}", CLIENTS)]
    labelled(axes, labels)


def _lines(axes: Any, outcome: Outcome, curves: Sequence[_Curve]) -> None:
    """Draw curves with their last values as labels to the right."""
    frame(axes)
    rounds = np.array([row["round"] for row in outcome.history if row["evaluated"]])
    labels = []
    for curve in curves:
        where, values = _column(outcome, curve.column)
        shown = np.where(np.isfinite(values), values, np.nan)
        # A value between two NaNs has no line to be seen by.
        dots = "o" if len(where) <= _DOTS or np.isnan(shown).any() else ""
        if curve.width:
            axes.plot(
                where, shown, curve.style, color=curve.colour, linewidth=curve.width, marker=dots,
                markersize=3, zorder=3,
            )  # fmt: skip
        finite = shown[np.isfinite(shown)]
        if len(finite):
            labels.append((float(finite[-1]), f"{curve.label} {number(values[-1])}", curve.colour))
    axis_of_rounds(axes, rounds)
    if labels:
        labelled(axes, labels)
    else:
        nothing(axes, "no finite value")


def _band(axes: Any, outcome: Outcome, low: str, high: str) -> None:
    """Shade what lies between two columns; for one round, a bar."""
    if low not in outcome.metrics:
        return
    where, bottom = _column(outcome, low)
    top = _column(outcome, high)[1]
    finite = np.isfinite(bottom) & np.isfinite(top)
    if len(where) == 1:
        axes.vlines(where[finite], bottom[finite], top[finite], CLIENTS, linewidth=9, alpha=0.16)
    else:
        axes.fill_between(where, bottom, top, finite, color=CLIENTS, alpha=0.16, linewidth=0)


def _column(outcome: Outcome, column: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (rounds, values) of a metric where it was measured."""
    rows = [row for row in outcome.history if column in row]
    values = np.array([row[column] for row in rows], dtype=np.float64)
    return np.array([row["round"] for row in rows]), values


def labelled(axes: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write labels beside the last values, moved apart where they would touch."""
    # Labels stand in the axes' own units, so its limits must not move any more.
    axes.set_ylim(*axes.get_ylim())
    data = axes.transData.transform([(0, value) for value, _, _ in labels])
    places = axes.transAxes.inverted().transform(data)[:, 1]
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


def frame(axes: Any) -> None:
    """Take away what carries no information."""
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=MUTED, length=0, labelsize=9, which="both")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def axis_of_rounds(axes: Any, rounds: NDArray[Any]) -> None:
    """Mark whole rounds, with room at both ends."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    if len(rounds):
        room = max(0.6, 0.04 * (rounds[-1] - rounds[0]))
        axes.set_xlim(rounds[0] - room, rounds[-1] + room)


def nothing(axes: Any, why: str) -> None:
    """Say why a panel is empty."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set_yticks([])


def titled(axes: Any, left: str, right: str) -> None:
    """Write what a panel shows, and a remark."""
    axes.set_title(left, loc="left", color=INK, fontweight="bold")
    axes.set_title(right, loc="right", color=MUTED, fontsize=9)
