"""From a fleet to a program: what a round costs each device, and what a turn of the clock asks."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from folkmoot.aggregators.traffic import upload_bytes
from folkmoot.core import fold
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import SUM
from folkmoot.core.algorithm import Algorithm, Task
from folkmoot.core.codec import public
from folkmoot.core.errors import SettingsError
from folkmoot.data import ClientData
from folkmoot.data.digest import digest_of
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.tasks import example, noisy_example
from folkmoot.local.parts import PARTS
from folkmoot.train.gathering import discounted
from folkmoot.train.plan import asked_in_a_round
from folkmoot.train.policy import Policy
from folkmoot.train.sampling import Sampling
from folkmoot.train.timeline import Costs, Timeline
from folkmoot.train.whom import drawn
from folkmoot.train.workload import Work, flops_of


def timeline_of(
    fleet: Fleet,
    policy: Policy,
    algorithm: Algorithm,
    clients: ClientData,
    sampling: Sampling,
    difference_bytes: int | None,
    seed: int,
    lot: int,
    *,
    everyone: bool,
    least_there: int,
    work: Work,
) -> Timeline:
    """Return the virtual clock of a run.

    Args:
        fleet: The devices.
        policy: When rounds begin and end.
        algorithm: What is asked of them.
        clients: Whose devices they are.
        sampling: Who is asked; in a buffered run only how many at once.
        difference_bytes: Of what brings a device from one broadcast to the next; None where all
            are sent whole.
        seed: The run's.
        lot: What cohorts are drawn from; in private runs a secret.
        everyone: Whether a lot is drawn among all clients, of whom those that are not there are
            not asked; else among those who are there.
        least_there: Devices that must be there before a round asks any.
        work: What clients have to do; it remembers how many examples each has.

    Raises:
        SettingsError: If a device's speed cannot be told, none has the memory, or an algorithm
            asks more than once where answers are buffered.
    """
    ids, tasks = clients.ids, work.tasks
    _refuse_untimely(policy, algorithm, tasks, len(ids))
    model_bytes = max(trees.num_bytes(task.broadcast) for task in tasks)
    roster = fleet.roster(
        ids,
        seed=seed,
        flops_per_example=flops_of(algorithm, clients),
        model_bytes=model_bytes,
    )
    _refuse_too_few(policy, int(roster.fits.sum()), model_bytes)
    in_flight = max(1, round(sampling.expected(len(ids))))
    costs = Costs(
        sum(trees.num_bytes(task.broadcast) for task in tasks),
        difference_bytes,
        sum(_upload_bytes(task, in_flight) for task in tasks),
        work,
        work.within,
    )

    def expected_s() -> np.ndarray:
        examples = np.array([work(place)[0] for place in range(len(ids))])
        return roster.expected_s(examples, costs.download_bytes, costs.upload_bytes)

    draw = drawn(sampling, ids, policy, lot, everyone=everyone, expected_s=expected_s)
    return Timeline(roster, policy, costs, draw, in_flight, lot, least_there)


def _refuse_untimely(
    policy: Policy, algorithm: Algorithm, tasks: Sequence[Task], population: int
) -> None:
    """Refuse an algorithm whose answers cannot come late, or in part."""
    if policy.carries:
        refuse_several(algorithm, population)
    if policy.carries and policy.discounts and _mirrors(algorithm, tasks):
        raise SettingsError(
            f"Clients of {algorithm.name}() remember what they have sent, and the server has the "
            "sum of it, in which a stale answer that counts for less would be missing for good. "
            "Let all count whole: staleness=fm.staleness.polynomial(0)."
        )
    if policy.partial and sum(task.work.train for task in tasks) > 1:
        raise SettingsError(
            f"{algorithm.name}() trains in several exchanges of a round, so that a deadline does "
            "not say which of them to cut. Use an algorithm that trains once, such as "
            "fm.fedavg(work), or leave partial= out."
        )


def _refuse_too_few(policy: Policy, able: int, model_bytes: int) -> None:
    """Refuse a fleet of which too few devices can train the model."""
    if not able:
        raise SettingsError(
            f"The model takes {model_bytes:,} bytes, and training several times as many, which no "
            "device of this fleet has. Use a smaller model, or devices with more memory_bytes."
        )
    if policy.buffer is not None and policy.buffer > able:
        raise SettingsError(
            f"buffer={policy.buffer} answers of different devices make a new model, but only "
            f"{able} devices can train it. Ask for a smaller buffer."
        )


def refuse_changing(algorithm: Algorithm, clients: int) -> None:
    """Refuse stages that answers to different models cannot share, in a buffered run.

    Args:
        algorithm: As it is run.
        clients: The population.

    Raises:
        SettingsError: If what clients encode by changes from round to round, or cannot be weighed.
    """
    for task, _ in asked_in_a_round(algorithm, clients):
        rule, update = task.aggregator, example(task)._replace(weight=1.0)
        state = rule.init(update, clients)
        one = rule.encode(state, update, 0)
        numbers = trees.leaves(one.value)
        if discounted(state.codec, 1.0) is None and any(not x.is_floating_point() for x in numbers):
            raise SettingsError(
                f"{rule.name}() adds whole numbers, which a stale answer's weight would break. "
                "Leave the stage out that makes them, or buffer= out."
            )
        for count in (1, 2):
            answers: Any = [one] * count
            if rule.sees is SUM:
                answers = functools.reduce(fold.add, answers, fold.zero(one))
            after = public(rule.decode(state, answers, 0)[2].codec)
            if digest_of(public(state.codec)) != digest_of(after):
                raise SettingsError(
                    f"A stage of {rule.name}() changes from round to round, as an adaptive clip or "
                    "a shared rotation does, but with buffer= one sum holds answers that were "
                    "encoded in different rounds. Use a stage that stays, such as "
                    "fm.codecs.clip(1.0), or leave buffer= out."
                )


def refuse_several(algorithm: Algorithm, population: int) -> None:
    """Refuse an algorithm whose answers cannot come at different times.

    Raises:
        SettingsError: If a round asks more than once.
    """
    times = len(asked_in_a_round(algorithm, population))
    if times > 1:
        raise SettingsError(
            f"{algorithm.name}() asks {times} times a round, but with buffer= clients answer at "
            "different times, to different models. Use an algorithm of one exchange a round, such "
            "as fm.fedavg(work), or leave buffer= out."
        )


def _upload_bytes(task: Task, clients: int) -> int:
    update = noisy_example(task)
    state = task.aggregator.init(update, max(clients, 1))
    return upload_bytes(task.aggregator.encode(state, update, 0))


_SERVERS_OWN = {*PARTS, "optimizer"}
"""Trees of an algorithm's state that have no counterpart at clients."""


def _mirrors(algorithm: Algorithm, tasks: Sequence[Task]) -> bool:
    """Tell whether a server may keep the sum of what clients keep: both have a memory, clients
    beside a model, or leaves of it, that is their own."""
    state = algorithm.init()
    trees_kept = {name for name, part in state.items() if isinstance(part, dict)}
    for task in tasks:
        own = task.work.own(task.broadcast) if task.work.own else {}
        if len(own) > (task.work.model is not None) and trees_kept - _SERVERS_OWN:
            return True
    return False
