"""The picture of one round of a fleet: what each device did when, and who was lost, and why."""

import math
import re
from collections import Counter
from typing import Any, NamedTuple

from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.train.outcome import Outcome
from folkmoot.train.panels import INK, LINE, MUTED, PAPER, frame, titled
from folkmoot.train.stopping import Row
from folkmoot.train.words import duration, plural

_PHASES = {"download": "#56b4e9", "training": "#0072b2", "upload": "#e69f00"}
_LOST = "#b3261e"
_MOST_DEVICES = 60
_MOST_REASONS = 3
_MARKS = "x+^s"
_NEAR = 1.3
"""How much longer than the round a deadline may be to be drawn, and not to squeeze the rest."""
_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))


class Span(NamedTuple):
    """What one device did, in virtual seconds; a time that was not reached is infinite."""

    client: ClientId
    asked_s: float
    received_s: float
    trained_s: float
    ended_s: float
    reason: str | None
    """Why its answer did not count."""


def spans_of(outcome: Outcome, round: int | None) -> tuple[Row, list[Span]]:
    """Return a round's row and its devices by the time they ended; None is the last that has some.

    Raises:
        SettingsError: If the round has none, with those that have.
    """
    rows = {row["round"]: row for row in outcome.history if row.get("spans")}
    if not rows:
        raise SettingsError(
            "There is no round to draw: only a run with fleet= knows what its devices did when."
        )
    if round is not None and round not in rows:
        raise SettingsError(
            f"Of round {round} it is not known what devices did when, but of "
            f"{' and '.join(map(str, rows))}: the first and the last are kept."
        )
    row = rows[max(rows) if round is None else round]
    spans = [
        Span(client, _time(asked), _time(received), _time(trained), _time(ended), reason)
        for client, asked, received, trained, ended, reason in row["spans"]
    ]
    return row, sorted(spans, key=lambda span: (span.ended_s, span.asked_s))


def gantt(figure: Any, outcome: Outcome, round: int | None) -> None:
    """Draw the devices of a round, one a line, at most sixty of them."""
    row, spans = spans_of(outcome, round)
    ends = row.get("virtual_s", spans[-1].ended_s)
    begins = ends - row["round_s"] if "round_s" in row else min(span.asked_s for span in spans)
    last = max([ends, *(span.ended_s for span in spans if not span.reason)])
    unit, scale = next(one for one in _UNITS if last - begins >= 2 * one[1] or one[1] == 1)
    shown = _some(spans)
    axes = figure.subplots()
    _title(axes, row, spans, len(shown))
    frame(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    for line, span in enumerate(shown):
        # Who is late goes on after the round, which is over: its line ends there.
        end = min(span.ended_s, last)
        times = [span.asked_s, min(span.received_s, end), min(span.trained_s, end), end]
        pairs = zip(times, times[1:], _PHASES.values(), strict=False)
        for begun, done, colour in pairs:
            alpha = 0.35 if span.reason else 1.0
            axes.barh(
                line, (done - begun) / scale, 0.8, (begun - begins) / scale, color=colour,
                alpha=alpha, linewidth=0,
            )  # fmt: skip
    _lost(axes, shown, spans, lambda time: (min(time, last) - begins) / scale)
    _lines(axes, outcome, ends - begins, scale)
    axes.set_xlim(right=1.015 * axes.get_xlim()[1])
    axes.set_ylim(-1, len(shown))
    axes.set_yticks(range(len(shown)) if len(shown) <= 20 else [])
    if len(shown) <= 20:
        axes.set_yticklabels([f"{span.client}" for span in shown])
    axes.set_ylabel("devices, by their end", color=MUTED)
    axes.set_xlabel(f"virtual time since the round began ({unit})", color=MUTED)
    _legend(figure, axes)


def _title(axes: Any, row: Row, spans: list[Span], shown: int) -> None:
    lost = sum(span.reason is not None for span in spans)
    told = f"{len(spans) - lost:,} of {plural(len(spans), 'device')} answered"
    some = f"; {shown} drawn, evenly by their end" if shown < len(spans) else ""
    titled(axes, f"round {row['round']:,}", told + some)


def _lost(axes: Any, shown: list[Span], spans: list[Span], at: Any) -> None:
    """Mark where devices were lost, with a sign for each reason."""
    reasons = Counter(_kind(span.reason) for span in spans if span.reason)
    common = [reason for reason, _ in reasons.most_common()]
    if len(common) > _MOST_REASONS + 1:
        common = [*common[:_MOST_REASONS], "another reason"]
    for mark, reason in zip(_MARKS, common, strict=False):
        held = [
            (at(span.ended_s), line)
            for line, span in enumerate(shown)
            if span.reason and _among(_kind(span.reason), common) == reason
        ]
        count = sum(times for one, times in reasons.items() if _among(one, common) == reason)
        x, y = zip(*held, strict=True) if held else ((), ())
        axes.plot(
            x, y, mark, color=_LOST, markersize=5, markeredgewidth=1.4, zorder=4,
            clip_on=False, label=f"{count:,} lost: {reason}",
        )  # fmt: skip


def _among(reason: str, common: list[str]) -> str:
    return reason if reason in common else common[-1]


def _kind(reason: str) -> str:
    """Return a reason without its numbers, so that equal ones are counted together."""
    said = re.sub(r" (?:at|of|after|with answer) [\d,.]+(?: s)?\b", "", reason)
    return re.sub(r"[\d,]*\d", "N", said.removeprefix("it "))


def _lines(axes: Any, outcome: Outcome, took: float, scale: float) -> None:
    """Mark where the round closed, and its deadline; one that was far off is only told."""
    deadline = outcome.settings.get("deadline_s")
    axes.axvline(took / scale, color=INK, linewidth=1.2, label="the round closes")
    # Of a buffered run the deadline is each answer's own.
    if not isinstance(deadline, int | float) or outcome.settings.get("buffer"):
        return
    if deadline <= _NEAR * took:
        axes.axvline(deadline / scale, color=_LOST, linewidth=1.2, linestyle="--", label="deadline")
    else:
        axes.plot([], [], " ", label=f"deadline: {duration(deadline)}")


def _legend(figure: Any, axes: Any) -> None:
    from matplotlib.patches import Patch

    phases = [Patch(color=colour, label=phase) for phase, colour in _PHASES.items()]
    found = phases + axes.get_legend_handles_labels()[0]
    figure.legend(
        handles=found, loc="outside lower left", ncols=3, frameon=False, fontsize=9,
        labelcolor=MUTED, facecolor=PAPER,
    )  # fmt: skip


def _some(spans: list[Span]) -> list[Span]:
    """Return at most sixty of the devices, evenly spread over the order of their ends."""
    if len(spans) <= _MOST_DEVICES:
        return spans
    step = (len(spans) - 1) / (_MOST_DEVICES - 1)
    return [spans[round(place * step)] for place in range(_MOST_DEVICES)]


def _time(value: Any) -> float:
    """Read a time; a stored result has infinity as a text, and nothing for what is no number."""
    return math.inf if value is None or isinstance(value, str) else float(value)
