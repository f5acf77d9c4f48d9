"""The parallel engine: one stream of clients a core, each of one thread; the sequential bits.

Two streams of one thread are faster than one stream of two threads on every workload that was
measured, and unlike intra-op threads they stay so when something else runs on the machine.
"""

import multiprocessing
import os

import torch

from folkmoot.core.engine import Engine, Opener, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.engines.forked import Forked
from folkmoot.engines.sequential import Sequential
from folkmoot.engines.threaded import Threaded


def can_fork() -> bool:
    """Tell whether processes can be forked safely: on Linux, while this one uses no accelerator."""
    forks = "fork" in multiprocessing.get_all_start_methods() and os.uname().sysname == "Linux"
    return forks and not torch.cuda.is_initialized()


def num_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(workers: int | None = None, *, threads: bool | None = None) -> Opener:
    """Run clients in several streams, with the bits of the sequential engine at any number of them.

    Args:
        workers: Streams; None is one a core.
        threads: Whether streams are threads instead of forked processes; None is processes where
            they can be forked (Linux, no accelerator in use) and threads elsewhere.

    Raises:
        SettingsError: If `workers` is below 1.
    """
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise SettingsError(f"workers must be a whole number of at least 1, but is {workers!r}.")

    def open(setting: Setting) -> Engine:
        streams = workers or num_cores()
        if streams == 1 and not threads:
            return Sequential(setting)
        in_threads = not can_fork() if threads is None else threads
        return Threaded(setting, streams) if in_threads else Forked(setting, streams)

    return open
