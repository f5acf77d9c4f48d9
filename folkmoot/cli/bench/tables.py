"""What was measured, as tables for people."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from folkmoot.cli.bench.race import VARIANTS

_DISTURBED = 0.2
"""Cores in foreign use from which figures are not to be trusted."""


def show(found: dict[str, Any]) -> None:
    """Print every part that was measured, and the machine."""
    console = Console()
    speed = {name: figures for name, figures in found.items() if name in VARIANTS}
    if speed:
        console.print(_speed(speed))
        _warn(console, speed)
    for part in ("memory", "newcomer"):
        if part in found:
            console.print(_facts(part, found[part]))
    if "algorithms" in found:
        console.print(_algorithms(found["algorithms"]))
        _warn(console, found["algorithms"])
    if "private" in found:
        console.print(_private(found["private"]))
        _warn(console, found["private"])
    if "secagg" in found:
        cohorts = {name: one for name, one in found["secagg"].items() if name != "parts"}
        console.print(_secagg(cohorts))
        console.print(_facts("parts of a secure sum", found["secagg"]["parts"]))
        _warn(console, cohorts)
    if "codecs" in found:
        console.print(_codecs(found["codecs"]))
        _warn(console, found["codecs"])
    if "codec_rounds" in found:
        console.print(_codec_rounds(found["codec_rounds"]))
        _warn(console, found["codec_rounds"])
    if "fleet" in found:
        console.print(_fleet(found["fleet"]))
        _warn(console, found["fleet"])
    if "remote" in found:
        console.print(_facts("remote workers, beside the same loop without them", found["remote"]))
        _warn(console, {"remote": found["remote"]})
    about = found["machine"]
    threads = {figures["plain_threads"] for figures in speed.values()}
    plain = f", plain loop with {threads.pop()} threads" if threads else ""
    console.print(
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB; torch "
        f"{about['torch']}, Python {about['python']}{plain}",
        highlight=False,
    )


def _speed(speed: dict[str, Any]) -> Table:
    table = Table("workload", title="µs a client, by hand and by folkmoot", title_justify="left")
    table.box = SIMPLE_HEAD
    for column in ("plain", "folkmoot", "× plain", "first s", "overhead"):
        table.add_column(column, justify="right")
    table.add_column("engine")
    for name, figures in speed.items():
        plain = figures["plain_us_per_client"]
        table.add_row(name, *_cells(figures, plain))
        for variant in VARIANTS[name]:
            table.add_row(f"  {variant}", *_cells(figures[variant], plain))
    return table


def _cells(figures: dict[str, Any], plain: float) -> list[str]:
    return [
        f"{plain:,.0f}",
        f"{figures['us_per_client']:,.0f}",
        f"{figures['vs_plain']:.2f}",
        f"{figures['first_round_s']:.1f}",
        f"{figures['overhead_share']:.0%}",
        figures["engine"],
    ]


def _algorithms(found: dict[str, Any]) -> Table:
    """Return a line for each algorithm; a figure above its bar is marked. Why a bar is what it is,
    and why one was skipped, stands in the JSON."""
    table = Table("algorithm", title="a round, as multiples of FedAvg's", title_justify="left")
    table.box = SIMPLE_HEAD
    for column in ("time", "bar", "clients'", "bytes up", "bar", "down", "bar"):
        table.add_column(column, justify="right")
    for name, figures in found.items():
        if "skipped" in figures:
            table.add_row(name, "skipped")
            continue
        time, up, down = (_judged(figures, key) for key in ("time", "up", "down"))
        whole = f"{figures['client_time']:.2f}"
        table.add_row(name, *time, whole, *up, *down)
    return table


def _private(found: dict[str, Any]) -> Table:
    """Return a line for each workload; a figure above its bar is marked."""
    title = "a private round, as multiples of a plain one; clients: ms a client"
    table = Table("workload", title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("time", "bar", "ms a step", "plain", "noise's share"):
        table.add_column(column, justify="right")
    for name, figures in found.items():
        mark = " !" if figures["holds"] is False else ""
        table.add_row(
            name,
            f"{figures['time']:.2f}{mark}",
            "" if figures["bar"] is None else f"{figures['bar']:.1f}",
            f"{figures['private_ms_a_step']:.2f}",
            f"{figures['plain_ms_a_step']:.2f}",
            f"{figures['noise_share']:.0%}",
        )
    return table


def _secagg(found: dict[str, Any]) -> Table:
    """Return a line for each cohort; a figure above its bar is marked."""
    title = "secure sums, ms a client and s a server; * vectors from a sample, by phase"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("clients", no_wrap=True)
    for column in ("client", "bar", "server", "bar", "bytes", "else", "bar"):
        table.add_column(column, justify="right")
    table.add_column("sum")
    for name, figures in found.items():
        client, server = (_judged(figures, key) for key in ("client_ms", "server_s"))
        table.add_row(
            f"{name} *" if "sample" in figures["how"] else name,
            *client,
            *server,
            f"{figures['bytes_a_number']:.1f}",
            f"{figures['else_share']:.1%}{'' if figures['holds']['else_share'] else ' !'}",
            f"{figures['bars']['else_share']:.0%}",
            "exact" if figures["exact"] else "wrong !",
        )
    return table


def _codecs(found: dict[str, Any]) -> Table:
    """Return a line for each codec; a figure below its bar is marked."""
    title = "codecs, GB/s of float32 on one core; copies: both ways, in copies of the vector"
    table = Table("codec", title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("bits", "NMSE", "encode", "decode", "both", "bar", "copies"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in found.items():
        mark = " !" if figures["holds"] is False else ""
        table.add_row(
            name,
            f"{figures['bits']:.3g}",
            f"{figures['nmse']:.3g}",
            f"{figures['encode_gb_s']:.2f}",
            f"{figures['decode_gb_s']:.2f}",
            f"{figures['both_gb_s']:.2f}{mark}",
            "" if figures["bar"] is None else f"{figures['bar']:.1f}",
            f"{figures['by_copy']:.0f}",
        )
    return table


def _codec_rounds(found: dict[str, Any]) -> Table:
    """Return a line for each codec; a figure above its bar is marked."""
    title = "a round of femnist-cnn, as multiples of one without compression"
    table = Table("codec", title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("time", "bar", "bytes up"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in found.items():
        table.add_row(name, *_judged(figures, "time"), f"{figures['up']:.4f}")
    return table


def _fleet(found: dict[str, Any]) -> Table:
    """Return a line for each part; a figure above its bar is marked."""
    title = "two weeks on the virtual clock"
    table = Table("part", title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("devices", "days", "rounds", "attempts", "seconds", "bar", "GiB", "bar"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in found.items():
        numbers = [f"{figures[key]:,}" for key in ("rounds", "attempts")]
        judged = [f"{figures['seconds']:.1f}", "", "", ""]
        if "bars" in figures:
            judged = [*_judged(figures, "seconds"), *_judged(figures, "peak_gib")]
        days = f"{figures['virtual_days']:.2f}"
        table.add_row(name, f"{figures['devices']:,}", days, *numbers, *judged)
    return table


def _judged(figures: dict[str, Any], key: str) -> tuple[str, str]:
    """Return a figure, marked where it is above its bar, and the bar, if there is one."""
    if key not in figures["bars"]:
        return f"{figures[key]:.2f}", ""
    mark = "" if figures["holds"][key] else " !"
    return f"{figures[key]:.2f}{mark}", f"{figures['bars'][key]:.2f}"


def _warn(console: Console, speed: dict[str, Any]) -> None:
    """Say where other programs took part in the race."""
    cores = {name: figures.get("others_cores") or 0.0 for name, figures in speed.items()}
    disturbed = [name for name, found in cores.items() if found > _DISTURBED]
    if disturbed:
        console.print(
            f"{', '.join(disturbed)}: other programs used up to {max(cores.values()):.1f} cores "
            "meanwhile; do not trust it.",
            style="yellow",
            highlight=False,
        )


def _facts(title: str, facts: dict[str, Any], table: Table | None = None, above: str = "") -> Table:
    """Return a table of nested facts, a line each."""
    if table is None:
        table = Table("what", "measured", title=title, title_justify="left", box=SIMPLE_HEAD)
    for key, value in facts.items():
        name = f"{above}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            _facts(title, value, table, f"{name}: ")
        else:
            table.add_row(name, f"{value:,.3g}" if isinstance(value, float) else f"{value}")
    return table
