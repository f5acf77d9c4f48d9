"""Many runs side by side: each is a process's own, with one thread of arithmetic."""

import functools
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

import folkmoot as fm
from folkmoot.core.errors import DivergenceError

CORES = 2
_jobs: list[Callable[[], Any]] = []

run = functools.partial(fm.run, workers=1, progress=False)
"""A run that is one of many: in one process, without a word."""


def side_by_side(jobs: Sequence[Callable[[], Any]], cores: int = CORES) -> list[Any]:
    """Return what each job returns, in order.

    Args:
        jobs: Functions without arguments; what they return is pickled.
        cores: Processes at once; with 1 the jobs run here.
    """
    torch.set_num_threads(1)
    if cores == 1:
        return [job() for job in jobs]
    # Processes are forked when the jobs are known, so closures need no pickling.
    _jobs[:] = jobs
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        return list(pool.map(_numbered, range(len(jobs))))


def _numbered(place: int) -> Any:
    return _jobs[place]()


def over(settings: Sequence[Any], seeds: Sequence[int], job: Callable[[Any, int], Any], cores: int):
    """Return, for each setting, the job's values over seeds."""
    flat = [functools.partial(job, setting, seed) for setting in settings for seed in seeds]
    found = side_by_side(flat, cores)
    return [found[begin : begin + len(seeds)] for begin in range(0, len(flat), len(seeds))]


def or_none(job: Callable[[], Any]) -> Any:
    """Return what a job returns, or None if the training in it leaves what numbers can hold."""
    try:
        return job()
    except DivergenceError:
        return None


def mean(values: Sequence[float]) -> float:
    """Return the mean over seeds."""
    return statistics.fmean(values)


def deviation(values: Sequence[float]) -> float:
    """Return the sample deviation over seeds; 0 of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
