"""Time: rounds that wait against buffers that do not, on phones; and bytes beside centralising."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import folkmoot as fm
from chapters.communication import digits, light
from chapters.jobs import CORES, mean, over, run, table
from chapters.pictures import PICTURES
from folkmoot.train.communication import centralising

PICTURE, ROUND = "results-clock.png", "results-round.png"
MODEL_BYTES = 407e3
TARGET = 0.92
"""Accuracy on the test set."""
AT_WORK, BUFFER = 100, 10
_SLOWEST = 0.25


class Way(NamedTuple):
    """A row: when rounds begin and end."""

    name: str
    options: dict[str, Any]
    every: int
    """Rounds between evaluations, which are as many answers in all ways."""
    rounds: int


FIRST = {"cohort": round(AT_WORK / 1.3), "over_select": 1.3, "deadline_s": 60.0}
BUFFERED = {"cohort": AT_WORK, "buffer": BUFFER}
PACKED = {"compress": fm.codecs.eden(1)}
SYNC = Way("sync", {"cohort": AT_WORK}, 1, 60)
WAYS = (
    SYNC,
    Way("sync, the first answers", FIRST, 1, 60),
    Way(f"sync, {BUFFER} at work", {"cohort": BUFFER}, 5, 600),
    Way("buffer", BUFFERED, 5, 600),
    Way("sync, eden(1)", {"cohort": AT_WORK, **PACKED}, 1, 60),
    Way("buffer, eden(1)", {**BUFFERED, **PACKED}, 5, 600),
)


class Size(NamedTuple):
    """How much is run."""

    seeds: Sequence[int] = range(3)
    target: float = TARGET
    rows: int | None = None
    """Of the test set; None is all."""
    cores: int = CORES


FULL = Size()
QUICK = Size((0,), 0.3, 200, 1)


class Found(NamedTuple):
    """What one run gives, up to the target."""

    seconds: float
    answers: int
    rounds: int
    up: float
    slowest: float
    """Share of the answers that come from the slowest fourth of the phones that are there."""
    staleness: float
    """Mean over answers, in new models."""
    silent: tuple[int, int]
    """Phones that were there at midnight of which no answer counted, of how many."""
    reached: bool
    outcome: fm.Result
    """Of the history alone."""


def section(size: Size = FULL, pictures: Path = PICTURES) -> str:
    """Return the section on time, and draw its pictures; then bytes beside centralising."""
    clients, test = fm.data.load("mnist_writers")
    test = {name: leaf[: size.rows] for name, leaf in test.items()}

    def job(way: Way, seed: int) -> Found:
        return _found(size, clients, test, way, seed)

    found = over(WAYS, size.seeds, job, size.cores)
    first = {way.name: runs[0].outcome for way, runs in zip(WAYS, found, strict=True)}
    sync = first.pop(SYNC.name)
    sync.plot_efficiency(pictures / PICTURE, others=first)
    sync.plot_round(pictures / ROUND)
    return _text(size, found)


def _found(size: Size, clients: Any, test: fm.Tree, way: Way, seed: int) -> Found:
    fleet = fm.fleets.phones()
    result = run(
        fm.fedavg(digits(seed), aggregator=fm.aggregators.uniform_mean()),
        clients,
        rounds=way.rounds,
        fleet=fleet,
        test=test,
        seed=seed,
        evaluate_every=way.every,
        client_tests=False,
        monitor=False,
        stop=fm.stopping.target("test_accuracy", size.target),
        name=way.name,
        **way.options,
    )
    there, slow = _slowest(fleet, clients, seed)
    heard = np.array([answered for _, answered in (result.participation or {}).values()])
    late = [pair for row in result.history for pair in row.get("staleness", ())]
    return Found(
        result.history[-1]["virtual_s"],
        int(heard.sum()),
        result.rounds,
        float(result.traffic.upload_bytes),
        float(heard[slow].sum() / heard.sum()),
        sum(age * count for age, count in late) / max(sum(count for _, count in late), 1),
        (int((heard[there] == 0).sum()), int(there.sum())),
        result.metrics["test_accuracy"] >= size.target,
        light(result),
    )


def _slowest(fleet: fm.Fleet, clients: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which phones are there at first, and the fourth of them with the slowest links."""
    roster = fleet.roster(list(clients), seed=seed, flops_per_example=1.0, model_bytes=MODEL_BYTES)
    there = roster.available(0.0)
    took = np.where(there, roster.expected_s(0, MODEL_BYTES, MODEL_BYTES), -np.inf)
    slow = np.argsort(-took)[: round(_SLOWEST * there.sum())]
    return there, slow


def _row(way: Way, runs: Sequence[Found], base: Sequence[Found]) -> list[str]:
    if not all(one.reached for one in runs):
        return [way.name, "never", *[""] * 7]
    seconds = [one.seconds for one in runs]
    ratio = mean([before.seconds / one.seconds for before, one in zip(base, runs, strict=True)])
    silent = mean([float(one.silent[0]) for one in runs])
    return [
        way.name,
        f"{mean(seconds):,.0f} ({min(seconds):,.0f} to {max(seconds):,.0f})",
        f"{ratio:.1f}",
        f"{mean([float(one.rounds) for one in runs]):,.0f}",
        f"{mean([float(one.answers) for one in runs]):,.0f}",
        f"{mean([one.up for one in runs]) / 1e6:,.3g}",
        f"{100 * mean([one.slowest for one in runs]):.0f} %",
        f"{mean([one.staleness for one in runs]):.1f}",
        f"{silent:.0f} of {mean([float(one.silent[1]) for one in runs]):.0f}",
    ]


def _text(size: Size, found: Sequence[Sequence[Found]]) -> str:
    head = ["rounds", "seconds to the target", "faster", "new models", "answers", "MB up"]
    head += ["of the slowest fourth", "staleness", "never heard"]
    rows = [_row(way, runs, found[0]) for way, runs in zip(WAYS, found, strict=True)]
    moved = ". ".join(
        line[:1].upper() + line[1:] for line in centralising(found[0][0].outcome).splitlines()
    )
    return f"""### 5.3 Phones: rounds against buffers

The writers and the perceptron of 5.1 on `fm.fleets.phones()`, from midnight, when about a third of
the phones are charged. A model has {MODEL_BYTES / 1e3:.0f} kB, so links (at the median 0.6 MB/s
down, 0.3 up; a tenth of the phones is over five times slower or faster) take the time, and not
arithmetic. Virtual seconds until {size.target:g} on the test set is first seen; {len(size.seeds)}
seeds, with their range.

"sync" asks {AT_WORK} phones and waits for all that do not drop out. "The first answers" asks as
many, over_select 1.3, takes the first {FIRST["cohort"]} and closes after 60 s at the latest.
"buffer" is FedBuff (Nguyen et al., AISTATS 2022, arXiv:2106.06639): {AT_WORK} are always at work,
every {BUFFER} answers make a new model, and late ones weigh 1 / sqrt(1 + staleness). "sync,
{BUFFER} at work" has as many answers in a model as the buffer. Rates are the same for all, 0.2 for
clients and 1 for the server, and not tuned.

{table(head, rows)}

![Accuracy against rounds, bytes and virtual time, seed 0](pictures/{PICTURE})

A fair share of the slowest fourth of the phones, by their links, would be 25 % of the answers.
Never heard are phones that are there at midnight and of which no answer counted; those that are
charged at another time are not there at all in so short a run.

![The last sync round of seed 0: the round lasts as long as its slowest phone](pictures/{ROUND})

### 5.4 Beside centralising

What the report of the sync run of seed 0 says, up to the target: "{moved}."
"""
