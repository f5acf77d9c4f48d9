"""The picture of who took part, how late, and how the server's model moved."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

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
    """Draw, side by side, what there is of participation, staleness and updates."""
    found = parts(outcome)
    every = figure.subplots(1, len(found), squeeze=False)[0]
    figure.get_layout_engine().set(w_pad=0.12, wspace=0.06)
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
    if _norms(outcome):
        found.append(_updates)
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
    rounds, norms = np.array(_norms(outcome)).T
    titled(axes, "mean update", "L2 norm")
    dots = "o" if len(norms) <= _DOTS else ""
    axes.plot(rounds, norms, color=HELD_OUT, linewidth=1.4, marker=dots, markersize=3)
    if norms.min() > 0 and norms.max() > _WIDE * norms.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=0)
    axis_of_rounds(axes, rounds)
    axes.set_xlabel("round", color=MUTED)
    labelled(axes, [(float(norms[-1]), number(float(norms[-1])), HELD_OUT)])


def _norms(outcome: Outcome) -> list[tuple[int, float]]:
    found = [(row["round"], row.get("update_norm")) for row in outcome.history]
    return [(round, norm) for round, norm in found if norm is not None and math.isfinite(norm)]
