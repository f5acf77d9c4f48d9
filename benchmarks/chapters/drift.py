"""Label skew: algorithms against client drift on digits dealt out by Dirichlet(0.1)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn

import folkmoot as fm
from chapters.flamby import pooled
from chapters.jobs import CORES, deviation, mean, or_none, over, run, side_by_side, table
from chapters.pictures import PICTURES, small_multiples
from folkmoot.local.module import ModuleObjective

TARGET = 0.9
LATE = 20
"""Rounds at the end over which the accuracy is averaged too."""


class Size(NamedTuple):
    """How much is run."""

    clients: int = 100
    cohort: int = 10
    rounds: int = 60
    seeds: Sequence[int] = range(3)
    rates: Sequence[float] = (0.01, 0.03, 0.1, 0.3)
    rows: int | None = None
    """Training digits that are dealt out; None is all."""
    evaluate_every: int = 2
    cores: int = CORES


FULL = Size()
QUICK = Size(8, 3, 3, (0,), (0.1,), 600, 1, 1)


class Entry(NamedTuple):
    """One row of the table."""

    name: str
    own: str
    """Parameters of its own, in words."""
    build: Callable[[Any, float], fm.Algorithm]
    """`build(local, lr)`: `local(lr, momentum=0.0)` gives the local work."""


ENTRIES = (
    Entry("FedAvg", "", lambda local, lr: fm.fedavg(local(lr))),
    Entry("FedAvgM", "momentum 0.9", lambda local, lr: fm.fedavgm(local(lr), momentum=0.9)),
    Entry("FedAdagrad", "server 0.1", lambda local, lr: fm.fedadagrad(local(lr), lr=0.1)),
    Entry("FedAdam", "server 0.01", lambda local, lr: fm.fedadam(local(lr), lr=0.01)),
    Entry("FedYogi", "server 0.01", lambda local, lr: fm.fedyogi(local(lr), lr=0.01)),
    Entry("FedProx", "mu 1", lambda local, lr: fm.fedprox(local(lr), mu=1.0)),
    Entry("SCAFFOLD I", "", lambda local, lr: fm.scaffold(local(lr), option=1)),
    Entry("SCAFFOLD II", "", lambda local, lr: fm.scaffold(local(lr), option=2)),
    Entry("FedNova", "", lambda local, lr: fm.fednova(local(lr))),
    Entry("FedDyn", "alpha 0.1", lambda local, lr: fm.feddyn(local(lr), alpha=0.1)),
    Entry("FedExp", "eps 0.001", lambda local, lr: fm.fedexp(local(lr))),
    Entry("Mime", "momentum 0.9", lambda local, lr: fm.mime(local(0.1 * lr, momentum=0.9))),
    Entry("MimeLite", "momentum 0.9", lambda local, lr: fm.mimelite(local(0.1 * lr, momentum=0.9))),
    Entry("MOON", "mu 1, 0.5", lambda local, lr: fm.moon(local(lr), features="2", mu=1.0)),
    Entry("FedSAM", "rho 0.05", lambda local, lr: fm.fedsam(local(lr), rho=0.05)),
    Entry("q-FedAvg", "q 1", lambda local, lr: fm.qfedavg(local(lr), q=1.0)),
    Entry("agnostic", "rate 0.1", lambda local, lr: fm.agnostic(local(lr), lambda_lr=0.1)),
)


class Found(NamedTuple):
    """What one run gives."""

    rounds: list[int]
    accuracy: list[float]
    """On the pooled test set, in the rounds that were evaluated."""
    worst: float
    """Mean accuracy of the worst tenth of the clients, after the last round."""
    upload_mb: float
    """A round, of the whole cohort."""


def section(size: Size = FULL, pictures: Path = PICTURES) -> str:
    """Return the section, and draw its picture."""
    writers, test = fm.data.load("mnist_writers")
    digits = pooled([writers[writer].train for writer in writers])
    unused = pooled([writers[writer].test for writer in writers])
    if size.rows is not None:
        digits, unused, test = (
            {name: leaf[: size.rows] for name, leaf in part.items()}
            for part in (digits, unused, test)
        )
    least = 20 if size.rows is None else 5
    dealt = fm.data.partition.dirichlet(digits, size.clients, alpha=0.1, min_per_client=least)
    clients = dealt.clients(digits, test_fraction=0.2)
    rate, scores = _chosen(size, clients, unused)

    def job(entry: Entry, seed: int) -> Found | None:
        return or_none(lambda: _found(entry, size, clients, test, rate, seed))

    found = over(ENTRIES, size.seeds, job, size.cores)
    costs = side_by_side(
        [lambda entry=entry: _costs(entry, size, clients, rate) for entry in ENTRIES], size.cores
    )
    rows = [_row(*row, size) for row in zip(ENTRIES, found, costs, strict=True)]
    curves = {
        entry.name: [(one.rounds, one.accuracy) for one in runs if one]
        for entry, runs in zip(ENTRIES, found, strict=True)
    }
    small_multiples(pictures / "results-drift.png", "accuracy on the test set", "FedAvg", curves)
    return _text(size, dealt, rate, scores, rows, _verdict(found))


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def _algorithm(entry: Entry, rate: float, seed: int) -> fm.Algorithm:
    objective = fm.classifier(_network(seed))

    def local(lr: float, momentum: float = 0.0) -> fm.LocalWork:
        return fm.local.sgd(objective, lr=lr, epochs=2, batch_size=32, momentum=momentum)

    return entry.build(local, rate)


def _chosen(size: Size, clients: Any, unused: fm.Tree) -> tuple[float, list[float]]:
    """Choose FedAvg's local rate on digits that are neither trained on nor tested on."""

    def job(rate: float, seed: int) -> float:
        found = or_none(lambda: _found(ENTRIES[0], size, clients, unused, rate, seed))
        return _late(found) if found else 0.0

    scores = [value for [value] in over(size.rates, [0], job, size.cores)]
    return max(zip(scores, size.rates, strict=True))[1], scores


def _found(entry: Entry, size: Size, clients: Any, test: fm.Tree, rate: float, seed: int) -> Found:
    result = run(
        _algorithm(entry, rate, seed),
        clients,
        rounds=size.rounds,
        cohort=size.cohort,
        test=test,
        seed=seed,
        evaluate_every=size.evaluate_every,
    )
    judged = [row for row in result.history if row["evaluated"]]
    return Found(
        [row["round"] for row in judged],
        [row["test_accuracy"] for row in judged],
        result.metrics["clients_accuracy_worst_decile"],
        result.traffic.upload_bytes / size.rounds / 1e6,
    )


def _costs(entry: Entry, size: Size, clients: Any, rate: float) -> tuple[int, int]:
    """Count the gradients and the forward passes of the first round's clients."""
    counted = {"gradients": 0, "passes": 0}

    def counting(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[what] += 1
            return function(*args, **kwargs)

        return call

    def begin(event: Any) -> None:
        if event.kind == "start":  # Before it one client is tried.
            counted.update(gradients=0, passes=0)

    with (
        mock.patch.object(ModuleObjective, "grad", counting("gradients", ModuleObjective.grad)),
        mock.patch.object(nn.Sequential, "forward", counting("passes", nn.Sequential.forward)),
    ):
        run(
            _algorithm(entry, rate, 0),
            clients,
            rounds=1,
            cohort=size.cohort,
            client_tests=False,
            callbacks=[begin],
        )
    return counted["gradients"], counted["passes"]


def _late(found: Found) -> float:
    """Return the mean accuracy of the last rounds, which jumps less than that of the last one."""
    first = found.rounds[-1] - LATE
    pairs = zip(found.rounds, found.accuracy, strict=True)
    return mean([value for round, value in pairs if round > first])


def _row(
    entry: Entry, runs: Sequence[Found | None], costs: tuple[int, int], size: Size
) -> list[str]:
    finite = [one for one in runs if one]
    spent = [f"{cost:,}" for cost in costs]
    if len(finite) < len(runs):
        lost = f"diverged in {len(runs) - len(finite)} of {len(runs)}"
        return [entry.name, entry.own, lost, "", "", "", "", *spent]
    last, late = [one.accuracy[-1] for one in finite], [_late(one) for one in finite]
    return [
        entry.name,
        entry.own,
        f"{mean(last):.3f} ({deviation(last):.3f})",
        f"{mean(late):.3f} ({deviation(late):.3f})",
        _rounds_to_target(finite),
        f"{mean([one.worst for one in finite]):.3f}",
        f"{finite[0].upload_mb:.2f}",
        *spent,
    ]


def _rounds_to_target(runs: Sequence[Found]) -> str:
    """Return the mean number of rounds after which the target is first reached."""
    needed = []
    for one in runs:
        reached = zip(one.rounds, one.accuracy, strict=True)
        needed += [next((round for round, value in reached if value >= TARGET), None)]
    there = [rounds for rounds in needed if rounds is not None]
    if not there:
        return "never"
    some = "" if len(there) == len(runs) else f" ({len(there)} of {len(runs)})"
    return f"{mean(there):.0f}{some}"


def _verdict(found: Sequence[Sequence[Found | None]]) -> str:
    """Say which algorithms are above or below FedAvg with every seed, by the last rounds."""
    base = [_late(one) for one in found[0] if one]
    above, below, between = [], [], []
    for entry, runs in zip(ENTRIES[1:], found[1:], strict=True):
        pairs = zip(runs, base, strict=True)
        gaps = [_late(one) - value if one else -1.0 for one, value in pairs]
        group = above if min(gaps) > 0 else below if max(gaps) < 0 else between
        group.append(f"{entry.name} ({mean(gaps):+.3f})")
    return (
        f"Against FedAvg, by the last {LATE} rounds with the same seed. Better with every seed: "
        f"{', '.join(above) or 'none'}. Worse with every seed: {', '.join(below) or 'none'}. "
        f"Neither: {', '.join(between) or 'none'}."
    )


def _text(
    size: Size,
    dealt: fm.data.Partition,
    rate: float,
    scores: list[float],
    rows: list[list[str]],
    verdict: str,
) -> str:
    sizes = dealt.sizes()
    grid = ", ".join(f"{lr:g} ({score:.3f})" for lr, score in zip(size.rates, scores, strict=True))
    head = [
        "algorithm",
        "its own",
        "last round",
        f"last {LATE} rounds",
        f"rounds to {TARGET:g}",
        "worst decile",
        "MB up",
        "gradients",
        "passes",
    ]
    return f"""### 2.1 mnist_writers by Dirichlet(0.1): label skew

{sizes.sum():,} digits of mnist_writers' clients are dealt out anew, each class by Dirichlet(0.1),
to {size.clients} clients with {sizes.min()} to {sizes.max():,} digits (non-iid score
{dealt.non_iid_score():.2f}); a fifth of each client's are its own test. The test set is MNIST's
10,000, by people who are no clients. A perceptron 784-100-10 (79,510 parameters), {size.cohort}
clients a round, {size.rounds} rounds of two local epochs, batches of 32, {len(size.seeds)} seeds
for first model, cohorts and order.

All have one local rate, {rate:g}, chosen for FedAvg on digits that nobody trains on and that are
not the test set (seed 0, mean of the last {LATE} rounds): {grid}. Parameters of their own are
values of the papers or near them, and not tuned: FedProx has mu 1, the paper's for MNIST; the
adaptive servers 0.9, 0.99 and tau 0.001; q-FedAvg L = 1 / rate; Mime and MimeLite a local rate of
{0.1 * rate:g} with momentum 0.9, which is the paper's damped momentum at {rate:g}. Means are each
algorithm's default: by examples for some, uniform for others, as in the papers. Another choice
would give another order.

{table(head, rows)}

Accuracy on the test set is a mean over seeds with one seed's deviation behind; it is evaluated
every {size.evaluate_every} rounds. The worst decile is the mean accuracy of the
{max(1, size.clients // 10)} worst clients on their own tests after the last
round. MB up is the whole cohort's, a round;
gradients and forward passes are counted in the first round of seed 0, with the same cohort.

![Accuracy over rounds of each algorithm beside FedAvg's](pictures/results-drift.png)

{verdict} The controls of SCAFFOLD's option I are gradients of a client's last turn, ten
rounds ago on average; those of option II are means along its path.
"""
