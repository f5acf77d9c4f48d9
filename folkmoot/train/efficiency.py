"""The curves of what learning costs: a metric against rounds, bytes sent up, and virtual time.

Several runs in one picture show recipes against each other; each has its colour, and its name
beside its last value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folkmoot.core.errors import SettingsError
from folkmoot.train.outcome import Outcome
from folkmoot.train.panels import HELD_OUT, MUTED, frame, labelled, nothing, titled
from folkmoot.train.summary import chosen_metric
from folkmoot.train.words import number

COLOURS = (HELD_OUT, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280")
_DOTS = 25
"""Up to so many evaluations are marked one by one."""
_WIDE = 8.0
"""How much more one run has cost than another from which the axis needs to be logarithmic."""
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3_600.0, "days": 86_400.0}


class Curve(NamedTuple):
    """A run's metric in its evaluated rounds, and what had been spent by then."""

    name: str
    values: NDArray[Any]
    rounds: NDArray[Any]
    bytes: NDArray[Any]
    """Sent up until then by all clients."""
    seconds: NDArray[Any]
    """On the virtual clock; empty where there is none."""


def curves_of(outcome: Outcome, others: Mapping[str, Outcome]) -> list[Curve]:
    """Return the curve of a run and those of others, by the metric that the run is compared by.

    Raises:
        SettingsError: If a run was not evaluated, or by other metrics, or two have one name.
    """
    if not isinstance(others, Mapping):
        raise SettingsError(
            f'others must say what each run is called, such as {{"eden(1)": other}}, but is a '
            f"{type(others).__name__}."
        )
    if outcome.name in others:
        raise SettingsError(
            f"This run is called {outcome.name!r}, and so is one of others=. Give that one another "
            "name, or this one by fm.run(..., name=)."
        )
    for name, one in others.items():
        if not isinstance(one, Outcome):
            raise SettingsError(
                f"others[{name!r}] must be a result, but is {one!r}. fm.load_result(folder) reads "
                "one from its folder."
            )
    column, found = outcome.best.metric, []
    for name, one in {outcome.name: outcome, **others}.items():
        rows = [row for row in one.history if row.get(column) is not None]
        if not rows:
            known = ", ".join(one.metrics) or "none, as no round was evaluated"
            raise SettingsError(
                f"The run {name!r} has no {column!r} to draw; its metrics are {known}. Evaluate "
                "all runs of a picture alike: with the same test= and the same best=."
            )
        sent = {row["round"]: row["cumulative_upload"] for row in one.traffic.by_round}
        timed = all("virtual_s" in row for row in rows)
        found.append(
            Curve(
                name,
                _numbers(row[column] for row in rows),
                _numbers(row["round"] for row in rows),
                _numbers(sent[row["round"]] for row in rows),
                _numbers(row["virtual_s"] for row in rows if timed),
            )
        )
    return found


def efficiency_panels(figure: Any, curves: Sequence[Curve], metric: str) -> None:
    """Draw the metric against rounds, bytes, and virtual time where all runs have it."""
    costs = [("round", [curve.rounds for curve in curves], {"": 1.0})]
    costs += [("sent up", [curve.bytes for curve in curves], _BYTES)]
    if all(len(curve.seconds) for curve in curves):
        costs += [("virtual time", [curve.seconds for curve in curves], _SECONDS)]
    every = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    figure.get_layout_engine().set(w_pad=0.1, wspace=0.04)
    titles = ["over rounds", "against bytes", "against time"]
    for axes, (what, spent, units), title in zip(every, costs, titles, strict=False):
        titled(axes, metric if axes is every[0] else "", title)
        _panel(axes, curves, what, spent, units)
    labels = [
        (float(curve.values[np.isfinite(curve.values)][-1]), _label(curve), colour)
        for curve, colour in zip(curves, _colours(curves), strict=True)
        if np.isfinite(curve.values).any()
    ]
    if labels:
        labelled(every[-1], labels)
    else:
        nothing(every[0], "no finite value")


def _panel(
    axes: Any,
    curves: Sequence[Curve],
    what: str,
    spent: Sequence[NDArray[Any]],
    units: Mapping[str, float],
) -> None:
    """Draw every curve against one cost, in a unit that suits the largest."""
    frame(axes)
    most = [float(cost[-1]) for cost in spent if len(cost)]
    unit, scale = _unit(max(most, default=1.0), units)
    for curve, cost, colour in zip(curves, spent, _colours(curves), strict=True):
        shown = np.where(np.isfinite(curve.values), curve.values, np.nan)
        dots = "o" if len(shown) <= _DOTS else ""
        axes.plot(cost / scale, shown, color=colour, linewidth=1.8, marker=dots, markersize=3)
    if len(most) > 1 and min(most) > 0 and max(most) > _WIDE * min(most):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"{what} ({unit})" if unit else what, color=MUTED)


def _colours(curves: Sequence[Curve]) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(curves))]


def _label(curve: Curve) -> str:
    return f"{curve.name} {number(float(curve.values[-1]))}"


def _unit(most: float, units: Mapping[str, float]) -> tuple[str, float]:
    """Return the largest unit of which there are two or more, else the smallest."""
    fitting = [(name, scale) for name, scale in units.items() if most >= 2 * scale]
    return fitting[-1] if fitting else next(iter(units.items()))


def _numbers(values: Any) -> NDArray[Any]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def shown_metric(outcome: Outcome) -> str:
    """Return what the picture's metric is called, with whose tests it was measured on."""
    part = outcome.best.metric.partition("_")[0]
    return f"{chosen_metric(outcome)}, {'held-out' if part == 'test' else 'over clients'}"
