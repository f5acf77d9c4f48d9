"""Example-level privacy: DP-SGD at four hospitals, and at a few holders of pooled digits.

Rates and clip norms are chosen at each budget by `chosen`, on rows that are not the test set and
with a seed that is not reported. Opacus's script shares the settings and chooses likewise.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

import folkmoot as fm
from chapters.flamby import fold, pooled
from chapters.jobs import CORES, deviation, mean, over, run, side_by_side, table
from folkmoot.local.dpsgd import charges, dpsgd
from folkmoot.privacy import noise_for
from folkmoot.privacy.events import Charge

TUNING_SEED = 100


class Bench(NamedTuple):
    """A federation whose examples are hidden, and how it trains."""

    name: str
    told: str
    model: Callable[[], nn.Module]
    data: Callable[[int | None], tuple[Any, fm.Tree, Any, fm.Tree]]
    """From rows to (clients, test, clients to choose by, rows to choose by)."""
    rounds: int
    steps: int
    """Of each client in a round."""
    batch: int
    delta: float
    seeds: Sequence[int]
    epsilons: Sequence[float]
    rates: Sequence[float]
    clips: Sequence[float]


class Size(NamedTuple):
    """How much is run."""

    seeds: int | None = None
    """Of each bench; None is all."""
    grid: int | None = None
    """Points of a grid that are tried; None is all."""
    rows: int | None = None
    rounds: int | None = None
    cores: int = CORES


FULL = Size()
QUICK = Size(1, 1, 300, 1, 1)


class Setting(NamedTuple):
    """What is chosen."""

    rate: float
    clip: float | None
    """None without privacy."""


def _hospitals(rows: int | None) -> tuple[Any, fm.Tree, Any, fm.Tree]:
    clients, test = fm.data.heart_disease(scale="pooled")
    return clients, test, *fold(clients, 0, lambda part: part["y"])


def _holders(rows: int | None) -> tuple[Any, fm.Tree, Any, fm.Tree]:
    writers, test = fm.data.load("mnist_writers")
    digits = pooled([writers[writer].train for writer in writers])
    unused = pooled([writers[writer].test for writer in writers])
    digits, unused = (
        {name: leaf[:rows] for name, leaf in part.items()} for part in (digits, unused)
    )
    clients = fm.data.partition.iid(digits, 5).clients(digits)
    return clients, test, clients, unused


def perceptron() -> nn.Module:
    """784-64-10, 50,890 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


HEART = Bench(
    "heart_disease",
    "486 patients of four hospitals, of which the smallest has 30; a logistic regression of 13 "
    "inputs, standardised by pooled means and deviations, which are taken as public",
    lambda: nn.Linear(13, 1),
    _hospitals,
    rounds=10,
    steps=10,
    batch=15,
    delta=1e-3,
    # A patient of the test set is 0.004, so that three seeds would tell nothing.
    seeds=range(10),
    epsilons=(3.0, 8.0),
    rates=(0.1, 0.3),
    clips=(0.5, 1.0),
)
DIGITS = Bench(
    "mnist",
    "The 48,214 training digits of mnist_writers, pooled and dealt at random to five holders; a "
    "perceptron 784-64-10",
    perceptron,
    _holders,
    rounds=5,
    steps=40,
    batch=64,
    delta=1e-5,
    seeds=range(3),
    epsilons=(3.0, 8.0),
    rates=(0.25, 0.5, 1.0),
    clips=(1.0, 2.0),
)
BENCHES = (HEART, DIGITS)


def plain_work(bench: Bench, rate: float, seed: int) -> fm.LocalWork:
    """Return a client's steps of SGD, from the model that a seed begins."""
    torch.manual_seed(seed)
    objective = fm.classifier(bench.model())
    return fm.local.sgd(objective, lr=rate, steps=bench.steps, batch_size=bench.batch)


@functools.cache
def noise(bench: Bench, epsilon: float, smallest: int, rounds: int) -> float:
    """Solve the noise for the smallest client, whose examples are in the most batches."""

    def cost(z: float) -> Sequence[Charge]:
        private = dpsgd(plain_work(bench, 1.0, 0), clip=1.0, noise_multiplier=z, simulation=True)
        return charges(private, smallest, rounds)

    return noise_for(epsilon, bench.delta, cost)


def smallest(clients: Any) -> int:
    """Return how many train examples the smallest client has."""
    return min(len(clients[client].train["y"]) for client in clients)


def trained(
    bench: Bench, rounds: int, setting: Setting, z: float, clients: Any, test: fm.Tree, seed: int
) -> fm.Result:
    """Train once, privately where there is noise."""
    budget = None
    if setting.clip is not None:
        budget = fm.DP(
            noise_multiplier=z,
            delta=bench.delta,
            clip=setting.clip,
            unit="example",
            simulation=True,
        )
    with warnings.catch_warnings():
        # Of more noise than signal: the table has a column for it.
        warnings.simplefilter("ignore")
        return run(
            fm.fedavg(plain_work(bench, setting.rate, seed)),
            clients,
            rounds=rounds,
            privacy=budget,
            test=test,
            seed=seed,
            evaluate_every=rounds,
            client_tests=False,
        )


def section(bench: Bench, number: str, size: Size = FULL) -> str:
    """Return a section."""
    clients, test, some, held = bench.data(size.rows)
    rounds = size.rounds or bench.rounds
    budgets: list[float | None] = [None, *bench.epsilons]
    grids = {epsilon: grid(bench, epsilon, size) for epsilon in budgets}
    least = smallest(clients)
    noises = {one: noise(bench, one, least, rounds) if one else 0.0 for one in budgets}
    # The same noise for choosing: fewer rows are held there, and nobody reports that epsilon.
    tried = [(epsilon, setting) for epsilon in budgets for setting in grids[epsilon]]

    def scored(epsilon: float | None, setting: Setting) -> float:
        z = noises[epsilon]
        result = trained(bench, rounds, setting, z, some, held, TUNING_SEED)
        return float(result.metrics["test_loss"])

    scores = dict(
        zip(
            tried,
            side_by_side([functools.partial(scored, *one) for one in tried], size.cores),
            strict=True,
        )
    )
    best = {one: min(grids[one], key=lambda setting: scores[one, setting]) for one in budgets}

    def job(epsilon: float | None, seed: int) -> tuple[float, Any]:
        z = noises[epsilon]
        result = trained(bench, rounds, best[epsilon], z, clients, test, seed)
        return float(result.metrics["test_accuracy"]), result.privacy

    found = over(budgets, bench.seeds[: size.seeds], job, size.cores)
    rows = [
        _row(best[epsilon], noises[epsilon], runs)
        for epsilon, runs in zip(budgets, found, strict=True)
    ]
    return _text(bench, number, size, rounds, rows)


def grid(bench: Bench, epsilon: float | None, size: Size) -> list[Setting]:
    """Return what is tried at a budget."""
    clips: Sequence[float | None] = [None] if epsilon is None else bench.clips
    return [Setting(rate, clip) for rate in bench.rates for clip in clips][: size.grid]


def _row(setting: Setting, z: float, runs: Sequence[tuple[float, Any]]) -> list[str]:
    accuracies = [accuracy for accuracy, _ in runs]
    shown = f"{mean(accuracies):.3f} ({deviation(accuracies):.3f})"
    spent = runs[0][1]
    if spent is None:
        return ["none", "", "", f"{setting.rate:g}", "", shown]
    return [
        f"{spent.epsilon:.2f}",
        f"{z:.3f}",
        f"{spent.noise_to_signal:.2g}",
        f"{setting.rate:g}",
        f"{setting.clip:g}",
        shown,
    ]


def _text(bench: Bench, number: str, size: Size, rounds: int, rows: Sequence[Sequence[str]]) -> str:
    head = ["epsilon", "noise multiplier", "noise to signal", "rate", "clip norm", "accuracy"]
    seeds = len(bench.seeds[: size.seeds])
    listed = [", ".join(f"{value:g}" for value in axis) for axis in (bench.rates, bench.clips)]
    return f"""### {number} {bench.name}: single examples

{bench.told}. Each hides its own examples by DP-SGD, `DP(unit="example")`: {rounds} rounds of
{bench.steps} steps, Poisson batches of {bench.batch} on average, delta {bench.delta:g}, add or
remove one; one noise for all, solved for the smallest. Everyone takes part in every round; means
by examples, whose numbers are public. Accuracy on the pooled test set; {seeds} seeds for first
model, batches and noise.

{table(head, rows)}

Rate (of {listed[0]}) and clip norm (of {listed[1]}) are chosen at each budget by the loss on rows
that are neither trained on nor the test set, with seed {TUNING_SEED}, which is not reported; the
search is not charged. Noise to signal is a step's, at the smallest client.
"""


hospitals = functools.partial(section, HEART, "3.3")
holders = functools.partial(section, DIGITS, "3.4")
