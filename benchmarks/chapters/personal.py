"""Personal models: what each client gets on its own tests, on hapt (people) and fsdd (speakers)."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import folkmoot as fm
from chapters.flamby import fold, pooled
from chapters.jobs import CORES, deviation, mean, or_none, over, run, table
from chapters.networks import OfPeople, OfSpeakers
from chapters.pictures import PICTURES, strips

BASE = "FedAvg, fine-tuned"
TUNED = (1, 5, 10)
"""Epochs of fine-tuning among which training data choose."""


class Size(NamedTuple):
    """How much is run."""

    rounds: int
    seeds: Sequence[int] = range(3)
    rates: Sequence[float] = (0.1,)
    most_rows: int | None = None
    """Training rows of a client; None is all."""
    cores: int = CORES


class Bench(NamedTuple):
    """A set, its model and how it is told."""

    number: str
    name: str
    what: str
    model: Callable[[], nn.Module]
    size: Size


class Entry(NamedTuple):
    """One row of the table."""

    name: str
    own: str
    """Parameters of its own, in words."""
    build: Callable[[Callable[[float], fm.LocalWork], float], fm.Algorithm]
    """`build(local, lr)`: `local(lr)` gives the local work."""
    personal: str | None = None


ENTRIES = (
    Entry("local only", "", lambda local, lr: fm.fedavg(local(lr)), "*"),
    Entry("FedAvg", "", lambda local, lr: fm.fedavg(local(lr))),
    Entry("FedPer", "head", lambda local, lr: fm.fedper(local(lr), personal="head.*")),
    Entry(
        "FedRep",
        "head, 5 epochs",
        lambda local, lr: fm.fedrep(local(lr), personal="head.*", head=5),
    ),
    Entry("LG-FedAvg", "body", lambda local, lr: fm.lg_fedavg(local(lr), shared="head.*")),
    Entry("FedBN", "BatchNorm", lambda local, lr: fm.fedbn(local(lr))),
    Entry("Ditto", "lambda 1", lambda local, lr: fm.ditto(local(lr), lam=1.0)),
    Entry(
        "pFedMe",
        "lambda 15, K 5",
        lambda local, lr: fm.pfedme(local(min(lr, 1 / 15)), lam=15.0, lr=1 / 15, inner_steps=5),
    ),
    Entry(
        "APFL", "alpha 0.5, adapts", lambda local, lr: fm.apfl(local(lr), alpha=0.5, alpha_lr=lr)
    ),
    Entry("IFCA", "2 clusters", lambda local, lr: fm.ifca(local(lr), clusters=2)),
)


HAPT = Bench(
    "2.3",
    "hapt",
    "What 30 people were doing, six activities, from the phone at their waist: 4,402 training "
    "windows, about 147 each; a person's tests are the last fifth, in time, of each activity. A "
    "convolutional network over time with BatchNorm.",
    OfPeople,
    Size(30, rates=(0.01, 0.03, 0.1)),
)
FSDD = Bench(
    "2.4",
    "fsdd",
    "Ten spoken digits of six speakers, 450 training recordings and 50 tests each, as log-mel "
    "pictures. A convolutional network with BatchNorm.",
    OfSpeakers,
    Size(30, rates=(0.03, 0.1, 0.3)),
)
QUICK = Size(2, (0,), (0.03,), 24, 1)


def section(bench: Bench, size: Size | None = None, pictures: Path = PICTURES) -> str:
    """Return the section of one set, and draw its picture."""
    size = size or bench.size
    clients = _cut(fm.data.load(bench.name)[0], size.most_rows)
    rate, epochs, told = _chosen(bench, size, clients)

    def job(entry: Entry, seed: int) -> dict[str, list[float]] | None:
        return or_none(lambda: _found(entry, bench, size, clients, rate, epochs, seed))

    found: dict[str, list[list[float] | None]] = {}
    for entry, runs in zip(ENTRIES, over(ENTRIES, size.seeds, job, size.cores), strict=True):
        found[entry.name] = [one and one[entry.name] for one in runs]
        if entry.name == "FedAvg":
            found[BASE] = [one and one[BASE] for one in runs]
    own = {entry.name: entry.own for entry in ENTRIES} | {BASE: f"{epochs} epochs"}
    rows = [_row(name, own[name], runs, found[BASE]) for name, runs in found.items()]
    picture = f"results-{bench.name}.png"
    whole = {name: runs for name, runs in found.items() if all(runs)}
    dots = {name: np.mean(np.array(runs), axis=0).tolist() for name, runs in whole.items()}
    strips(pictures / picture, "accuracy on a client's own tests, mean over seeds", dots, BASE)
    return _text(bench, size, rate, told, rows, picture)


def _cut(clients: Any, rows: int | None) -> Any:
    if rows is None:
        return clients
    some = {
        client: tuple(
            {name: leaf[:rows] for name, leaf in part.items()}
            for part in (clients[client].train, clients[client].test)
        )
        for client in clients
    }
    return _joined(some)


def _joined(parts: dict[Any, tuple[fm.Tree, fm.Tree]]) -> Any:
    """Make clients of each one's train and test rows."""
    trees = [tree for pair in parts.values() for tree in pair]
    lengths = [[len(tree["y"]) for tree in pair] for pair in parts.values()]
    ids = [i for i, pair in zip(parts, lengths, strict=True) for _ in range(sum(pair))]
    split = [part for pair in lengths for part in (0, 1) for _ in range(pair[part])]
    return fm.data.from_arrays(pooled(trees), ids, split=np.array(split))


def _validation(clients: Any) -> Any:
    """Give each client a fifth of its own training rows as tests."""
    parts = {}
    for client in clients:
        rest, held = fold(clients.subset([client]), 0, lambda rows: rows["y"])
        parts[client] = (rest[client].train, held)
    return _joined(parts)


def _chosen(bench: Bench, size: Size, clients: Any) -> tuple[float, int, str]:
    """Choose the rate and the epochs that serve the baseline best, on held-out training rows."""
    held = _validation(clients)

    def job(rate: float, seed: int) -> list[float]:
        result = _run(ENTRIES[1], bench, size, held, rate, seed)
        tuned = [_tuned(result, bench, held, rate, epochs) for epochs in TUNED]
        return [mean(_accuracies(one)) for one in (result, *tuned)]

    scores = [values for [values] in over(size.rates, [0], job, size.cores)]
    pairs = [(place, after) for place in range(len(scores)) for after in range(len(TUNED))]
    best, after = max(pairs, key=lambda pair: scores[pair[0]][1 + pair[1]])
    told = "; ".join(
        f"{rate:g}: {values[0]:.3f}, {', '.join(f'{value:.3f}' for value in values[1:])}"
        for rate, values in zip(size.rates, scores, strict=True)
    )
    return size.rates[best], TUNED[after], told


def _work(bench: Bench, rate: float, epochs: int, seed: int) -> fm.LocalWork:
    torch.manual_seed(seed)
    return fm.local.sgd(fm.classifier(bench.model()), lr=rate, epochs=epochs, batch_size=20)


def _run(entry: Entry, bench: Bench, size: Size, clients: Any, rate: float, seed: int) -> fm.Result:
    return run(
        entry.build(lambda lr: _work(bench, lr, 1, seed), rate),
        clients,
        rounds=size.rounds,
        personal=entry.personal,
        seed=seed,
        evaluate_every=size.rounds,
    )


def _tuned(result: fm.Result, bench: Bench, clients: Any, rate: float, epochs: int) -> fm.Result:
    work = _work(bench, rate, epochs, 0)
    return fm.finetune(result, clients, work, workers=1, progress=False)


def _found(
    entry: Entry, bench: Bench, size: Size, clients: Any, rate: float, epochs: int, seed: int
) -> dict[str, list[float]]:
    """Return each client's accuracy; FedAvg's run gives that of its fine-tuned model too."""
    result = _run(entry, bench, size, clients, rate, seed)
    found = {entry.name: _accuracies(result)}
    if entry.name == "FedAvg":
        found[BASE] = _accuracies(_tuned(result, bench, clients, rate, epochs))
    return found


def _accuracies(result: fm.Result) -> list[float]:
    return [client.metrics["accuracy"] for client in result.clients.values()]


def _row(name: str, own: str, runs: Sequence[Any], base: Sequence[Any]) -> list[str]:
    if not all(runs):
        return [name, own, "diverged", *[""] * 5]
    means = [mean(values) for values in runs]
    gaps = [mean(mine) - mean(theirs) for mine, theirs in zip(runs, base, strict=True) if theirs]
    level = "yes" if min(gaps) > 0 else "no" if max(gaps) < 0 else "unclear"
    worst = [mean(sorted(values)[: max(1, len(values) // 10)]) for values in runs]
    return [
        name,
        own,
        f"{mean(means):.3f} ({deviation(means):.3f})",
        f"{mean([float(np.quantile(values, 0.1)) for values in runs]):.3f}",
        f"{mean(worst):.3f}",
        f"{mean([float(np.std(values)) for values in runs]):.3f}",
        "" if name == BASE else f"{mean(gaps):+.3f}",
        "" if name == BASE else level,
    ]


def _text(
    bench: Bench, size: Size, rate: float, told: str, rows: list[list[str]], picture: str
) -> str:
    head = [
        "algorithm",
        "its own",
        "mean over clients",
        "p10",
        "worst decile",
        "std",
        "to FedAvg fine-tuned",
        "beats it",
    ]
    return f"""### {bench.number} {bench.name}: personal models

{bench.what} Everyone takes part in each of {size.rounds} rounds of one local epoch, batches of 20;
{len(size.seeds)} seeds for the first model and the order. One local rate for all, {rate:g}, and the
epochs of fine-tuning were chosen for the baseline, FedAvg with fine-tuning, on a fifth of each
client's training rows (seed 0; by rate, accuracy before it and after {_listed(TUNED)} epochs:
{told}). Parameters of the other algorithms are
values of the papers or near them, and not tuned; pFedMe's own steps are at most 1 / lambda, its
copy of the global model goes all the way to a client's own, and FedRep's head has 5 epochs for the
paper's 10.
Fine-tuning is local work beside the {size.rounds} rounds' own, which the others have not.

{table(head, rows)}

Accuracy of each client's own model on its own tests, every client counting once: mean, with the
deviation over seeds behind; tenth percentile, mean of the worst tenth (at least one client) and
deviation over clients, each a mean over seeds. An algorithm beats FedAvg with fine-tuning if its
mean is above with every seed, and does not if it is below with every seed.

![Accuracy of each client under each algorithm](pictures/{picture})

Beats FedAvg with fine-tuning: {_those(rows, "yes")}. Neither better nor worse with every seed:
{_those(rows, "unclear")}. Does not beat it: {_those(rows, "no")}.
"""


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _those(rows: Sequence[Sequence[str]], verdict: str) -> str:
    return ", ".join(row[0] for row in rows if row[-1] == verdict) or "none"


hapt = functools.partial(section, HAPT)
fsdd = functools.partial(section, FSDD)
