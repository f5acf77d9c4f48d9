"""Judging on clients' own tests in private: a mean of metrics that is noised and paid for.

A metric is a release like a model. Each client brings its own value of every metric that has a
largest one, shifted to lie around 0, and half of a 1 that counts it; this vector is at most
sqrt(metrics + 1) / 2 long, whoever the client is, so one noisy sum tells all means. Clients count
the same, as in any private mean: weights by examples have no bound.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from folkmoot.aggregators import uniform_mean
from folkmoot.core import rng
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task
from folkmoot.core.codec import public
from folkmoot.core.engine import ClientId, Cohort, Opener, Setting
from folkmoot.core.errors import SettingsError, did_you_mean, positive
from folkmoot.core.fold import ascending
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData, as_clients
from folkmoot.engines import parallel
from folkmoot.engines.tasks import example
from folkmoot.local.evaluate import finished
from folkmoot.local.metrics import Metric
from folkmoot.privacy.dp import DP
from folkmoot.train.alone import plain_work, refuse_no_global, refuse_no_result
from folkmoot.train.front import current
from folkmoot.train.guarantee import Guarantee, guarantee_of, planned, spent
from folkmoot.train.guard import guarded
from folkmoot.train.judging import judging, no_tests, tree_of
from folkmoot.train.loop import begun
from folkmoot.train.options import refuse_engine
from folkmoot.train.private import private
from folkmoot.train.result import Result
from folkmoot.train.summary import number


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PrivateEvaluation:
    """What was released of clients' own tests: noisy means in which each client counts once."""

    name: str
    """What the run is called."""
    personal: bool
    """Whether each client's own model was judged, or the global one."""
    metrics: dict[str, float]
    """Means over clients, named as in a run's history: "clients_accuracy"."""
    deviations: dict[str, float]
    """Standard deviation of the noise in each of them."""
    clients: float
    """How many had tests, with noise too."""
    withheld: tuple[str, ...]
    """Metrics that have no largest value, of which nothing was released."""
    privacy: Guarantee
    """What this evaluation has spent, beside what the run has."""

    def __str__(self) -> str:
        whose = "its own model" if self.personal else "the global model"
        lines = [f"{self.name}\nabout {self.clients:.0f} clients, each with {whose}"]
        for name, value in self.metrics.items():
            lines.append(f"{name} {number(value)} ± {number(self.deviations[name])} (noise)")
        lines += [f"{name} has no largest value: pass most={{...}}" for name in self.withheld]
        return "\n".join([*lines, str(self.privacy)])

    __repr__ = __str__


def evaluate_privately(
    result: Result,
    clients: Any,
    privacy: DP,
    *,
    personal: bool = False,
    most: Mapping[str, float] | None = None,
    workers: int | None = None,
    engine: Opener | None = None,
) -> PrivateEvaluation:
    """Judge a run's models on clients' own tests, and release noisy means that may be published.

    All clients are asked, once, and each counts the same. A metric is released if it has a largest
    value, as accuracy has; what a client has beyond `most` counts as that.

    Args:
        result: A run, also one that `load_result` read.
        clients: Whose tests, as in `run`; those without test examples are left out.
        privacy: The budget of this evaluation alone, which adds to the run's; a `ledger` in it is
            charged too. Its clip norm is not used: metrics have bounds of their own.
        personal: Judge each client's own model, as in `evaluate`.
        most: Largest values of metrics that have none by themselves, such as {"loss": 5.0}.
        workers, engine: As in `run`.

    Returns:
        Means over clients, the deviation of their noise, and what they have cost.

    Raises:
        SettingsError: If nobody has test examples, no metric has a largest value, or the budget is
            for single examples.
        BudgetError: If the ledger would be overspent; nobody has been asked then.
    """
    refuse_no_result("evaluate_privately", result)
    refuse_engine(engine, workers)
    federation, objective = as_clients(clients), plain_work("evaluate", result, None).objective
    if not personal:
        advice = "Judge each client's own model: evaluate_privately(..., personal=True)."
        refuse_no_global("evaluate_privately", result, objective, advice)
    if not federation.has_tests:
        raise no_tests(federation)
    work, state, make = judging(result, federation, objective, personal)
    own = (lambda client: tree_of(make(client), state)) if personal else None
    opener = engine or parallel(current().workers or workers)
    return _released(result.name, work, state, federation, own, opener, privacy, most or {})


def _released(
    name: str,
    work: LocalWork,
    state: Tree,
    clients: ClientData,
    own: Callable[[ClientId], Tree] | None,
    opener: Opener,
    dp: DP,
    most: Mapping[str, float],
) -> PrivateEvaluation:
    """Release the means once, for all clients that there are; `own` builds a client's model."""
    if not isinstance(dp, DP) or dp.unit != "client" or dp.mechanism or dp.population:
        raise SettingsError(
            "A private evaluation asks every client once and hides whole clients: privacy must be "
            f"a budget such as fm.DP(epsilon=1, delta=1e-5), but is {dp!r}."
        )
    bounds = _largest(work.objective.metrics, most)  # type: ignore[attr-defined]
    telling = _bounded(work, bounds)
    radius = math.sqrt(len(bounds) + 1) / 2
    plan = private(replace(dp, clip=radius), _once(telling, state), clients, rounds=1)
    task = next(begun(plan.algorithm, state))
    ids = ascending(clients)
    cohort = Cohort(0, ids, len(ids), len(ids), "test")
    chain = task.aggregator.init(example(task), len(ids))
    with (
        contextlib.closing(guarded(plan, None, resume=False)) as guard,
        contextlib.closing(opener(Setting(clients, 0))) as engine,
    ):
        guard.charge(cohort, task, chain.bounds)
        shown = chain._replace(codec=public(chain.codec))
        kept = _Built(ids, own) if own else {}
        collected = engine.ask(task, shown, cohort, kept)
        key = rng.derive(guard.identity.cohorts, purpose="private tests")
        value, _, _ = task.aggregator.decode(chain, collected.total, key)
        facts = spent(planned(plan), guard, rounds=1)
    means = value["told"].double() * len(ids)
    noise = _deviation(chain, radius, dp, len(ids))
    guarantee = guarantee_of({"privacy": facts | {"assumptions": _assumptions(facts)}})
    assert guarantee is not None
    return _read(name, own is not None, means, noise, bounds, work, guarantee)


def _largest(metrics: Sequence[Metric], most: Mapping[str, float]) -> dict[str, float]:
    """Return the largest value of each metric that has one."""
    known = {metric.name: metric.most for metric in metrics if metric.most is not None}
    names = [metric.name for metric in metrics]
    for name, value in most.items():
        if name not in names:
            raise SettingsError(f"most= names no metric {name!r}.{did_you_mean(name, names)}")
        positive(**{f"most[{name!r}]": value})
    found = known | {name: float(value) for name, value in most.items()}
    if not found:
        raise SettingsError(
            f"None of {', '.join(names)} has a largest value, so one client could move their mean "
            f"by any amount. Say what counts at most: most={{{names[0]!r}: 5.0}}."
        )
    return {name: found[name] for name in names if name in found}


def _bounded(work: LocalWork, bounds: Mapping[str, float]) -> LocalWork:
    """Return work whose update is each client's own metrics, around 0, and half of one client."""

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        values = finished(work.objective, update.value)
        told = [_around_0(values[name] / largest) for name, largest in bounds.items()]
        return Update({"told": torch.tensor([*told, 0.5])}, 1.0), own

    return work._replace(name="private tests", finish=finish)


def _around_0(share: float) -> float:
    """Return a share of the largest value less one half; no value is in the middle."""
    return 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0) - 0.5


def _once(work: LocalWork, state: Tree) -> Algorithm:
    """Return one exchange, as an algorithm that learns nothing."""

    def round(state: Tree) -> Round:
        yield Task(state, work, uniform_mean())
        return state

    return Algorithm("evaluate", lambda: state, round, (work,))


class _Built(Mapping[ClientId, Tree]):
    """Clients' own models, each built when its client is asked and not kept."""

    def __init__(self, ids: Sequence[ClientId], build: Callable[[ClientId], Tree]) -> None:
        self.ids, self.build = ids, build

    def __getitem__(self, client: ClientId) -> Tree:
        return self.build(client)

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def _deviation(chain: State, radius: float, dp: DP, clients: int) -> float:
    """Return the standard deviation of the noise in one coordinate of the sum."""
    added = math.sqrt(clients) if dp.trust == "local" else 1.0
    return added * chain.bounds.noise * chain.bounds.l2 * radius


def _read(
    name: str,
    personal: bool,
    sums: Tensor,
    noise: float,
    bounds: Mapping[str, float],
    work: LocalWork,
    guarantee: Guarantee,
) -> PrivateEvaluation:
    """Turn noisy sums into means; what is done to a release costs nothing."""
    *told, half = sums.tolist()
    counted = max(2 * half, 1.0)
    metrics, deviations = {}, {}
    for (metric, largest), total in zip(bounds.items(), told, strict=True):
        middle = total / counted
        metrics[f"clients_{metric}"] = largest * min(max(middle + 0.5, 0.0), 1.0)
        # By the delta method: of the ratio of two sums that are each noisy.
        deviations[f"clients_{metric}"] = (
            largest * noise * math.sqrt(1 + (2 * middle) ** 2) / counted
        )
    every = [metric.name for metric in work.objective.metrics]  # type: ignore[attr-defined]
    return PrivateEvaluation(
        name=name,
        personal=personal,
        metrics=metrics,
        deviations=deviations,
        clients=2 * half,
        withheld=tuple(metric for metric in every if metric not in bounds),
        privacy=guarantee,
    )


def _assumptions(facts: Mapping[str, Any]) -> list[str]:
    """Say what this release rests on, in place of what a run's would."""
    released = "Released: the means of metrics and how many clients have tests, both with noise."
    return [
        released if assumption.startswith("Released:") else assumption
        for assumption in facts["assumptions"]
    ]
