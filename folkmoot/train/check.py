"""`check`: look at a run before its first round, and say everything that stands in its way.

    print(fm.check(fm.fedavg(work), clients, rounds=200, cohort=50, test=test))

Nothing is trained: a few clients do a few steps, whose results are thrown away.
"""

import math
import statistics
from typing import Any

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, Batch
from folkmoot.core.engine import Cohort, Setting
from folkmoot.core.errors import ClientError, SettingsError, did_you_mean
from folkmoot.core.rng import as_tensor
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData
from folkmoot.engines.clock import now
from folkmoot.engines.parallel import num_cores
from folkmoot.engines.stream import Stream, Skipped, one_thread
from folkmoot.local.diagnose import explain
from folkmoot.train.census import Fault, Held, gather, look, named, non_iid_score, test_faults
from folkmoot.train.evaluation import MOST_CLIENTS, Judge, shards
from folkmoot.train.labels import classes_of, label_faults
from folkmoot.train.loop import first_snapshot, run_round
from folkmoot.train.outlook import CheckReport, Cost
from folkmoot.train.probe import Exchange, Probe, of_steps
from folkmoot.train.sampling import Draw, Sampling, as_sampling, draw_cohort

_EVALUATIONS = 50
_MOST_LOOKED_AT = 200
_MOST_PROBED = 3
_MOST_TRIED = 8
"""Clients of other leaves than most, each of which is tried by one step."""


def check(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int = 1,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    test: Any = None,
    seed: int = 0,
    workers: int | None = None,
    precision: str = "float32",
    evaluate_every: int | None = None,
    client_tests: bool = True,
    best: str | None = None,
    most_clients: int = _MOST_LOOKED_AT,
    **unknown: Any,
) -> CheckReport:
    """Look at data, model and settings before round 1, and report all that is wrong instead of the first of it.

    Args:
        algorithm: What would be run, such as `fedavg(work)`.
        clients: Whose data, as for `run`.
        rounds: Rounds that would be run, for the estimate of time.
        cohort, sampling, test, seed, workers, precision, evaluate_every, client_tests, best: As for `run`.
        most_clients: Clients that are looked at; of a larger population a sample, which `seed` draws.

    Returns:
        A report to print: `ok`, `problems` and `warnings` as sentences; leaves, labels, distance from iid, and
        estimates of memory, traffic and time.

    Raises:
        SettingsError: If there is no algorithm to check, or an option is unknown. All else is in the report.
    """
    if unknown:
        option = next(iter(unknown))
        raise SettingsError(f"check() has no option {option!r}.{did_you_mean(option, check.__kwdefaults__)}")
    if not isinstance(algorithm, Algorithm):
        raise SettingsError(
            f"check() needs an algorithm first, such as fm.fedavg(work), but was given a {type(algorithm).__name__}."
        )
    federation, problems = gather(clients)
    held_out, found = test_faults(test)
    problems += found
    report = CheckReport(algorithm=algorithm.name, rounds=rounds, faults=tuple(problems))
    if federation is None or not len(federation):
        return report
    setting = Setting(federation, seed, shards(held_out, algorithm.objective), precision)
    asked, found = _settings_faults(setting, algorithm, cohort, sampling, best)
    problems += found
    target = getattr(algorithm.objective, "target", None)
    held, found = look(federation, _chosen(federation, seed, most_clients), target)
    problems += found
    cautions: list[Fault] = []
    cost = None
    if held:
        tried, found, cautions = _trials(algorithm, setting, held)
        problems += found
        problems += _judged(algorithm, held_out)
        classes = classes_of(algorithm.objective, algorithm.init(), federation[held[0].id].train)
        found, more = label_faults(held, held_out, classes, target)
        problems += found
        cautions += more
        if tried:
            cost, found = _cost(
                algorithm, setting, held, tried, asked, workers or num_cores(), client_tests
            )
            problems += found
    every = evaluate_every or max(1, math.ceil(rounds / _EVALUATIONS))
    labelled = any(client.labels for client in held)
    return CheckReport(
        algorithm=algorithm.name,
        rounds=rounds,
        data=federation.name,
        clients=len(federation),
        looked_at=min(len(federation), most_clients),
        held=tuple(held),
        classes=classes if held else None,
        non_iid=non_iid_score(held) if labelled else None,
        cohort=asked,
        evaluations=math.ceil(rounds / every),
        cost=cost,
        faults=tuple(problems),
        cautions=tuple(cautions),
    )
