"""When a run may end before its last round, and which of its models was the best.

A stopping rule is a function of the history that returns why to stop, or None; a user's own
function is one too, and may just say True or False.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from folkmoot.core.errors import SettingsError, did_you_mean, positive
from folkmoot.train.monitor import falls, watch

Row = dict[str, Any]
Stop = Callable[[Sequence[Row]], str | bool | None]


class Best(NamedTuple):
    """The best evaluated round so far."""

    metric: str
    better: str
    round: int = 0
    value: float = math.nan

    def at(self, round: int, value: float) -> "Best":
        """Return the same metric's best, now of another round."""
        return self._replace(round=round, value=value)


def improves(best: Best, value: float) -> bool:
    """Tell whether a value beats the best; a NaN never does, and the first of two equals stays."""
    if math.isnan(value):
        return False
    if math.isnan(best.value):
        return True
    return value > best.value if best.better == "higher" else value < best.value


def why_stop(stop: Stop, history: Sequence[Row]) -> str | None:
    """Ask a stopping rule, and return its reason to end the run; None to go on.

    Raises:
        SettingsError: If it returns neither a text nor True, False or None.
    """
    found = stop(history)
    if found is not None and not isinstance(found, str | bool | np.bool_):
        raise SettingsError(
            f"The stopping rule returned {found!r}, of type {type(found).__name__}. Return why to "
            "stop as a text, or True; and None or False to go on."
        )
    if not found:
        return None
    return found if isinstance(found, str) else "the stopping rule said so"


def patience(rounds: int, metric: str, *, better: str | None = None, least: float = 0.0) -> Stop:
    """Stop when a metric has not improved for some rounds.

    Args:
        rounds: Rounds to wait for an improvement.
        metric: A column of the history, such as "test_accuracy".
        better: "higher" or "lower"; None reads it from the name (losses and errors fall).
        least: Smallest change that counts.
    """
    positive(rounds=rounds)
    falls = _falls(metric, better)

    def stop(history: Sequence[Row]) -> str | None:
        seen = [
            (row["round"], row[metric]) for row in history if not math.isnan(_value(row, metric))
        ]
        if not seen:
            return None
        best_round, best = seen[0]
        for round_number, value in seen[1:]:
            if (best - value if falls else value - best) > least:
                best_round, best = round_number, value
        waited = history[-1]["round"] - best_round
        return f"{metric} has not improved for {waited} rounds" if waited >= rounds else None

    return stop


def target(metric: str, value: float, *, better: str | None = None) -> Stop:
    """Stop when a metric has reached a value.

    Args:
        metric: A column of the history.
        value: What to reach.
        better: "higher" or "lower"; None reads it from the name.
    """
    falls = _falls(metric, better)

    def stop(history: Sequence[Row]) -> str | None:
        found = _value(history[-1], metric)
        reached = found <= value if falls else found >= value
        return f"{metric} has reached {found:.4g}" if reached else None

    return stop


def converged(evaluations: int = 2) -> Stop:
    """Stop when the monitor finds that nothing more will come of the run, and say what it found.

    It looks for a stall, for clients that drift apart and for divergence, and needs no metric's
    name and no number to be tuned; a stall is told after 20 evaluations at the earliest.

    Args:
        evaluations: Evaluations in a row that must find the same.
    """
    positive(evaluations=evaluations)

    def stop(history: Sequence[Row]) -> str | None:
        ends = [place for place, row in enumerate(history, 1) if row.get("evaluated")]
        if len(ends) < evaluations:
            return None
        found = watch(history)
        if found is None:
            return None
        before = [watch(history[:end]) for end in ends[-evaluations:-1]]
        same = all(earlier and earlier.what == found.what for earlier in before)
        return found.sentence if same else None

    return stop


def _falls(metric: str, better: str | None) -> bool:
    """Tell whether a smaller value is better, by argument or by the metric's name."""
    if better not in (None, "higher", "lower"):
        raise SettingsError(f'better must be "higher" or "lower", but is {better!r}.')
    if better:
        return better == "lower"
    return falls(metric)


def _value(row: Row, metric: str) -> float:
    """Read a metric of a row; NaN where the round was not evaluated."""
    if metric not in row and row.get("evaluated"):
        raise SettingsError(
            f"The history has no column {metric!r} to stop by.{did_you_mean(metric, row)}"
        )
    return float(row.get(metric, math.nan))
