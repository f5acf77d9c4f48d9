"""A run in words: the headline numbers, as lines of text that every form of a report shares."""

import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from folkmoot.train.communication import centralising, heard, traffic, virtual_time
from folkmoot.train.monitor import last_advice
from folkmoot.train.outcome import Outcome
from folkmoot.train.words import duration, number, plural, size

_WIDTH = 80
_REASONS = 3
_LEAVES = 3
_VERSIONS = ("folkmoot", "torch", "numpy", "python")
_SPREAD = {
    "all\ntogether": "",
    "p10": "_p10",
    "median": "_median",
    "p90": "_p90",
    "worst\ndecile": "_worst_decile",
    "std": "_std",
}


class Scores(NamedTuple):
    """Numbers as a table: a row a metric."""

    columns: list[str]
    """Headings; a line break parts what from when."""
    rows: list[tuple[str, list[float]]]


def scores(outcome: Outcome) -> Scores:
    """Return the final and the best value of each metric: held-out, or of all clients together."""
    last, best = outcome.metrics, outcome.best_metrics
    part = "test" if any(key.startswith("test_") for key in last) else "clients"
    whose = "" if part == "test" else "of all clients, "
    columns = [f"{whose}final\nround {last_evaluated(outcome):,}"] if last else []
    columns += [f"{whose}best\nround {outcome.best.round:,}"] if best else []
    found = [row for row in (last, best) if row]
    rows = [
        (metric, [row.get(f"{part}_{metric}", math.nan) for row in found])
        for metric in metric_names(outcome)
    ]
    return Scores(columns, rows)


def spreads(outcome: Outcome) -> Scores:
    """Return how each final metric spreads over clients' own tests; no rows without such tests."""
    last = outcome.metrics
    names = [metric for metric in metric_names(outcome) if f"clients_{metric}" in last]
    # A stored run of an earlier version has fewer columns.
    there = {
        heading: end
        for heading, end in _SPREAD.items()
        if any(f"clients_{metric}{end}" in last for metric in names)
    }
    rows = [
        (metric, [last.get(f"clients_{metric}{end}", math.nan) for end in there.values()])
        for metric in names
    ]
    return Scores(list(there), rows)


def metric_names(outcome: Outcome) -> list[str]:
    """Return the metrics that were measured, by which models are compared first."""
    found = [
        key.partition("_")[2]
        for key in outcome.metrics
        if key.startswith("test_") or f"{key}_worst_decile" in outcome.metrics
    ]
    chosen = chosen_metric(outcome)
    return sorted(dict.fromkeys(found), key=lambda name: name != chosen)


def chosen_metric(outcome: Outcome) -> str:
    """Return the metric by which models are compared, without the part it was measured on."""
    return outcome.best.metric.partition("_")[2]


def last_evaluated(outcome: Outcome) -> int:
    """Return the last round that was evaluated; 0 where none was."""
    return next((row["round"] for row in outcome.history[::-1] if row["evaluated"]), 0)


def headline(outcome: Outcome) -> str:
    """Say in one line what was run: data, rounds, cohort, seed."""
    settings = outcome.settings
    asked = settings.get("rounds", outcome.rounds)
    rounds = (
        f"{outcome.rounds:,}" if outcome.rounds == asked else f"{outcome.rounds:,} of {asked:,}"
    )
    parts = [f"{settings['data']}"] if "data" in settings else []
    parts += [f"{rounds} round{'' if outcome.rounds == 1 else 's'}"]
    if "population" in settings:
        cohort = f"{settings.get('expected_cohort', 0):,.6g}"
        parts.append(f"{cohort} of {settings['population']:,} clients a round")
    if "seed" in settings:
        parts.append(f"seed {settings['seed']}")
    return ", ".join(parts)


def facts(outcome: Outcome) -> list[tuple[str, str]]:
    """Return what else there is to say, as (what, lines of text)."""
    settings, where, memory = outcome.settings, outcome.environment, outcome.peak_memory
    fingerprint = str(settings.get("data_fingerprint", ""))[:12]
    found = [("ended early", outcome.ended)] if outcome.ended else []
    found += [
        ("advice", last_advice(outcome.history) or ""),
        ("personal", _personal(settings)),
        ("privacy", "" if outcome.privacy is None else str(outcome.privacy)),
        ("secure", _secure(outcome)),
        ("left out", _left_out(outcome)),
        ("time", _time(outcome)),
        ("virtual time", virtual_time(outcome)),
        ("traffic", traffic(outcome)),
        ("centralising", centralising(outcome)),
        ("heard", heard(outcome)),
        (
            "peak memory",
            f"{size(memory.get('process', 0))}, largest worker "
            f"{size(memory.get('largest_worker', 0))}",
        ),
        ("engine", _said(settings, "engine", "precision")),
        ("seed", _said(settings, "seed")),
        ("data", _said(settings, "data") + (f", fingerprint {fingerprint}" if fingerprint else "")),
        ("versions", ", ".join(f"{what} {where[what]}" for what in _VERSIONS if what in where)),
    ]
    return [(what, text) for what, text in found if text]


def _personal(settings: Mapping[str, Any]) -> str:
    """Say which leaves stay with clients, and which tests judge which models."""
    if not settings.get("own_models"):
        return ""
    leaves = settings.get("personal", [])
    more = f" and {len(leaves) - _LEAVES} more" if len(leaves) > _LEAVES else ""
    named = f"{', '.join(leaves[:_LEAVES])}{more}\n" if leaves else ""
    common = "none" if leaves else "result.model"
    return f"{named}clients' own tests judge their own models, test= {common}"


_CUT = {
    "clipped": "updates clipped",
    "capped": "weights capped",
    "faint": "weights too small for their cap",
    "cut": "numbers cut",
}


def _secure(outcome: Outcome) -> str:
    """Say how sums were taken that nobody may look into, and what had to be cut for them."""
    found = outcome.settings.get("secure")
    if not found:
        return ""
    cut = [
        f"{total:,} {what}"
        for name, what in _CUT.items()
        if (total := sum(row.get(name, 0) for row in outcome.history))
    ]
    how = "by the protocol" if found["sum"] == "protocol" else "modulo a power of two"
    return (
        f"sums {how}, opened by {found['quorum']} or more of {found['cohort']} clients; against a "
        f"server that is {found['threat']}, with {found['corrupt']:.0%} of clients corrupt and "
        f"{found['dropped']:.0%} lost{'; ' if cut else ''}{', '.join(cut)}"
    )


def _said(settings: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{settings[name]}" for name in names if name in settings)


def _left_out(outcome: Outcome) -> str:
    found = outcome.left_out
    if not found:
        return "nobody"
    clients = len({left.client for left in found})
    lines = [f"{plural(len(found), 'answer')} of {plural(clients, 'client')}"]
    lines += [
        f"round {left.round}, client {left.client}: {left.reason}" for left in found[:_REASONS]
    ]
    more = len(found) - _REASONS
    return "\n".join(lines + ([f"and {more:,} more, in result.left_out"] if more > 0 else []))


def _time(outcome: Outcome) -> str:
    parts = [f"{what} {duration(seconds)}" for what, seconds in time_parts(outcome)]
    return f"{duration(outcome.times.total_s)}: {', '.join(parts)}"


def time_parts(outcome: Outcome) -> list[tuple[str, float]]:
    """Return where the seconds went; what remains is the start, and the last test of clients."""
    times = outcome.times
    named = [
        ("client work", times.client_s),
        ("evaluation", times.evaluation_s),
        ("overhead", times.overhead_s),
    ]
    return [*named, ("start and end", max(0.0, times.total_s - sum(part for _, part in named)))]


def as_text(outcome: Outcome) -> str:
    """Return a run as a calm table of plain text, at most 80 columns wide."""
    # In a notebook, too, the table must come back as text and not be shown by the console.
    console = Console(
        file=io.StringIO(),
        width=_WIDTH,
        color_system=None,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(Text(f"{outcome.name}\n{headline(outcome)}\n"))
    if outcome.metrics:
        console.print(_table("", scores(outcome)))
        console.print()
    else:
        console.print(Text(f"{not_evaluated(outcome)}\n"))
    if spreads(outcome).rows:
        console.print(_table("clients' own tests", spreads(outcome)))
        console.print()
    listed = Table(box=None, pad_edge=False, show_header=False)
    listed.add_column(no_wrap=True)
    listed.add_column()
    for what, text in facts(outcome):
        listed.add_row(Text(what), Text(text))
    console.print(listed)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines)


def _table(corner: str, found: Scores) -> Table:
    width = max(len(name) for name in ("clients' own tests", *(name for name, _ in found.rows)))
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column(corner, width=width, vertical="bottom")
    for heading in found.columns:
        table.add_column(heading, justify="right", vertical="bottom")
    for metric, values in found.rows:
        table.add_row(Text(metric), *map(number, values))
    return table


def not_evaluated(outcome: Outcome) -> str:
    """Say why a run has no metrics, and what would give it some."""
    held_out = "" if outcome.settings.get("personal") else "test=, or "
    return f"No round was evaluated: give fm.run() {held_out}clients with tests of their own."
