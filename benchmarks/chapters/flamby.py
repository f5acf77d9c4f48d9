"""FLamby's protocol (arXiv:2210.04620): its rows beside ours, and a setting of our own.

FLamby's repository keeps the figures of each of its five seeds, 42 to 46, whose means are the
published table. A seed there draws the first model as `torch.manual_seed` does here, so each of its
runs can be set beside one of ours with the same first model; the order of rows is another one.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

import folkmoot as fm
from chapters.jobs import deviation, mean, over, table

SEEDS = range(10)
"""Ours, which nobody has chosen."""
THEIRS = range(42, 47)
FOLDS = 5


class Entry(NamedTuple):
    """One row of a published table."""

    name: str
    build: Callable[[fm.LocalWork], fm.Algorithm]
    """From local work to the algorithm."""
    lr: float
    """Learning rate of the local steps."""
    published: tuple[float, ...]
    """Figures of seeds 42 to 46 on the pooled test set."""


class Setting(NamedTuple):
    """One point of our own grid."""

    build: Callable[[fm.LocalWork], fm.Algorithm]
    lr: float
    batch_size: int
    weight_decay: float
    name: str = "FedAvg"


class Benchmark(NamedTuple):
    """A set with its protocol."""

    metric: str
    """The column that is compared."""
    tolerance: float
    train: Callable[[Any, Any, int, Any, Any], dict[str, float]]
    """`train(work options, build, seed, clients, test)` -> metrics on `test`."""
    clients: Callable[[], tuple[fm.data.ClientData, fm.Tree]]
    """The published protocol's clients and test set."""
    ours: Callable[[], tuple[fm.data.ClientData, fm.Tree]]
    """Clients and test set of our own setting."""
    stratum: Callable[[fm.Tree], torch.Tensor]
    """Of whose values each fold gets a like share."""
    chosen_by: tuple[str, float]
    """The column that chooses our own setting, and 1 if more of it is better, -1 if less."""
    batch_size: int
    low: float | None
    """The table counts the seeds below it; None counts none."""


def figure(benchmark: Benchmark, entry: Entry, seed: int) -> float:
    """Train by the published protocol and return the metric on the pooled test set."""
    clients, test = benchmark.clients()
    options = {"lr": entry.lr, "batch_size": benchmark.batch_size}
    return benchmark.train(options, entry.build, seed, clients, test)[benchmark.metric]


def published_beside_ours(
    benchmark: Benchmark, entries: Sequence[Entry], seeds: Sequence[int], theirs: Any, cores: int
) -> str:
    """Return the table of the published rows."""

    def job(entry: Entry, seed: int) -> float:
        return figure(benchmark, entry, seed)

    ours = over(entries, seeds, job, cores)
    paired = over(entries, theirs, job, cores)
    rows = []
    for entry, mine, same in zip(entries, ours, paired, strict=True):
        gap = mean(mine) - mean(entry.published)
        below = [_below(values, benchmark.low) for values in (entry.published, same, mine)]
        rows.append(
            [
                entry.name,
                f"{entry.lr:g}",
                _spread(entry.published),
                _spread(same),
                _spread(mine),
                f"{gap:+.3f}",
                "yes" if abs(gap) <= benchmark.tolerance else "no",
                *([", ".join(below)] if benchmark.low else []),
            ]
        )
    head = [
        "algorithm",
        "local rate",
        "published",
        "ours, their first models",
        f"ours, {len(seeds)} seeds",
        "difference",
        f"within {benchmark.tolerance:g}",
        *([f"seeds below {benchmark.low:g}"] if benchmark.low else []),
    ]
    return table(head, rows)


def _below(values: Sequence[float], low: float | None) -> str:
    return f"{sum(value < (low or 0.0) for value in values)} of {len(values)}"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({deviation(values):.3f})"


def fold(
    clients: Any, number: int, stratum: Callable[[fm.Tree], torch.Tensor]
) -> tuple[Any, fm.Tree]:
    """Hold out one fifth of each client's train rows, a like share of every stratum.

    Returns:
        Clients with the other rows, and the pooled rows that are held out.
    """
    kept, held, ids = [], [], []
    for place, client in enumerate(clients):
        rows = clients[client].train
        values = stratum(rows)
        shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(place))
        order = shuffled[values[shuffled].argsort(stable=True)]
        out = torch.zeros(len(values), dtype=torch.bool)
        out[order[number::FOLDS]] = True
        kept.append({name: leaf[~out] for name, leaf in rows.items()})
        held.append({name: leaf[out] for name, leaf in rows.items()})
        ids += [client] * int((~out).sum())
    return fm.data.from_arrays(pooled(kept), ids), pooled(held)


def pooled(parts: Sequence[fm.Tree]) -> fm.Tree:
    """Put the rows of several trees behind each other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def our_own(
    benchmark: Benchmark, grid: Sequence[Setting], folds: Sequence[int], seeds: Any, cores: int
) -> str:
    """Choose a setting by cross-validation on training data, and say what it gives on the test."""
    clients, test = benchmark.ours()
    parts = [fold(clients, number, benchmark.stratum) for number in folds]
    column, sign = benchmark.chosen_by

    def validated(setting: Setting, place: int) -> float:
        return trained(setting, 0, *parts[place])[column]

    def trained(setting: Setting, seed: int, some: Any, held: fm.Tree) -> dict[str, float]:
        options = {
            "lr": setting.lr,
            "batch_size": setting.batch_size,
            "weight_decay": setting.weight_decay,
        }
        return benchmark.train(options, setting.build, seed, some, held)

    scores = [mean(values) for values in over(grid, range(len(parts)), validated, cores)]
    best = max(range(len(grid)), key=lambda place: sign * scores[place])
    chosen = grid[best]
    [found] = over(
        [chosen],
        seeds,
        lambda one, seed: trained(one, seed, clients, test)[benchmark.metric],
        cores,
    )
    return (
        f"{FOLDS}-fold cross-validation, a fifth of each client's training rows held out, chose "
        f"among {len(grid)} settings {chosen.name} with local rate {chosen.lr:g}, batches of "
        f"{chosen.batch_size} and weight decay {chosen.weight_decay:g} "
        f"({column.removeprefix('test_').replace('_', '-')} {scores[best]:.3f} on held-out rows; "
        f"the worst setting {min(scores, key=lambda score: sign * score):.3f}). On the test set "
        f"it has **{mean(found):.3f}** (deviation {deviation(found):.3f} over {len(seeds)} seeds)."
    )


def product(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return every combination."""
    return list(itertools.product(*axes))
