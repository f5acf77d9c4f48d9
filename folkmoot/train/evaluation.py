"""Judging the global model: on the researcher's held-out set, and on each client's own tests.

Both are tasks for the engine, so they run where clients run. Sums are added over shards and
clients, so a value over clients is that of their pooled rows; quantiles need single clients'
values, which only a simulation may see.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from folkmoot.aggregators import total
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, LocalWork, Task
from folkmoot.core.engine import ClientId, Cohort, Engine, LeftOut, Setting
from folkmoot.core.errors import SettingsError, did_you_mean
from folkmoot.core.tree import Tree
from folkmoot.data.examples import count
from folkmoot.engines.tasks import example
from folkmoot.local.composed import own_of
from folkmoot.local.evaluate import evaluate, finished
from folkmoot.local.metrics import Metric
from folkmoot.local.parts import model_in
from folkmoot.train.loop import Snapshot
from folkmoot.train.stopping import Best

MOST_CLIENTS = 1_000
"""Clients whose own tests an evaluation runs; of more, this many are sampled, once for a run."""
_SHARD_ROWS = 500
_ADD = total()


@dataclass(frozen=True)
class ClientResult:
    """How the global model, or the client's own, does on one client's test examples."""

    id: ClientId
    examples: int
    """What its metrics are means over: its test examples, or a language model's tokens."""
    metrics: dict[str, float]
    sums: Tree = field(default_factory=dict, compare=False, repr=False)
    """What the metrics were made from; NaN where they are not finite."""
    make: Callable[[], nn.Module] | None = field(default=None, compare=False, repr=False)
    """Builds the client's model."""
    leaves: Callable[[], dict[str, Tensor]] | None = field(default=None, compare=False, repr=False)
    """Reads those leaves of its model's state dict that the global model has otherwise."""

    @property
    def model(self) -> nn.Module:
        """This client's model, an ordinary module: its own where it has one, else the global one.

        Raises:
            SettingsError: If the result was loaded without the model's class.
        """
        if self.make is None:
            raise SettingsError(
                f"The model of client {self.id!r} is not there, because the result was loaded "
                "without the model's class. Pass an instance: load_result(folder, model=...)."
            )
        return self.make()


def shards(test: Tree | None, objective: Any) -> list[Tree]:
    """Cut a held-out set into pieces, evaluated side by side and summed in their order."""
    if test is None:
        return []
    rows = count(test)
    size = rows if any(metric.whole for metric in objective.metrics) else _SHARD_ROWS
    # The last piece takes one row more: a row alone has no batch statistics.
    begins = range(0, max(1, rows - 1), size)
    return [
        trees.map(lambda leaf, begin=begin, end=end: leaf[begin:end], test)
        for begin, end in itertools.pairwise([*begins, rows])
    ]


def model_of_client(
    work: LocalWork, state: Tree, own: Mapping[ClientId, Tree], client: ClientId
) -> Tree:
    """Return a client's own model, the one it would begin with, or else the global one.

    Args:
        work: What clients do; it knows whether they have models of their own.
        state: The algorithm's.
        own: Private states of the clients that have one.
        client: Anyone, also who was never asked.
    """
    if work.model is None:
        return model_in(state)
    kept = own.get(client)
    return work.model(state, own_of(work, state) if kept is None else kept)


def on_held_out(
    work: LocalWork, state: Tree, engine: Engine, num_shards: int, round: int
) -> dict[str, float]:
    """Return each metric on the held-out set, exact, by sums over rows; NaN if not finite."""
    task = Task(model_in(state), work, _ADD)
    cohort = Cohort(round, tuple(range(num_shards)), num_shards, num_shards, "held_out")
    ready = task.aggregator.init(example(task), num_shards)
    collected = engine.ask(task, ready, cohort, {})
    if collected.left_out:
        # The other pieces alone would look better than the whole set.
        return {metric.name: math.nan for metric in work.objective.metrics}  # type: ignore[attr-defined]
    return finished(work.objective, collected.total.value)


def on_clients(
    work: LocalWork,
    state: Tree,
    engine: Engine,
    clients: Sequence[ClientId],
    round: int,
    own: Mapping[ClientId, Tree] = MappingProxyType({}),
) -> dict[ClientId, ClientResult]:
    """Return each client's metrics on its own test examples; clients without any are left out.

    Args:
        work: From `evaluate`; with `of=` each client's own model is measured.
        state: The algorithm's.
        engine: Where clients run.
        clients: Whose tests.
        round: After which they are judged.
        own: Private states of the clients that have one.
    """
    # What makes a client's own model of it, the work knows.
    task = Task(state if work.model else model_in(state), work, _ADD)
    cohort = Cohort(round, tuple(clients), len(clients), len(clients), "test")
    results = {}
    for client, found in engine.stream(task, cohort, own):
        if not isinstance(found, LeftOut):
            examples = int(found.value["loss"][1])
            values = finished(work.objective, found.value)
            results[client] = ClientResult(client, examples, values, found.value)
        elif "NaN" in found.reason:
            sums = trees.map(lambda leaf: torch.full_like(leaf, math.nan), example(task).value)
            results[client] = ClientResult(client, 0, dict.fromkeys(sums, math.nan), sums)
    return results


class Judge:
    """Evaluates the global model of one run, always on the same examples and clients."""

    def __init__(
        self, algorithm: Algorithm, setting: Setting, metric: str | None, client_tests: bool
    ) -> None:
        trained = algorithm.works[0]
        self.work = evaluate(algorithm.objective)
        self.own_work = evaluate(algorithm.objective, of=trained)
        self.metrics = algorithm.objective.metrics
        self.better = {m.name: m.better for m in self.metrics}
        # A model with personal leaves is nobody's: there is nothing to put to a common test.
        self.num_shards = 0 if trained.personal else len(setting.held_out)
        self.judged = chosen_clients(setting.clients, setting.seed) if client_tests else []
        if metric is not None and not self.num_shards and not self.judged:
            held_out = "" if trained.personal else "held-out examples (test=), or "
            raise SettingsError(
                f"best={metric!r} has nothing to judge models by. Give {held_out}clients with "
                "tests of their own."
            )
        self.best = self._first_best(metric)

    def _first_best(self, metric: str | None) -> Best:
        """Choose the column by which models are compared: of the held-out set or clients' tests."""
        if metric is None:
            metric = "accuracy" if "accuracy" in self.better else next(iter(self.better))
        if not isinstance(metric, str) or metric not in self.better:
            near = did_you_mean(str(metric), self.better)
            raise SettingsError(f"best={metric!r} is no metric of the objective.{near}")
        part = "test" if self.num_shards else "clients"
        return Best(f"{part}_{metric}", self.better[metric])

    def __call__(
        self, snapshot: Snapshot, engine: Engine
    ) -> tuple[dict[str, Any], dict[ClientId, ClientResult]]:
        """Return a round's evaluation as columns of its row, and each judged client's results."""
        row: dict[str, Any] = {"evaluated": True}
        if self.num_shards:
            state, round = snapshot.state, snapshot.round
            values = on_held_out(self.work, state, engine, self.num_shards, round)
            row |= {f"test_{name}": value for name, value in values.items()}
        judged = self.clients(snapshot, engine)
        return row | spread(judged, self.metrics), judged

    def clients(self, snapshot: Snapshot, engine: Engine) -> dict[ClientId, ClientResult]:
        """Return results on each judged client's own test examples, of its own model if it has."""
        if not self.judged:
            return {}
        state, round, own = snapshot.state, snapshot.round, snapshot.own
        return on_clients(self.own_work, state, engine, self.judged, round, own)


def chosen_clients(clients: Mapping[ClientId, Any], seed: int) -> list[ClientId]:
    """Return whose tests are run: everyone's, or a fixed sample of a large population."""
    ids = list(clients) if len(clients) <= MOST_CLIENTS else None
    if ids is not None:
        return ids
    order = getattr(clients, "ids", None) or list(clients)
    generator = rng.generator(rng.derive(seed, purpose="evaluated clients"))
    return sorted(
        order[place] for place in generator.choice(len(order), MOST_CLIENTS, replace=False).tolist()
    )


def spread(results: Mapping[ClientId, ClientResult], metrics: Sequence[Metric]) -> dict[str, float]:
    """Summarise clients: value over all rows; over clients quantiles, worst tenth and deviation.

    A client without a value, such as F1 where no row is positive, counts in the first alone; one
    that is not finite makes all of them NaN. The deviation is the root of the mean squared distance
    from the clients' mean, each counting once: how unfair a model is (arXiv:1905.10497, section 4).
    There is no gap of best and worst, which grows with the number of clients, and no index such as
    Jain's, which says another thing of an error than of an accuracy.

    Args:
        results: Each client's metrics and sums.
        metrics: The objective's.
    """
    row: dict[str, float] = {}
    for metric in metrics if results else ():
        name = f"clients_{metric.name}"
        sums = torch.stack([result.sums[metric.name] for result in results.values()])
        each = np.array([result.metrics[metric.name] for result in results.values()])
        broken = sums.isnan().any(dim=1).numpy()
        values = np.sort(each[~np.isnan(each)])
        if broken.any() or not len(values):
            values = np.array([math.nan])
        worst = values if metric.better == "higher" else values[::-1]
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        row[name] = math.nan if broken.any() else metric.finish(sums.sum(dim=0))
        row[f"{name}_p10"] = float(low)
        row[f"{name}_median"] = float(middle)
        row[f"{name}_p90"] = float(high)
        row[f"{name}_worst_decile"] = float(worst[: max(1, len(worst) // 10)].mean())
        row[f"{name}_std"] = float(values.std())
    return row
