"""Judging what clients get out of a run: each one's model on its own tests, against two baselines.

An accuracy over all clients says nothing about whether one of them should have taken part. Here
each client is set beside what it could have had otherwise: a model that it trains by itself, and
the global model of plain FedAvg.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.algorithm import LocalWork
from folkmoot.core.engine import ClientId, Opener, Setting
from folkmoot.core.errors import FolkmootError, SettingsError
from folkmoot.data import ClientData, as_clients
from folkmoot.engines import parallel
from folkmoot.local.composed import kind_of
from folkmoot.train.alone import (
    alone,
    plain_work,
    refuse_no_global,
    refuse_no_result,
    refuse_other_model,
)
from folkmoot.train.compared import Evaluation, gap
from folkmoot.train.evaluation import (
    ClientResult,
    on_clients,
    spread,
)
from folkmoot.train.front import current
from folkmoot.train.judging import judging, no_tests, tree_of
from folkmoot.train.options import refuse_engine
from folkmoot.train.progress import Progress
from folkmoot.train.result import Result
from folkmoot.train.run import run
from folkmoot.train.standing import Program
from folkmoot.train.summary import chosen_metric

_AT_ONCE = 64
"""Clients whose models are in memory together."""


def evaluate(
    result: Result,
    clients: Any,
    *,
    personal: bool = False,
    baselines: bool | Evaluation | None = None,
    work: LocalWork | None = None,
    workers: int | None = None,
    engine: Opener | None = None,
    progress: Progress | bool | None = False,
) -> Evaluation:
    """Judge a run's models on each client's own test examples, and against what else it could have.

    The baselines are trained here, which costs about what the run itself did, twice. To compare
    several runs of one work, train them once and pass that evaluation on as `baselines`. Both do
    the run's own work without what an algorithm has put on it, from the same first model, with the
    same seed:

    - "local": each client by itself, for as many rounds as the run asked a client on average,
      rounds * expected cohort / population, rounded, at least 1. A learning rate that follows the
      round counts these.
    - "global": plain FedAvg of as many rounds, with the same cohorts.

    A run that fine-tunes another one is set beside baselines of that one.

    Args:
        result: A run, also one that `finetune` returned or `load_result` read.
        clients: Whose tests, as in `run`; those without test examples are left out. The global
            model may also be judged by people who took no part in the run.
        personal: Judge `result.clients[id].model`, each client's own model: the one that a client
            who was never asked would begin with, and the global one where the algorithm has no
            others. False judges the global model.
        baselines: Whether to train the baselines, or an `Evaluation` whose baselines are used
            again; None is as `personal`.
        work: The local work of baselines, whose objective also judges; None is the run's.
        workers, engine: As in `run`.
        progress: How to show the training of baselines, as in `run`; by default not at all.

    Returns:
        Each client's metrics, how they spread, and how far they are from the baselines.

    Raises:
        SettingsError: If nobody has test examples; if clients took no part in the run and their
            own models or baselines are asked for; if the run has no global model to judge; or if
            it was read from a folder, and what it does not know is not given.
    """
    refuse_no_result("evaluate", result)
    refuse_engine(engine, workers)
    _refuse_no_baselines(baselines)
    trains = personal if baselines is None else baselines is True
    if trains:
        _program_of(result)
    program, federation = result.program, as_clients(clients)
    objective: Any = plain_work("evaluate", result, work).objective
    if work is None and program is not None:
        objective = program.algorithm.objective
    refuse_other_model("evaluate", result, objective)
    if not personal:
        advice = "Judge each client's own model: evaluate(result, clients, personal=True)."
        refuse_no_global("evaluate", result, objective, advice)
    opener = engine or parallel(current().workers or workers)
    judge = functools.partial(_judged, objective=objective, opener=opener)
    mine = judge(result, federation, personal=personal)
    if not mine:
        raise no_tests(federation)
    theirs: dict[str, dict[ClientId, ClientResult]] = {}
    if isinstance(baselines, Evaluation):
        theirs = _again(baselines, mine)
    elif trains:
        plain = plain_work("evaluate", result, work)
        train = functools.partial(run, workers=workers, engine=engine, progress=progress)
        for against, one in _baselines(result, plain, list(mine), train).items():
            theirs[against] = judge(one, federation.subset(mine), personal=against == "local")
    main = chosen_metric(result)
    # A work that was given may measure other things.
    ordered = sorted(objective.metrics, key=lambda metric: metric.name != main)
    return Evaluation(
        name=result.name,
        personal=personal and bool(result.settings.get("own_models")),
        metric=ordered[0].name,
        clients=mine,
        metrics=spread(mine, objective.metrics),
        baselines=theirs,
        gaps={
            against: {metric.name: gap(mine, them, metric) for metric in ordered}
            for against, them in theirs.items()
        },
    )


def _refuse_no_baselines(baselines: Any) -> None:
    """Refuse what says neither whether to train baselines nor which to use again."""
    if baselines is not None and not isinstance(baselines, bool | Evaluation):
        raise SettingsError(
            "baselines must be True, False, or an earlier Evaluation whose baselines are used "
            f"again, but is {kind_of(baselines)}."
        )
    if isinstance(baselines, Evaluation) and not baselines.baselines:
        raise SettingsError(
            f"The evaluation of {baselines.name!r} has no baselines to use again. Make it with "
            "baselines=True."
        )


def _judged(
    result: Result, clients: ClientData, *, objective: Any, opener: Opener, personal: bool
) -> dict[ClientId, ClientResult]:
    """Measure the global model, or each client's own, where clients have tests."""
    work, state, make = judging(result, clients, objective, personal)
    found: dict[ClientId, ClientResult] = {}
    with contextlib.closing(opener(Setting(clients, 0))) as engine:
        for begin in range(0, len(clients) if clients.has_tests else 0, _AT_ONCE):
            some = clients.ids[begin : begin + _AT_ONCE]
            own = {client: tree_of(make(client), state) for client in some} if personal else {}
            found |= on_clients(work, state, engine, some, result.rounds, own)
    return {
        client: replace(one, make=functools.partial(make, client)) for client, one in found.items()
    }


def _program_of(result: Result) -> Program:
    """Return what the run did, or the one whose model it has fine-tuned."""
    program = (result.base or result).program
    if program is None:
        raise SettingsError(
            "evaluate() cannot train baselines for a run that was read from a folder: its clients "
            "and cohorts are not known. Pass baselines=, the evaluation of a run of the same "
            "program, or baselines=False."
        )
    return program


def _baselines(
    result: Result, work: LocalWork, judged: Sequence[ClientId], train: Callable[..., Result]
) -> dict[str, Result]:
    """Train "local", of those that are judged, and "global", of everyone."""
    base, program = result.base or result, _program_of(result)
    train = functools.partial(
        train,
        seed=program.seed,
        precision=base.settings["precision"],
        client_tests=False,
    )
    share = program.sampling.expected(len(program.clients)) / len(program.clients)
    local, whole = alone(work, work.objective.init()), fedavg(work)
    few = max(1, round(base.rounds * share))
    try:
        return {
            "local": train(
                local, program.clients.subset(judged), rounds=few, name=f"{base.name}-local-only"
            ),
            "global": train(
                whole,
                program.clients,
                rounds=base.rounds,
                sampling=program.sampling,
                name=f"{base.name}-global-only",
            ),
        }
    except FolkmootError as error:
        error.add_note("While evaluate() trained a baseline; baselines=False does without.")
        raise


def _again(
    earlier: Evaluation, mine: Mapping[ClientId, ClientResult]
) -> dict[str, dict[ClientId, ClientResult]]:
    """Return the baselines of another evaluation for the clients of this one."""
    missing = [client for client in mine if client not in earlier.clients]
    if missing:
        raise SettingsError(
            f"The evaluation of {earlier.name!r}, whose baselines are to be used again, has not "
            f"judged client {missing[0]!r}. Make it with the same clients."
        )
    return {
        against: {client: theirs[client] for client in mine}
        for against, theirs in earlier.baselines.items()
    }
