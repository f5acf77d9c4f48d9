"""What can be known to be wrong with a run's options before any data is touched."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from folkmoot import engines
from folkmoot.core import VERSION
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.engine import Engine
from folkmoot.core.errors import SettingsError, did_you_mean
from folkmoot.local.composed import kind_of, refuse_no_work

PLANNED = {
    "on": "running on real sites",
}
"""Options of the plan that are not there yet, and what they will be for."""

_BUILDERS = [getattr(engines, name) for name in engines.__all__]


def refuse_unknown(verb: str, unknown: Mapping[str, Any], known: Mapping[str, Any] | None) -> None:
    """Refuse a keyword that the verb does not have, with the nearest one that it has."""
    for option in unknown:
        if option in PLANNED:
            raise SettingsError(
                f"{verb}() has no option {option!r} yet: {PLANNED[option]} is planned, and is not "
                f"in version {VERSION}."
            )
        raise SettingsError(
            f"{verb}() has no option {option!r}.{did_you_mean(option, known or ())}"
        )


def refuse_no_algorithm(verb: str, algorithm: Any) -> None:
    """Refuse what is no algorithm, or one that was built from something else than local work."""
    if not isinstance(algorithm, Algorithm):
        raise SettingsError(
            f"{verb}() needs an algorithm first, such as fm.fedavg(work), but was given "
            f"{kind_of(algorithm)}."
        )
    for work in algorithm.works:
        refuse_no_work(algorithm.name, work)


def refuse_numbers(**counted: Any) -> None:
    """Refuse, by name and value, what is neither None nor a whole number of at least 1."""
    for option, value in counted.items():
        if value is not None and (not _is_whole(value) or value < 1):
            raise SettingsError(f"{option} must be a whole number of at least 1, but is {value!r}.")


def refuse_seed(seed: Any) -> None:
    """Refuse a seed that is no whole number."""
    if not _is_whole(seed):
        raise SettingsError(f"seed must be a whole number, but is {seed!r}.")


def refuse_memory(client_memory: Any) -> None:
    """Refuse what is no number of bytes."""
    if not _is_whole(client_memory) or client_memory < 0:
        raise SettingsError(
            "client_memory must be a whole number of bytes, 0 or more, but is "
            f"{client_memory!r}: 2**30 is a gibibyte."
        )


def refuse_functions(stop: Any, callbacks: Any) -> None:
    """Refuse what cannot be called after a round."""
    if stop is not None and not callable(stop):
        raise SettingsError(
            f"stop must be a function of the history that returns why to stop, but is {stop!r}."
        )
    if not isinstance(callbacks, Iterable) or not all(map(callable, callbacks)):
        raise SettingsError(
            f"callbacks must be a list of functions of an event, but is {callbacks!r}."
        )


def refuse_flags(**flags: Any) -> None:
    """Refuse, by name and value, what is neither True nor False."""
    for option, value in flags.items():
        if not isinstance(value, bool):
            raise SettingsError(f"{option} must be True or False, but is {value!r}.")


def refuse_folders(resume: bool, checkpoint: Any, save: Any) -> None:
    """Refuse folders that are no paths, and going on from none."""
    for option, folder in {"checkpoint": checkpoint, "save": save}.items():
        if folder is not None and not isinstance(folder, str | os.PathLike):
            raise SettingsError(f"{option} must be a folder's path, but is {folder!r}.")
    if resume and checkpoint is None:
        raise SettingsError('resume=True needs the folder to go on from: checkpoint="runs/a".')


def refuse_engine(engine: Any, workers: int | None) -> None:
    """Refuse what cannot be opened, and two answers to where clients run."""
    if engine is None:
        return
    if any(engine is builder for builder in _BUILDERS):
        name = engine.__name__
        raise SettingsError(f"engine must be opened first: engine=fm.engines.{name}(), with ().")
    if not callable(engine):
        raise SettingsError(
            f"engine must come from fm.engines, such as fm.engines.parallel(4), but is {engine!r}."
        )
    if workers is not None:
        raise SettingsError(
            f"Both workers={workers} and engine= say where clients run. Give one, such as "
            f"fm.engines.parallel({workers})."
        )


def refuse_unfit(engine: Engine, works: Sequence[LocalWork]) -> None:
    """Refuse works that an open engine knows it cannot run: in round 1 they would be charged."""
    refuse = getattr(engine, "refuse", None)
    if refuse is not None:
        for work in works:
            refuse(work)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
