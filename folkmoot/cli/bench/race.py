"""A race: every contender in a fresh process, one after the other, again and again.

Contenders take turns (A B A B), so that a machine that slows down slows all of them, and each
figure is a median over runs. The race fails if two contenders did not do the same work.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from folkmoot.cli.bench.machine import moment, others
from folkmoot.cli.bench.workloads import Workload, generate, write
from folkmoot.core.errors import FolkmootError

Contenders = dict[str, dict[str, Any] | None]
"""By name: options of `run`, or None for the plain loop."""

PLAIN, DEFAULT = "plain", "default"
VARIANTS: dict[str, Contenders] = {
    # What `exact=False` chooses for a long run; here it is named, for the timed rounds are few.
    "mlp": {"exact_false": {"engine": "compiled"}},
    "femnist-cnn": {"bf16": {"precision": "bf16"}},
    "char-lstm": {"bf16": {"precision": "bf16"}},
    "tiny": {"exact_false": {"exact": False}},
}

_SAME_WORK = 1e-9
"""Largest distance in float64, as a share of all that training has changed."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class DisagreementError(FolkmootError):
    """Two contenders trained other models, so their times cannot be compared."""


class Run(NamedTuple):
    """What one process brought back."""

    answer: dict[str, Any]
    parameters: np.ndarray
    check: np.ndarray | None
    others_cores: float | None
    """Cores that other processes kept busy meanwhile, on average."""


def contenders_of(workload: Workload) -> Contenders:
    """Return who runs a workload: the plain loop, folkmoot's default, and its variants."""
    return {PLAIN: None, DEFAULT: {}, **VARIANTS.get(workload.name, {})}


def race(
    workload: Workload,
    runs: int,
    contenders: Contenders | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run every contender `runs` times, by turns, and return the workload's figures.

    Raises:
        DisagreementError: If the final parameters are not the plain loop's.
    """
    asked = contenders or contenders_of(workload)
    found: dict[str, list[Run]] = {name: [] for name in asked}
    with tempfile.TemporaryDirectory(prefix="folkmoot-bench-") as place:
        folder = Path(place)
        write(generate(workload), folder)
        for turn in range(runs):
            for name, options in asked.items():
                run = _run(workload, options, folder, check=turn == 0 and name in (PLAIN, DEFAULT))
                found[name].append(run)
                each = _per_client(workload, run) * 1e6
                tell(f"{workload.name}, run {turn + 1} of {runs}: {name} {each:,.0f} µs a client")
    _refuse_other_work(workload, found)
    return _figures(workload, found)


def _run(workload: Workload, options: dict[str, Any] | None, folder: Path, check: bool) -> Run:
    """Run one contender in a process of its own, with torch's own number of threads."""
    request = {
        "workload": asdict(workload),
        "options": options,
        "check": check,
        "begun": time.perf_counter(),
    }
    (folder / "request.json").write_text(json.dumps(request))
    environment = {name: value for name, value in os.environ.items() if name not in _THREADS}
    command = [sys.executable, "-m", "folkmoot.cli.bench.contender", str(folder)]
    before = moment()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    disturbed = others(before, moment())
    answer = json.loads((folder / "answer.json").read_text())
    checked = np.load(folder / "check.npy") if check else None
    return Run(answer, np.load(folder / "parameters.npy"), checked, disturbed)


def _per_client(workload: Workload, run: Run) -> float:
    """Return seconds a client, the median over the timed rounds."""
    return statistics.median(run.answer["rounds_s"][workload.warm_up :]) / workload.cohort


def _refuse_other_work(workload: Workload, found: dict[str, list[Run]]) -> None:
    """Compare every contender with the plain loop: in float64 sharply, in float32 up to drift.

    bf16 is other arithmetic, so only its speed is compared.
    """
    from folkmoot.cli.bench.models import build, flat

    first = flat(build(workload.model)).numpy()
    plain = found[PLAIN][0]
    for name, runs in found.items():
        if name == "bf16":
            continue
        compared = [("float32", run.parameters, plain.parameters, workload.drift) for run in runs]
        if runs[0].check is not None and plain.check is not None:
            compared.append(("float64", runs[0].check, plain.check, _SAME_WORK))
        for precision, theirs, plains, most in compared:
            share = float(np.linalg.norm(theirs - plains) / np.linalg.norm(plains - first))
            if not share <= most:
                raise DisagreementError(
                    f"On {workload.name} the parameters of {name!r} differ from the plain loop's "
                    f"by {share:.1e} of all that training has changed in {precision}; at most "
                    f"{most:.0e} can be rounding. They did not do the same work, so their times "
                    "say nothing."
                )


def _figures(workload: Workload, found: dict[str, list[Run]]) -> dict[str, Any]:
    """Return medians over runs: the default engine's, and below them its variants'."""
    plain = found[PLAIN]
    yardstick = _median(_per_client(workload, run) for run in plain)
    figures = {
        name: _of_one(workload, runs, plain, yardstick)
        for name, runs in found.items()
        if name != PLAIN
    }
    disturbed = [run.others_cores for runs in found.values() for run in runs]
    known = [cores for cores in disturbed if cores is not None]
    return {
        **figures.pop(DEFAULT),
        "runs": len(plain),
        "plain_us_per_client": yardstick * 1e6,
        "plain_first_round_s": _median(run.answer["first_round_s"] for run in plain),
        "plain_threads": plain[0].answer["threads"],
        "others_cores": max(known) if known else None,
        **figures,
    }


def _of_one(
    workload: Workload, runs: list[Run], plain: list[Run], yardstick: float
) -> dict[str, Any]:
    """Return one contender's figures beside the plain loop's seconds a client."""
    answers = [run.answer for run in runs]
    each = _median(_per_client(workload, run) for run in runs)
    pairs = zip(runs, plain, strict=True)
    return {
        "vs_plain": yardstick / each,
        "share_of_plain": each / yardstick,
        "engine": answers[0]["engine"],
        "us_per_client": each * 1e6,
        "first_round_s": _median(answer["first_round_s"] for answer in answers),
        "overhead_share": _median(answer["overhead_share"] for answer in answers),
        "max_difference": max(
            float(np.abs(run.parameters - other.parameters).max()) for run, other in pairs
        ),
    }


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
