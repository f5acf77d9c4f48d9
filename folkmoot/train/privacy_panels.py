"""The picture of a promise: epsilon over rounds, what it has bought, and noise beside signal."""

import math
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
    nothing,
    titled,
)
from folkmoot.train.summary import chosen_metric, number


def privacy_panels(figure: Any, outcome: Outcome) -> None:
    """Draw three panels side by side, of a run that has promised something."""
    spent, bought, noise = figure.subplots(1, 3)
    figure.get_layout_engine().set(w_pad=0.12, wspace=0.06)
    promise = outcome.privacy
    curve = promise.curve() if promise else []
    _spent(spent, curve)
    _bought(bought, outcome, curve)
    _noise(noise, outcome)


def _spent(axes: Any, curve: list[tuple[int, float]]) -> None:
    titled(axes, "epsilon", "over rounds")
    frame(axes)
    finite = [(round, value) for round, value in curve if math.isfinite(value)]
    if not finite:
        nothing(axes, "no finite epsilon")
        return
    rounds, values = np.array(finite).T
    axes.plot(rounds, values, "-o", color=HELD_OUT, linewidth=2.2, markersize=3)
    axes.set_ylim(bottom=0)
    axis_of_rounds(axes, rounds)
    axes.set_xlabel("round", color=MUTED)
    labelled(axes, [(float(values[-1]), number(float(values[-1])), HELD_OUT)])


def _bought(axes: Any, outcome: Outcome, curve: list[tuple[int, float]]) -> None:
    """Draw the metric that models are compared by against the epsilon spent until then."""
    column = outcome.best.metric
    titled(axes, chosen_metric(outcome), "against epsilon")
    frame(axes)
    rows = [row for row in outcome.history if math.isfinite(row.get(column, math.nan))]
    finite = [(round, value) for round, value in curve if math.isfinite(value)]
    if not rows or not finite:
        nothing(axes, "not evaluated")
        return
    known = np.array([(0, 0.0), *finite]).T
    epsilons = np.interp([row["round"] for row in rows], *known)
    values = [row[column] for row in rows]
    axes.plot(epsilons, values, "-o", color=HELD_OUT, linewidth=2.2, markersize=3)
    axes.set_xlabel("epsilon", color=MUTED)
    labelled(axes, [(values[-1], number(values[-1]), HELD_OUT)])


def _noise(axes: Any, outcome: Outcome) -> None:
    """Draw each round's noise over what stands out of it, as a release alone shows it."""
    titled(axes, "noise to signal", "of each round")
    frame(axes)
    found = [(row["round"], row.get("noise_to_signal")) for row in outcome.history]
    shown = [(round, value) for round, value in found if value is not None and math.isfinite(value)]
    if not shown:
        nothing(axes, "no signal stands out of the noise")
        return
    rounds, values = np.array(shown).T
    axes.plot(rounds, values, "o", color=CLIENTS, markersize=3)
    axes.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    if values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axis_of_rounds(axes, rounds)
    axes.set_xlabel("round", color=MUTED)
    labelled(axes, [(float(values[-1]), number(float(values[-1])), CLIENTS)])
