"""What a figure was measured on, and how much else ran there meanwhile."""

import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

_IDLE = (3, 4)
"""Columns of /proc/stat's first line that are not work: idle, and waiting for a disk."""


def machine() -> dict[str, Any]:
    """Return processor, cores and versions, without importing torch."""
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _cores() -> int | None:
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in facts.items()}
    name = found.get("model name", platform.machine())
    family, model = found.get("cpu family"), found.get("model")
    return f"{name} (family {family}, model {model})" if family and model else name


class Moment(NamedTuple):
    """Clocks at one moment; the difference of two tells who used the machine between them."""

    wall_s: float
    busy_s: float | None
    """Work of all processes on all cores; None where the system does not tell."""
    own_s: float
    """Work of this process and of its ended children."""


def moment() -> Moment:
    """Read the clocks."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(use.ru_utime + use.ru_stime for use in uses)
    return Moment(time.perf_counter(), _busy_s(), own)


def others(before: Moment, after: Moment) -> float | None:
    """Return how many cores other processes kept busy between two moments, on average."""
    if before.busy_s is None or after.busy_s is None:
        return None
    foreign = after.busy_s - before.busy_s - (after.own_s - before.own_s)
    return max(0.0, foreign / (after.wall_s - before.wall_s))


def _busy_s() -> float | None:
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    ticks = [int(value) for value in first.split()[1:9]]
    work = sum(value for column, value in enumerate(ticks) if column not in _IDLE)
    return work / os.sysconf("SC_CLK_TCK")
