"""Which engine runs where nobody says: by rule, so that the same program chooses the same one.

Exact: parallel with one stream a core. Otherwise: vectorized for small models of which a step can
be mapped, compiled where a run is long enough to pay for it, else parallel. Work that turns out to
fit neither goes on in parallel.
"""

from typing import Any

from folkmoot.core.algorithm import Algorithm
from folkmoot.core.engine import Engine, Opener, Setting
from folkmoot.engines import compiled as programs
from folkmoot.engines import vectorized as mapped
from folkmoot.engines.fallback import yielding
from folkmoot.engines.parallel import parallel

LONG_RUN = 250
"""Rounds from which compiling has paid for itself, measured on a small model."""


def auto(
    algorithm: Algorithm, rounds: int, workers: int | None = None, *, exact: bool = True
) -> Opener:
    """Choose an engine.

    Args:
        algorithm: Whose model and works decide.
        rounds: Rounds to run.
        workers: Streams; None is one a core.
        exact: Whether only engines that give the sequential bits may be chosen.
    """
    if exact:
        return parallel(workers)

    def open(setting: Setting) -> Engine:
        # Whoever opens has trained one client by then, so it is known what the model draws.
        params: Any = algorithm.objective.init()["params"]
        size = sum(leaf.numel() for leaf in params.values())
        chosen, other = None, parallel(workers)
        if size <= mapped.MOST_PARAMETERS and not any(map(mapped.refusal, algorithm.works)):
            task = next(algorithm.round(algorithm.init()), None)
            if task is None or mapped.maps(setting, task):
                chosen = mapped.vectorized()
        is_long = chosen is None and rounds >= LONG_RUN
        if is_long and not any(map(programs.refusal, algorithm.works)):
            chosen = programs.compiled(workers)
        return yielding(chosen, other)(setting) if chosen else other(setting)

    return open
