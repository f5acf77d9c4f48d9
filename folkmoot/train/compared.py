"""An evaluation: how models do on clients' own tests, how that spreads, and against what."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from folkmoot.core.engine import ClientId
from folkmoot.local.metrics import Metric
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.summary import number, plural

_SPREAD = {
    "all together": "",
    "p10": "_p10",
    "median": "_median",
    "p90": "_p90",
    "worst decile": "_worst_decile",
    "std": "_std",
}


class Gap(NamedTuple):
    """How far models are from a baseline, over clients; NaN where one of them is not finite."""

    mean: float
    """Mean over clients of the value minus the baseline's, in the metric's unit."""
    better: float
    """Share of clients whose value is better than the baseline's, in [0, 1]."""
    worse: float
    """Share of clients whose value is worse; the rest is level."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Evaluation:
    """How models do on clients' own tests. `print` it; `table()` has a row a client."""

    name: str
    """What the run is called."""
    personal: bool
    """Whether each client's own model was judged, or the global one."""
    metric: str
    """The metric by which models are compared first."""
    clients: dict[ClientId, ClientResult]
    """Each client's metrics on its own tests."""
    metrics: dict[str, float]
    """Over clients, named as in a run's history: "clients_accuracy", "..._p10", "..._std"."""
    baselines: dict[str, dict[ClientId, ClientResult]]
    """What "local" and "global" training give the same clients; empty where nobody asked."""
    gaps: dict[str, dict[str, Gap]]
    """By baseline and metric: `gaps["local"]["accuracy"].mean`."""

    def table(self) -> list[dict[str, Any]]:
        """Return a dict a client: id, examples, its metrics, and those of each baseline."""
        return [
            {"id": client, "examples": found.examples, **found.metrics}
            | {
                f"{metric}_{against}": value
                for against, theirs in self.baselines.items()
                for metric, value in theirs[client].metrics.items()
            }
            for client, found in self.clients.items()
        ]

    def __str__(self) -> str:
        whose = "its own model" if self.personal else "the global model"
        names = sorted(next(iter(self.clients.values())).metrics, key=lambda m: m != self.metric)
        rows = [["clients' own tests", *_SPREAD]]
        for name in names:
            values = (self.metrics[f"clients_{name}{end}"] for end in _SPREAD.values())
            rows.append([name, *map(number, values)])
        parts = [f"{self.name}\n{plural(len(self.clients), 'client')}, each with {whose}"]
        parts.append(_aligned(rows))
        for against, gaps in self.gaps.items():
            head = [f"against {against} only", "mean gap", "better off", "worse off"]
            told = [
                [name, _signed(gap.mean), _percent(gap.better), _percent(gap.worse)]
                for name, gap in gaps.items()
            ]
            parts.append(_aligned([head, *told]))
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        value = number(self.metrics[f"clients_{self.metric}"])
        clients = plural(len(self.clients), "client")
        return f"Evaluation({self.name!r}, {clients}, {self.metric} {value})"


def gap(
    mine: Mapping[ClientId, ClientResult], theirs: Mapping[ClientId, ClientResult], metric: Metric
) -> Gap:
    """Compare clients one by one; those without a value on either side are left out."""
    value, other = _values(mine, metric), _values(theirs, metric)
    if _broken(mine, metric) or _broken(theirs, metric) or np.isnan(value - other).all():
        return Gap(math.nan, math.nan, math.nan)
    difference = (value - other)[~np.isnan(value - other)]
    gain = difference if metric.better == "higher" else -difference
    return Gap(float(difference.mean()), float((gain > 0).mean()), float((gain < 0).mean()))


def _values(results: Mapping[ClientId, ClientResult], metric: Metric) -> np.ndarray:
    return np.array([result.metrics[metric.name] for result in results.values()])


def _broken(results: Mapping[ClientId, ClientResult], metric: Metric) -> bool:
    """Tell whether a model's outputs were not finite; a client may also just have no value."""
    return any(bool(result.sums[metric.name].isnan().any()) for result in results.values())


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Write cells in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def _percent(share: float) -> str:
    return "NaN" if math.isnan(share) else f"{100 * share:.0f} %"
