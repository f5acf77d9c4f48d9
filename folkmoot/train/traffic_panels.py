"""The picture of who took part, how late, and how the server's model moved."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folkmoot.train.outcome import Outcome
from folkmoot.train.panels import (
    CLIENTS,
    HELD_OUT,
    MUTED,
    axis_of_rounds,
    frame,
    labelled,
    titled,
)
from folkmoot.train.words import number, plural

_BARS, _DOTS = 24, 25
_WIDE = 30.0


def traffic_panels(figure: Any, outcome: Outcome) -> None:
    """Draw what there is of participation, staleness and updates: in a line, or two by two."""
    found = parts(outcome)
    lines = 1 if len(found) < 4 else 2
    figure.set_size_inches(10.4, 3.0 * lines)
    every = figure.subplots(lines, len(found) // lines, squeeze=False).reshape(-1)
    figure.get_layout_engine().set(w_pad=0.12, wspace=0.06, hspace=0.06)
    for axes, draw in zip(every, found, strict=True):
        frame(axes)
        draw(axes, outcome)


def parts(outcome: Outcome) -> list[Callable[[Any, Outcome], None]]:
    """Return what draws each panel for which the run has data."""
    found: list[Callable[[Any, Outcome], None]] = []
    # Where everyone took part in every round there is nothing to see.
    counts = set((outcome.participation or {}).values())
    if len(counts) > 1:
        found.append(_participation)
    if any(row.get("staleness") for row in outcome.history):
        found.append(_staleness)
    if _column(outcome, "update_norm"):
        found.append(_updates)
    if len(_column(outcome, "diversity")) > 1:
        found.append(_diversity)
    return found


def _participation(axes: Any, outcome: Outcome) -> None:
    """Draw how many clients were heard how often; those never heard in a colour of their own."""
    answered = np.array([heard for _, heard in (outcome.participation or {}).values()])
    silent = int((answered == 0).sum())
    never = f"{silent:,} of {plural(len(answered), 'client')} never"
    titled(axes, "times heard", never if silent else plural(len(answered), "client"))
    most = int(answered.max())
    width = max(1, math.ceil(most / _BARS))
    edges = np.arange(1, most + width + 1, width) - 0.5
    counts, _ = np.histogram(answered[answered > 0], edges)
    axes.bar(edges[:-1], counts, 0.92 * width, color=HELD_OUT, alpha=0.6, align="edge")
    axes.bar(0.5 - width, silent, 0.92 * width, color=CLIENTS, alpha=0.8, align="edge")
    axes.set_xlabel("answers that counted", color=MUTED)
    axes.set_ylabel("clients", color=MUTED)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _staleness(axes: Any, outcome: Outcome) -> None:
    """Draw how many answers were how many rounds late."""
    late: Counter[int] = Counter()
    for row in outcome.history:
        for staleness, answers in row.get("staleness", ()):
            late[int(staleness)] += answers
    every = np.repeat(list(late), list(late.values()))
    titled(axes, "staleness", f"mean {every.mean():.3g}, most {every.max():,}")
    width = max(1, math.ceil((every.max() + 1) / _BARS))
    edges = np.arange(0, every.max() + width + 1, width) - 0.5
    counts, _ = np.histogram(every, edges)
    axes.bar(edges[:-1], counts, 0.92 * width, color=HELD_OUT, alpha=0.6, align="edge")
    axes.set_xlabel("rounds since its model was sent", color=MUTED)
    axes.set_ylabel("answers", color=MUTED)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _updates(axes: Any, outcome: Outcome) -> None:
    """Draw the length of the mean update over rounds."""
    rounds, norms = np.array(_column(outcome, "update_norm")).T
    titled(axes, "mean update", "L2 norm")
    _line(axes, rounds, norms)
    if norms.min() > 0 and norms.max() > _WIDE * norms.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=0)
    _last(axes, norms)


def _diversity(axes: Any, outcome: Outcome) -> None:
    """Draw how far updates point apart, as a share of what unrelated ones have."""
    answers = {row["round"]: row["answered"] for row in outcome.history}
    found = [(round, value / answers[round]) for round, value in _column(outcome, "diversity")]
    rounds, shares = np.array(found).T
    titled(axes, "diversity", "1 is unrelated")
    _line(axes, rounds, shares)
    axes.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    axes.set_ylim(bottom=0)
    _last(axes, shares)


def _line(axes: Any, rounds: NDArray[Any], values: NDArray[Any]) -> None:
    """Draw a value a round, with the last one beside it."""
    dots = "o" if len(values) <= _DOTS else ""
    axes.plot(rounds, values, color=HELD_OUT, linewidth=1.4, marker=dots, markersize=3)
    axis_of_rounds(axes, rounds)
    axes.set_xlabel("round", color=MUTED)


def _last(axes: Any, values: NDArray[Any]) -> None:
    labelled(axes, [(float(values[-1]), number(float(values[-1])), HELD_OUT)])


def _column(outcome: Outcome, name: str) -> list[tuple[int, float]]:
    """Return (round, value) where a column has a finite value, in rounds with answers."""
    rows = [row for row in outcome.history if row.get(name) is not None and row["answered"]]
    return [(row["round"], row[name]) for row in rows if math.isfinite(row[name])]
