"""`check`: look at a run before its first round, and say everything that stands in its way.

    print(fm.check(fm.fedavg(work), clients, rounds=200, cohort=50, test=test))

Nothing is trained: a few clients do a few steps, whose results are thrown away.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from folkmoot.core import rng
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.core.engine import ClientId, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData
from folkmoot.engines.parallel import num_cores
from folkmoot.local.chosen import Keep
from folkmoot.local.personal import personalize
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure, as_secure
from folkmoot.train.attempt import attempt
from folkmoot.train.census import Fault, gather, held_out_faults, look
from folkmoot.train.check_report import CheckReport
from folkmoot.train.compression import compressing
from folkmoot.train.evaluation import Judge, shards
from folkmoot.train.labels import (
    TEST_SET,
    classes_of,
    label_faults,
    non_iid_score,
    without_output,
)
from folkmoot.train.options import (
    refuse_no_algorithm,
    refuse_numbers,
    refuse_seed,
    refuse_unknown,
)
from folkmoot.train.policy import TIMES
from folkmoot.train.private import private
from folkmoot.train.sampling import Draw, Sampling, as_sampling, draw_cohort
from folkmoot.train.secure import secured
from folkmoot.train.timed import time_faults
from folkmoot.train.trials import cost_of, try_clients, try_held_out

EVALUATIONS = 50
"""About how often a run is judged where nobody says."""
_MOST_LOOKED_AT = 200


def check(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int = 1,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    personal: Keep | None = None,
    privacy: DP | None = None,
    secure: Secure | str | bool = False,
    compress: Codec | None = None,
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
    """Look at data, model and settings before round 1, and report all that is wrong.

    Args:
        algorithm: What would be run, such as `fedavg(work)`.
        clients: Whose data, as for `run`.
        rounds: Rounds that would be run, for the estimate of time.
        cohort, sampling, personal, privacy, secure, compress, test, seed: As for `run`.
        workers, precision: As for `run`.
        evaluate_every, client_tests, best: As for `run`.
        unknown: What `run` takes about time and broadcasts, such as `fleet=` and `deadline_s=`: it
            is held to itself, and no clock is played.
        most_clients: Clients that are looked at; of more a sample, which `seed` draws.

    Returns:
        A report to print: `ok`, `problems` and `warnings` as sentences; leaves, labels, distance
        from iid, and estimates of memory, traffic and time.

    Raises:
        SettingsError: If there is no algorithm to check, an option is unknown, or a count or the
            seed is no whole number; all else is in the report.
    """
    times = {name: unknown.pop(name) for name in TIMES if name in unknown}
    refuse_unknown("check", unknown, {**(check.__kwdefaults__ or {}), **dict.fromkeys(TIMES)})
    refuse_no_algorithm("check", algorithm)
    if rounds is None:
        raise SettingsError("rounds must be a whole number of at least 1, but is None.")
    refuse_numbers(
        rounds=rounds, workers=workers, evaluate_every=evaluate_every, most_clients=most_clients
    )
    refuse_seed(seed)
    algorithm, unkept = _personalized(algorithm, personal)
    gathered = gather(clients)
    federation = gathered.usable
    held_out, faults = held_out_faults(test)
    report = CheckReport(
        algorithm=algorithm.name,
        rounds=rounds,
        clients=len(gathered.ids),
        faults=(*gathered.faults, *faults, *unkept),
    )
    if federation is None:
        return report
    if algorithm.works[0].personal:
        # Its examples have been looked at, but there is no global model to judge by them.
        held_out = None
    setting = Setting(federation, seed, shards(held_out, algorithm.objective))
    judged = client_tests and federation.has_tests
    if privacy is not None:
        algorithm, sampling, warned, spoilt = _private(
            privacy, algorithm, gathered.ids, rounds, cohort, sampling, secure
        )
        cohort = cohort if sampling is None else None
        judged = judged and getattr(privacy, "client_tests", False)
        report = replace(
            report, faults=(*report.faults, *spoilt), cautions=(*report.cautions, *warned)
        )
    expected, faults = _sampling_faults(gathered.ids, sampling, cohort, seed)
    if secure:
        judged = judged and privacy is not None and privacy.client_tests
        inside = privacy is not None and privacy.unit == "client"
        algorithm, spoilt = _secured(secure, algorithm, len(gathered.ids), expected, inside)
        faults = [*faults, *spoilt]
    if compress is not None:
        packed = attempt(
            compressing, algorithm, compress, privacy=privacy, secure=as_secure(secure) is not None
        )
        if isinstance(packed, Exception):
            faults = [*faults, Fault("settings", str(packed))]
        else:
            algorithm = packed
    setting, more = _objective_faults(algorithm, setting, precision, best, judged)
    chosen = _chosen(federation, seed, most_clients)
    objective = algorithm.objective
    target, ignored = getattr(objective, "target", None), getattr(objective, "ignored", None)
    held, found = look(federation, chosen, target, ignored)
    every = evaluate_every or max(1, math.ceil(rounds / EVALUATIONS))
    report = replace(
        report,
        data=federation.name,
        looked_at=len(chosen) + len(gathered.ids) - len(federation),
        held=tuple(held),
        non_iid=non_iid_score(held) if any(client.labels for client in held) else None,
        cohort=expected,
        evaluations=math.ceil(rounds / every),
        faults=(*report.faults, *faults, *more, *found, *time_faults(times)),
    )
    if not held:
        return report
    return _with_model(report, algorithm, setting, held_out, workers or num_cores(), client_tests)


def _with_model(
    report: CheckReport,
    algorithm: Algorithm,
    setting: Setting,
    held_out: Tree | None,
    streams: int,
    client_tests: bool,
) -> CheckReport:
    """Add what the model has to say to the data, and what a round would cost."""
    held, target = report.held, getattr(algorithm.objective, "target", None)
    ignored = getattr(algorithm.objective, "ignored", None)
    example = setting.clients[held[0].id].train
    classes = classes_of(algorithm.objective, algorithm.objective.init(), example)
    problems, cautions = label_faults(held, held_out, classes, target, ignored)
    # A label without an output makes the step fail as well; saying so once is enough.
    tried = try_clients(
        algorithm,
        setting,
        [client for client in held if not without_output(client.labels, classes)],
    )
    problems += tried.problems
    told = any(fault.sentence.startswith(TEST_SET) for fault in problems)
    unjudged = [] if told else try_held_out(algorithm, held_out)
    problems += unjudged
    if told or unjudged:
        setting = setting._replace(held_out=())
    cost = None
    if tried.usable and report.cohort is not None:
        cost, found = cost_of(
            algorithm,
            setting,
            held,
            tried.usable,
            expected=report.cohort,
            rounds=report.rounds,
            evaluations=report.evaluations,
            streams=streams,
            client_tests=client_tests,
        )
        problems += found
    return replace(
        report,
        classes=classes,
        cost=cost,
        faults=(*report.faults, *problems),
        cautions=(*report.cautions, *cautions, *tried.cautions),
    )


def _chosen(federation: ClientData, seed: int, most: int) -> list[ClientId]:
    """Return everyone, or a sample of a larger population, ascending."""
    if len(federation) <= most:
        return list(federation)
    generator = rng.generator(rng.derive(seed, purpose="checked clients"))
    places = generator.choice(len(federation), most, replace=False).tolist()
    return [federation.ids[place] for place in sorted(places)]


def _personalized(algorithm: Algorithm, personal: Keep | None) -> tuple[Algorithm, list[Fault]]:
    """Return the algorithm whose clients keep leaves, or why they cannot."""
    try:
        return (algorithm if personal is None else personalize(algorithm, personal)), []
    except SettingsError as error:
        return algorithm, [Fault("settings", str(error))]


def _private(
    privacy: DP,
    algorithm: Algorithm,
    ids: Sequence[ClientId],
    rounds: int,
    cohort: int | float | None,
    sampling: Sampling | Draw | None,
    secure: Secure | str | bool,
) -> tuple[Algorithm, Sampling | Draw | None, list[Fault], list[Fault]]:
    """Return the private algorithm and its sampling, what should be known of it, and why not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sums = as_secure(secure)
            plan = private(privacy, algorithm, ids, rounds, cohort, sampling, sums)
        except SettingsError as error:
            return algorithm, sampling, [], [Fault("settings", str(error))]
    return plan.algorithm, plan.sampling, [Fault("settings", str(w.message)) for w in caught], []


def _secured(
    secure: Secure | str | bool,
    algorithm: Algorithm,
    population: int,
    expected: float | None,
    inside: bool,
) -> tuple[Algorithm, list[Fault]]:
    """Return the algorithm whose sums are secure, or why they cannot be."""
    try:
        sums = as_secure(secure)
        if sums is None or expected is None:
            return algorithm, []
        return secured(sums, algorithm, population, expected, private=inside).algorithm, []
    except SettingsError as error:
        return algorithm, [Fault("settings", str(error))]


def _sampling_faults(
    ids: Sequence[ClientId],
    sampling: Sampling | Draw | None,
    cohort: int | float | None,
    seed: int,
) -> tuple[float | None, list[Fault]]:
    """Return the clients asked in a round, or why no cohort can be drawn."""
    try:
        return draw_cohort(as_sampling(sampling, cohort), ids, 1, seed).expected, []
    except SettingsError as error:
        return None, [Fault("settings", str(error))]


def _objective_faults(
    algorithm: Algorithm, setting: Setting, precision: str, best: str | None, client_tests: bool
) -> tuple[Setting, list[Fault]]:
    """Return the setting in a precision that there is, and what the objective has not."""
    faults = []
    try:
        algorithm.objective.with_precision(precision)
        setting = setting._replace(precision=precision)
    except SettingsError as error:
        faults.append(Fault("settings", str(error)))
    try:
        Judge(algorithm, setting, best, client_tests)
    except SettingsError as error:
        faults.append(Fault("settings", str(error)))
    return setting, faults
