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
    """Return a line for each algorithm; a figure that is above its bar is marked."""
    table = Table("algorithm", title="a round, as multiples of FedAvg's", title_justify="left")
    table.box = SIMPLE_HEAD
    for column in ("time", "bar", "client time", "bytes up", "bar", "bytes down", "bar"):
        table.add_column(column, justify="right")
    table.add_column("by its mathematics")
    for name, figures in found.items():
        judged = {
            key: (f"{figures[key]:.2f}{'' if holds else ' !'}", f"{figures['bars'][key]:.2f}")
            for key, holds in figures["holds"].items()
        }
        whole = f"{figures['client_time']:.2f}"
        table.add_row(
            name, *judged["time"], whole, *judged["up"], *judged["down"], figures["why"]
        )  # fmt: skip
    return table


def _warn(console: Console, speed: dict[str, Any]) -> None:
    """Say where other programs took part in the race."""
    for name, figures in speed.items():
        cores = figures["others_cores"]
        if cores is not None and cores > _DISTURBED:
            console.print(
                f"{name}: other programs used up to {cores:.1f} cores meanwhile; do not trust it.",
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
