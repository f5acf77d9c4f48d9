"""Whether a run still learns: a look at its history that says nothing, or one sentence of advice.

Three things are looked for. Divergence: the mean update grows geometrically while the loss gets
worse. A stall: no metric has gained anything in half of the run. Clients that drift apart: a stall
during which updates are as long as ever and point in all directions.

A false alarm costs more than a late one, so each needs two signs at once, and every threshold is a
factor that noise does not reach. Of a private run, whose updates are not shown, metrics alone tell.

Gradient diversity: Yin et al., AISTATS 2018, arXiv:1706.05699; here times the number of answers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_WINDOWS = (10, 30, 100)
"""Newest rounds over which growth is looked for: fast, and slow."""
_GROWTH, _GROWTH_ALONE = 3.0, 10.0
"""How much longer updates become in a window; more where no metric says that the model suffers.
Cohorts differ by tens of percent, which no window adds up to threefold."""
_STRAIGHT = 0.9
"""Least correlation of log length with the round: growth is geometric, not one odd cohort."""
_WORSE = 0.1
"""Share of what a metric has gained that is lost where the model suffers."""
_LEAST_WAIT = 10
"""Evaluations that are looked at for a stall, at least: half of all there are."""
_LITTLE, _NOTHING = 0.05, 1e-3
"""Shares of all that a metric has gained: what it may have gained in the wait for all that noise
lets us say, with two standard errors; and what counts as nothing even where there is no noise. At a
tenth, a run on five clients of two classes each was called stalled which still gained six points of
accuracy afterwards; a twentieth left it alone."""
_SURELY_WORSE = 4.0
"""Standard errors by which a line falls that is no accident, at 50 looks a run."""
_LEVEL = 0.05
"""Share of a metric's value that stands for its gain where it has gained nothing at all."""
_SETTLED, _SHRINKING = 0.1, 0.8
"""Length of updates over what it was: in the first rounds, and in the first half of the wait."""
_APART, _RISEN, _STILL_LONG = 0.5, 2.0, 0.5
"""Diversity as a share of orthogonal updates, over what it was at first, and a client's length."""


class Advice(NamedTuple):
    """What seems to go wrong, and what to do."""

    what: str
    """"diverging", "stalled" or "drifting apart"."""
    sentence: str
    """What it is, its numbers, and what to do: no capital and no full stop."""


class _Seen(NamedTuple):
    """A metric of the evaluated rounds, so turned that more is better."""

    column: str
    rounds: NDArray[Any]
    values: NDArray[Any]
    sign: int

    def shown(self, place: int) -> str:
        """Write the value of one evaluation."""
        return f"{self.sign * self.values[place]:.4g}"

    @property
    def best(self) -> int:
        """The place of the best value."""
        return int(np.argmax(self.values))


def watch(history: Sequence[Mapping[str, Any]]) -> Advice | None:
    """Return advice on a run, from its rows up to now; None where nothing seems wrong.

    Args:
        history: Rows of `result.history`. Metrics are needed, the columns `update_norm` and
            `diversity` are used where they are there.
    """
    metrics = _metrics(history)
    norms = _column(history, "update_norm")
    return (
        _overflown(history)
        or _diverging(norms, metrics)
        or _standing_still(history, norms, metrics)
    )


def last_advice(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the advice that the last evaluated round of a history holds, or None."""
    evaluated = (row for row in reversed(history) if row.get("evaluated"))
    return next((row.get("advice") for row in evaluated), None)


def falls(metric: str) -> bool:
    """Tell by a metric's name whether a smaller value is better."""
    return any(word in metric for word in ("loss", "rmse", "mae", "perplexity", "error"))


def _advice(what: str, sentence: str) -> Advice:
    return Advice(what, f"{what}: {sentence}")


def _overflown(history: Sequence[Mapping[str, Any]]) -> Advice | None:
    """Find a loss that was a number before and is none now."""
    rows = [row for row in history if row.get("evaluated")]
    for column in ("test_loss", "clients_loss"):
        found = [row[column] for row in rows if row.get(column) is not None]
        if len(found) > 1 and math.isfinite(found[0]) and not math.isfinite(found[-1]):
            before = next(value for value in reversed(found) if math.isfinite(value))
            return _advice(
                "diverging",
                f"{column} is {found[-1]} and was {before:.4g} before: lower the learning rate, of "
                "clients or of the server, or clip gradients (clip_gradient=)",
            )
    return None


def _diverging(norms: tuple[NDArray[Any], NDArray[Any]], metrics: list[_Seen]) -> Advice | None:
    """Find updates that grow by about the same factor in each round, and a model that suffers."""
    rounds, lengths = norms
    losses = [seen for seen in metrics if seen.sign < 0] or metrics
    if losses and not all(map(_suffers, losses)):
        return None
    for window in _WINDOWS:
        if len(lengths) < window:
            break
        span, logs = rounds[-window:], np.log(np.maximum(lengths[-window:], 1e-30))
        slope = np.polyfit(span, logs, 1)[0]
        growth = math.exp(min(slope * (span[-1] - span[0]), 700))
        if growth < (_GROWTH if losses else _GROWTH_ALONE):
            continue
        if np.corrcoef(span, logs)[0, 1] < _STRAIGHT:
            continue
        worse = ""
        if losses:
            seen = losses[0]
            worse = (
                f", and {seen.column} is {seen.shown(-1)} after {seen.shown(seen.best)} in round "
                f"{seen.rounds[seen.best]:,}"
            )
        return _advice(
            "diverging",
            f"the mean update has grown {growth:.2g} times over {span[-1] - span[0]:,} rounds, to "
            f"{lengths[-1]:.3g}{worse}: lower the learning rate, of clients or of the server, or "
            "clip gradients (clip_gradient=)",
        )
    return None


def _suffers(seen: _Seen) -> bool:
    """Tell whether a metric has lost a good part of what it had gained."""
    if len(seen.values) < 2:
        return False
    best = seen.values[seen.best]
    gained = max(best - seen.values[0], _WORSE * abs(best))
    return bool(best - seen.values[-1] > _WORSE * gained)


def _standing_still(
    history: Sequence[Mapping[str, Any]],
    norms: tuple[NDArray[Any], NDArray[Any]],
    metrics: list[_Seen],
) -> Advice | None:
    """Find metrics that get no better, and say by the updates why that may be."""
    stuck = [seen for seen in metrics if _is_stuck(seen)]
    # What has never moved out of its noise, such as the accuracy of guessing, has no say.
    moving = [seen for seen in metrics if not _is_stuck(seen) and not _is_mute(seen)]
    if moving or not stuck:
        return None
    # The metric that people look at comes last: accuracy, after the loss.
    seen = stuck[-1]
    waited = _wait(len(seen.values))
    told = (
        f"{seen.column} has gained nothing in the last {waited:,} evaluations: it is "
        f"{seen.shown(-1)}, and was {seen.shown(seen.best)} in round {seen.rounds[seen.best]:,}"
    )
    rounds, lengths = norms
    begun = seen.rounds[-waited]
    lately = lengths[rounds > begun]
    if len(lately) < 4:
        return _advice("stalled", f"{told}: stop here, or change the learning rate")
    first, now = np.median(lengths[: max(3, len(lengths) // 10)]), np.median(lately)
    if now <= _SETTLED * first:
        return _advice(
            "stalled",
            f"{told}, and the mean update is {now:.3g} after {first:.3g} at first: the run has "
            "converged, so stop here",
        )
    half = len(lately) // 2
    if np.median(lately[half:]) < _SHRINKING * np.median(lately[:half]):
        return None  # It still settles.
    return _drifting(history, told) or _advice(
        "stalled",
        f"{told}, though the mean update is still {now:.3g} long, after {first:.3g} at first: the "
        "steps are too long to get closer, so lower the learning rate, ask more clients a round, "
        "or stop here",
    )


def _drifting(history: Sequence[Mapping[str, Any]], told: str) -> Advice | None:
    """Find clients that still move far, and away from each other."""
    rows = [row for row in history if row.get("diversity") and row.get("update_norm")]
    rows = [row for row in rows if math.isfinite(row["diversity"] * row["update_norm"])]
    third = len(rows) // 3
    if third < 2:
        return None
    diversity = np.array([row["diversity"] for row in rows])
    answers = np.array([row["answered"] for row in rows])
    # Root mean square over clients: diversity is n sum |d|^2 / |sum d|^2, the norm |sum d| / n.
    lengths = np.array([row["update_norm"] for row in rows]) * np.sqrt(diversity)
    at_first, now = np.median(diversity[:third]), np.median(diversity[-third:])
    share = np.median((diversity / answers)[-third:])
    own, own_first = np.median(lengths[-third:]), np.median(lengths[:third])
    if share < _APART or now < _RISEN * at_first or own < _STILL_LONG * own_first:
        return None
    return _advice(
        "drifting apart",
        f"{told}, and the diversity of updates is {now:.3g} after "
        f"{at_first:.3g} at first (1 is all alike, {np.median(answers[-third:]):.0f} unrelated), "
        f"and a client's is still {own:.3g} long, after {own_first:.3g}: do fewer local epochs, "
        "keep clients near (fm.fedprox) or correct their drift (fm.scaffold)",
    )


def _is_stuck(seen: _Seen) -> bool:
    """Tell whether a line through the newest values could hardly rise, or certainly falls."""
    values = seen.values
    if len(values) < 2 * _LEAST_WAIT:
        return False
    lately = values[-_wait(len(values)) :]
    gain, doubt = _trend(lately)
    whole = max(np.median(lately) - np.median(values[:3]), _LEVEL * abs(np.median(lately)))
    most = max(gain, 0.0) + 2 * doubt
    is_flat = most <= _NOTHING * whole or (gain <= doubt and most <= _LITTLE * whole)
    return bool(is_flat or gain < -_SURELY_WORSE * doubt)


def _is_mute(seen: _Seen) -> bool:
    """Tell whether a metric is all noise: a line through the whole of it does not rise."""
    gain, doubt = _trend(seen.values) if len(seen.values) > 2 else (0.0, 0.0)
    return gain <= doubt


def _trend(values: NDArray[Any]) -> tuple[float, float]:
    """Return what a least-squares line gains from the first value to the last, and its error."""
    span = len(values) - 1
    places = np.arange(len(values)) - span / 2
    slope = places @ values / (places @ places)
    rest = values - values.mean() - slope * places
    error = math.sqrt(rest @ rest / (len(values) - 2) / (places @ places))
    return float(slope * span), error * span


def _wait(evaluations: int) -> int:
    return max(_LEAST_WAIT, evaluations // 2)


def _metrics(history: Sequence[Mapping[str, Any]]) -> list[_Seen]:
    """Return each metric, without its quantiles over clients, where it is a number."""
    rows = [row for row in history if row.get("evaluated")]
    if not rows:
        return []
    names = [
        name
        for name in rows[-1]
        if name.startswith("test_") or (name.startswith("clients_") and f"{name}_p10" in rows[-1])
    ]
    found = []
    for name in names:
        rounds, values = _column(rows, name)
        sign = -1 if falls(name) else 1
        found.append(_Seen(name, rounds, sign * values, sign))
    return [seen for seen in found if len(seen.values)]


def _column(history: Sequence[Mapping[str, Any]], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (rounds, values) where a column has a finite value."""
    found = [(row["round"], row[name]) for row in history if row.get(name) is not None]
    finite = [(round, value) for round, value in found if math.isfinite(value)]
    rounds, values = zip(*finite, strict=True) if finite else ((), ())
    return np.array(rounds, dtype=np.int64), np.array(values, dtype=np.float64)
