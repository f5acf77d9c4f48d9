"""A run as one HTML page that opens without a network: no scripts, no fonts, no files beside it.

Every text that comes from the run is escaped: names of clients and reasons are strangers' words.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from folkmoot.train.communication import centralising, heard, virtual_time
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.folders import write_atomically
from folkmoot.train.monitor import last_advice
from folkmoot.train.outcome import Outcome
from folkmoot.train.plot import (
    draw_efficiency,
    draw_round,
    draw_traffic,
    element,
    inline_svg,
    privacy_svg,
)
from folkmoot.train.style import CARD_CSS, PAGE_CSS
from folkmoot.train.summary import (
    Scores,
    chosen_metric,
    facts,
    headline,
    last_evaluated,
    not_evaluated,
    scores,
    spreads,
    time_parts,
)
from folkmoot.train.traffic_panels import parts as traffic_parts
from folkmoot.train.words import duration, number, plural, size

_MOST_CLIENTS = 10
_MOST_LEFT_OUT = 20


def write_report(path: Path, outcome: Outcome) -> Path:
    """Write the page of a run and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(outcome).encode())
    return path


def page(outcome: Outcome) -> str:
    """Return the page of a run."""
    ended = f'<p class="note">Ended early: {escape(outcome.ended)}.</p>' if outcome.ended else ""
    said = last_advice(outcome.history)
    advice = f'<p class="note">The monitor says: {escape(said)}.</p>' if said else ""
    parts = [
        f"<h1>{escape(outcome.name)}</h1>",
        f'<p class="muted">{escape(headline(outcome))}</p>{ended}{advice}',
        _numbers(outcome),
        _picture(outcome),
        _section("Privacy", _privacy(outcome)) if outcome.privacy else "",
        _section("Time and traffic", _time(outcome)),
        _communication(outcome),
        _section("Clients", _clients(outcome)) if outcome.judged else "",
        _section("Left out", _left_out(outcome)),
        _section("Settings", _listed(_flat(outcome.settings))),
        _section("Environment", _listed(_flat(outcome.environment))),
        "<footer>fm.load_result(folder) reads this run back from where it was saved.</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(outcome.name)}: {escape(headline(outcome))}</title>\n"
        f"<style>{PAGE_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def card(outcome: Outcome) -> str:
    """Return a run as a notebook shows it: the curve, the scores, and the rest to be unfolded."""
    rest = "".join(
        f"<tr><th>{escape(what)}</th><td>{escape(text).replace(chr(10), '<br>')}</td></tr>"
        for what, text in facts(outcome)
    )
    return (
        f'<div class="folkmoot-result"><style>{CARD_CSS}</style>'
        f"<p><strong>{escape(outcome.name)}</strong><br>{escape(headline(outcome))}</p>"
        f"{inline_svg(outcome, small=True) if outcome.history else ''}{_scores(outcome)}"
        f"<details><summary>time, traffic, versions</summary><table>{rest}</table></details></div>"
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Return a table whose cells are HTML already."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    head = f"<thead><tr>{head}</tr></thead>" if columns else ""
    return f'<table class="{kind}">{head}<tbody>\n{body}</tbody></table>'


def _listed(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = [(escape(what), escape(f"{value}")) for what, value in pairs]
    return _table((), rows, "listed")


def _flat(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as (dotted name, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{above}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found


def _numbers(outcome: Outcome) -> str:
    """Return the few numbers that a reader wants first."""
    times, traffic = outcome.times, outcome.traffic
    metric, values = chosen_metric(outcome), dict(scores(outcome).rows)
    found = []
    if metric in values:
        final, best = values[metric][0], values[metric][-1]
        found = [(metric, number(final), f"in round {last_evaluated(outcome):,}")]
        if outcome.best.round:
            found += [(f"best {metric}", number(best), f"in round {outcome.best.round:,}")]
    worst = outcome.metrics.get(f"clients_{metric}_worst_decile")
    if worst is not None:
        found += [("worst decile", number(worst), f"of {plural(len(outcome.judged), 'client')}")]
    asked = sum(row["asked"] for row in outcome.history)
    answered = sum(row["answered"] for row in outcome.history)
    found += [
        ("rounds", f"{outcome.rounds:,}", f"{answered:,} of {asked:,} answers counted"),
        ("time", duration(times.total_s), f"{duration(times.client_s)} of client work"),
        ("traffic", size(sum(traffic)), f"{size(traffic.upload_bytes)} of it up"),
    ]
    cards = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd>"
        f'<dd class="muted">{escape(more)}</dd></div>'
        for what, value, more in found
    )
    return f'<dl class="numbers">{cards}</dl>'


def _picture(outcome: Outcome) -> str:
    said = (
        "Shaded: from p10 to p90 of the clients. Dashed: the mean of their worst decile. std: the "
        "standard deviation over clients, each counting once."
    )
    caption = f'<figcaption class="muted">{said}</figcaption>' if spreads(outcome).rows else ""
    drawn = f"<figure>{inline_svg(outcome)}{caption}</figure>" if outcome.history else ""
    return f"<section>\n{drawn}\n{_scores(outcome)}\n</section>"


def _scores(outcome: Outcome) -> str:
    """Return final and best metrics, and their spread over clients, side by side."""
    if not outcome.metrics:
        return f"<p>{escape(not_evaluated(outcome))}</p>"
    tables = _scored("", scores(outcome))
    if spreads(outcome).rows:
        tables += _scored("clients' own tests", spreads(outcome))
    return f'<div class="pair scores">{tables}</div>'


def _scored(corner: str, found: Scores) -> str:
    columns = [escape(heading).replace("\n", "<br>") for heading in found.columns]
    rows = [(escape(metric), *map(number, values)) for metric, values in found.rows]
    return _table([corner, *columns], rows, "figures")


def _privacy(outcome: Outcome) -> str:
    """Return what was promised: the budget, its picture, and everything that it rests on."""
    budget, *rests = str(outcome.privacy).splitlines()
    listed = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in rests)
    return f"<p><strong>{escape(budget)}</strong></p>{privacy_svg(outcome)}<ul>{listed}</ul>"


def _time(outcome: Outcome) -> str:
    """Return where the seconds went, as a bar and as numbers."""
    parts = time_parts(outcome)
    total = sum(seconds for _, seconds in parts) or 1.0
    bar = "".join(
        f'<i class="t{place}" style="width: {100 * seconds / total:.2f}%"></i>'
        for place, (_, seconds) in enumerate(parts)
    )
    rows = [
        (f'<i class="t{place}"></i>{escape(what)}', duration(seconds), f"{seconds / total:.0%}")
        for place, (what, seconds) in enumerate(parts)
    ]
    tables = _table((), rows, "figures time") + _listed(_traffic(outcome))
    return f'<div class="bar">{bar}</div><div class="pair">{tables}</div>'


def _traffic(outcome: Outcome) -> list[tuple[str, str]]:
    traffic, memory = outcome.traffic, outcome.peak_memory
    rounds = max(1, outcome.rounds)
    return [
        ("up", f"{size(traffic.upload_bytes)}, {size(traffic.upload_bytes / rounds)} a round"),
        (
            "down",
            f"{size(traffic.download_bytes)}, {size(traffic.download_bytes / rounds)} a round",
        ),
        *(
            (what, text)
            for what, text in (
                ("virtual time", virtual_time(outcome)),
                ("against centralising", centralising(outcome).replace("\n", "; ")),
                ("heard", heard(outcome)),
            )
            if text
        ),
        *((f"peak memory, {what.replace('_', ' ')}", size(used)) for what, used in memory.items()),
    ]


def _communication(outcome: Outcome) -> str:
    """Return the pictures of what learning cost, who took part, and a round of a fleet."""
    metric = chosen_metric(outcome)
    drawn = []
    if any(row.get(outcome.best.metric) is not None for row in outcome.history):
        drawn.append(element(draw_efficiency(outcome), f"{metric} over rounds, bytes and time"))
    if traffic_parts(outcome):
        drawn.append(element(draw_traffic(outcome), "participation, staleness, updates"))
    if any(row.get("spans") for row in outcome.history):
        drawn.append(element(draw_round(outcome), "what each device did in a round"))
    figures = "".join(f"<figure>{picture}</figure>" for picture in drawn)
    return _section("Communication", figures) if drawn else ""


def _clients(outcome: Outcome) -> str:
    """Return the clients that are served worst and best; all of them where they are few."""
    metric = chosen_metric(outcome)
    sign = 1 if outcome.best.better == "higher" else -1

    def rank(client: ClientResult) -> tuple[float, float]:
        value, loss = client.metrics[metric], client.metrics.get("loss", 0.0)
        return (-math.inf, 0.0) if math.isnan(value) else (sign * value, -loss)

    order = sorted(outcome.judged.values(), key=rank)
    whose = "its own" if outcome.settings.get("own_models") else "the final"
    told = (
        f"<p>{plural(len(order), 'client')}, each with {whose} model on its own test examples, by "
        f"{escape(metric)}. All are in clients.csv.</p>"
    )
    if len(order) <= 2 * _MOST_CLIENTS:
        return told + _ranked(f"All {len(order):,}, worst first", order, metric)
    worst = _ranked(f"Worst {_MOST_CLIENTS}", order[:_MOST_CLIENTS], metric)
    best = _ranked(f"Best {_MOST_CLIENTS}", order[::-1][:_MOST_CLIENTS], metric)
    return f'{told}<div class="pair">{worst}{best}</div>'


def _ranked(title: str, clients: Sequence[ClientResult], metric: str) -> str:
    names = sorted(clients[0].metrics, key=lambda name: name != metric)
    rows = [
        (
            escape(f"{client.id}"),
            f"{client.examples:,}",
            *(number(client.metrics[name]) for name in names),
        )
        for client in clients
    ]
    columns = ["client", "examples", *map(escape, names)]
    return f"<div><h3>{title}</h3>{_table(columns, rows, 'figures')}</div>"


def _left_out(outcome: Outcome) -> str:
    """Return whose answers did not count, by reason and one by one."""
    found = outcome.left_out
    if not found:
        return "<p>Nobody: every answer counted.</p>"
    reasons = Counter(left.reason for left in found).most_common(_MOST_LEFT_OUT)
    counted = _table(
        ("reason", "answers"),
        [(escape(why), f"{times:,}") for why, times in reasons],
        "figures wide",
    )
    rows = [
        (f"{left.round:,}", escape(f"{left.client}"), escape(left.reason))
        for left in found[:_MOST_LEFT_OUT]
    ]
    more = len(found) - len(rows)
    rest = f"<p>And {more:,} more, in history.jsonl.</p>" if more else ""
    listed = _table(("round", "client", "reason"), rows, "listed")
    return f"{counted}<h3>One by one</h3>{listed}{rest}"
