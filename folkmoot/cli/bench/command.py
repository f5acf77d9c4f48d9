"""`folkmoot bench`: how fast this machine federates, beside the same work by hand."""

import json as machine_form
import math
import sys
from typing import Annotated, Any

import typer

from folkmoot.cli.errors import reported
from folkmoot.cli.run import Debug
from folkmoot.core.errors import SettingsError, did_you_mean


def bench(
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="NAMES", help="Workloads, such as mlp,tiny; all if left out."
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="Processes of each contender, by turns.")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="One run of each contender; two rounds of each.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure the server's memory; speed only with --only.")
    ] = False,
    newcomer: Annotated[
        bool,
        typer.Option(
            "--newcomer", help="Measure a newcomer's first minutes; speed only with --only."
        ),
    ] = False,
    algorithms: Annotated[
        bool,
        typer.Option(
            "--algorithms", help="Measure each algorithm beside FedAvg; speed only with --only."
        ),
    ] = False,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Measure example-level privacy's cost; speed only with --only."
        ),
    ] = False,
    secagg: Annotated[
        bool,
        typer.Option("--secagg", help="Measure secure sums; speed only with --only."),
    ] = False,
    codecs: Annotated[
        bool,
        typer.Option(
            "--codecs", help="Measure codecs, and rounds with them; speed only with --only."
        ),
    ] = False,
    fleet: Annotated[
        bool,
        typer.Option(
            "--fleet", help="Measure two virtual weeks of many devices; speed only with --only."
        ),
    ] = False,
    remote: Annotated[
        bool,
        typer.Option(
            "--remote", help="Measure training at remote workers; speed only with --only."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Measure speed and memory on this machine, beside a plain PyTorch loop of the same work.

    Every contender runs in a process of its own, by turns; figures are medians over runs. Close
    other programs: the plain loop suffers most from them. Algorithms are measured beside FedAvg,
    by turns in one process.
    """
    with reported(debug):
        times = 1 if quick else runs
        parts = memory or newcomer or algorithms or private or secagg
        parts = parts or codecs or fleet or remote
        found = _speed(only, times) if only or not parts else {}
        if memory:
            from folkmoot.cli.bench.memory import memory as probes

            found["memory"] = probes()
        if newcomer:
            from folkmoot.cli.bench.newcomer import newcomer as first_minutes

            found["newcomer"] = first_minutes(times)
        if algorithms:
            from folkmoot.cli.bench.algorithms import algorithms as beside_fedavg

            found["algorithms"] = beside_fedavg(quick, tell=_tell)
        if private:
            from folkmoot.cli.bench.private import private as beside_plain

            found["private"] = beside_plain(quick, tell=_tell)
        if secagg:
            from folkmoot.cli.bench.secagg import secagg as sums

            found["secagg"] = sums(quick, tell=_tell)
        if codecs:
            from folkmoot.cli.bench.codecs import measured

            found["codecs"] = measured(quick, tell=_tell)
            from folkmoot.cli.bench.codec_rounds import codec_rounds

            found["codec_rounds"] = codec_rounds(quick, tell=_tell)
        if fleet:
            from folkmoot.cli.bench.fleet import fleet as two_weeks

            found["fleet"] = two_weeks(quick, tell=_tell)
        if remote:
            from folkmoot.cli.bench.remote import measured as at_workers

            found["remote"] = at_workers(quick, tell=_tell)
        from folkmoot.cli.bench.machine import machine

        found["machine"] = machine()
        if json:
            typer.echo(machine_form.dumps(_rounded(found)))
        else:
            from folkmoot.cli.bench.tables import show

            show(found)


def _speed(only: str | None, runs: int) -> dict[str, Any]:
    """Race on each workload that is asked for."""
    from folkmoot.cli.bench.race import race
    from folkmoot.cli.bench.workloads import WORKLOADS

    names = [name.strip() for name in only.split(",")] if only else list(WORKLOADS)
    for name in names:
        if name not in WORKLOADS:
            raise SettingsError(
                f"There is no workload {name!r}.{did_you_mean(name, WORKLOADS)} There are "
                f"{', '.join(WORKLOADS)}."
            )
    return {name: race(WORKLOADS[name], runs, tell=_tell) for name in names}


def _tell(line: str) -> None:
    """Show how it goes, away from what a program may read."""
    print(line, file=sys.stderr, flush=True)


def _rounded(value: Any) -> Any:
    """Keep four digits of each measured number."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
