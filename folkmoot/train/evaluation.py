"""Judging the global model: on the researcher's held-out set, and on each client's own test
examples.

Both are tasks for the engine, so they run where clients run. Sums are added over shards and
clients; quantiles need single clients' values, which only a simulation may see.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from folkmoot.aggregators import total
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, LocalWork, Task
from folkmoot.core.engine import ClientId, Cohort, Engine, LeftOut, Setting
from folkmoot.core.errors import SettingsError, did_you_mean
from folkmoot.core.tree import Tree
from folkmoot.engines.stream import example
from folkmoot.local.evaluate import evaluate, finished
from folkmoot.train.stopping import Best

MOST_CLIENTS = 1_000
"""Clients whose own tests are run at each evaluation; more are sampled down to these, once for a
run."""
_SHARD_ROWS = 500
_ADD = total()


class ClientResult(NamedTuple):
    """How the global model does on one client's test examples."""

    id: ClientId
    examples: int
    metrics: dict[str, float]


def shards(test: Tree | None, objective: Any) -> list[Tree]:
    """Cut a held-out set into pieces that are evaluated side by side; their order is the order of
    the sum."""
    if test is None:
        return []
    rows = len(trees.leaves(test)[0])
    size = rows if any(metric.whole for metric in objective.metrics) else _SHARD_ROWS
    return [
        trees.map(lambda leaf, begin=begin: leaf[begin : begin + size], test)
        for begin in range(0, rows, size)
    ]


def model_of(state: Tree) -> Tree:
    """Return the part of an algorithm's state that is the model."""
    return {name: state[name] for name in ("params", "buffers", "counts")}


def on_held_out(
    work: LocalWork, state: Tree, engine: Engine, num_shards: int, round: int
) -> dict[str, float]:
    """Return each metric on the held-out set, exact: sums over all rows."""
    task = Task(model_of(state), work, _ADD)
    cohort = Cohort(round, tuple(range(num_shards)), num_shards, num_shards, "held_out")
    ready = task.aggregator.init(example(task), num_shards)
    collected = engine.ask(task, ready, cohort, {})
    return finished(work.objective, collected.total.value)


def on_clients(
    work: LocalWork, state: Tree, engine: Engine, clients: Sequence[ClientId], round: int
) -> dict[ClientId, ClientResult]:
    """Return each client's metrics on its own test examples; clients without any are left out."""
    task = Task(model_of(state), work, _ADD)
    cohort = Cohort(round, tuple(clients), len(clients), len(clients), "test")
    results = {}
    for client, found in engine.stream(task, cohort, {}):
        if not isinstance(found, LeftOut):
            examples = int(found.value["loss"][1])
            results[client] = ClientResult(client, examples, finished(work.objective, found.value))
    return results


class Judge:
    """Evaluates the global model of one run, always on the same examples and clients."""

    def __init__(
        self, algorithm: Algorithm, setting: Setting, metric: str | None, client_tests: bool
    ) -> None:
        self.work = evaluate(algorithm.objective)
        self.better = {m.name: m.better for m in algorithm.objective.metrics}
        self.num_shards = len(setting.held_out)
        self.judged = chosen_clients(setting.clients, setting.seed) if client_tests else []
        self.best = self._first_best(metric)

    def _first_best(self, metric: str | None) -> Best:
        """Choose the column by which models are compared: on the held-out set, or over clients'
        tests."""
        if metric is None:
            metric = "accuracy" if "accuracy" in self.better else next(iter(self.better))
        if metric not in self.better:
            raise SettingsError(
                f"best={metric!r} is no metric of the objective.{did_you_mean(metric, self.better)}"
            )
        part = "test" if self.num_shards else "clients"
        return Best(f"{part}_{metric}", self.better[metric])

    def __call__(self, state: Tree, engine: Engine, round: int) -> dict[str, Any]:
        """Return a round's evaluation as columns of its row."""
        row: dict[str, Any] = {"evaluated": True}
        if self.num_shards:
            values = on_held_out(self.work, state, engine, self.num_shards, round)
            row |= {f"test_{name}": value for name, value in values.items()}
        return row | spread(self.clients(state, engine, round), self.better)

    def clients(self, state: Tree, engine: Engine, round: int) -> dict[ClientId, ClientResult]:
        """Return the model's results on each judged client's own test examples."""
        return on_clients(self.work, state, engine, self.judged, round) if self.judged else {}


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


def spread(results: Mapping[ClientId, ClientResult], better: Mapping[str, str]) -> dict[str, float]:
    """Summarise clients' values: mean by examples, quantiles over clients, mean of the worst tenth.

    Args:
        results: Each client's metrics.
        better: For each metric, "higher" or "lower": which end is the worst.
    """
    row: dict[str, float] = {}
    if not results:
        return row
    sizes = np.array([result.examples for result in results.values()], dtype=np.float64)
    for name in next(iter(results.values())).metrics:
        values = np.array([result.metrics[name] for result in results.values()])
        worst = np.sort(values) if better.get(name) == "higher" else -np.sort(-values)
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        row[f"clients_{name}"] = float((values * sizes).sum() / sizes.sum())
        row[f"clients_{name}_p10"] = float(low)
        row[f"clients_{name}_median"] = float(middle)
        row[f"clients_{name}_p90"] = float(high)
        row[f"clients_{name}_worst_decile"] = float(worst[: max(1, len(worst) // 10)].mean())
    return row
