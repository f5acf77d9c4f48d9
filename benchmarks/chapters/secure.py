"""Secure sums on mnist_writers: what whole numbers cost, and noise of clients beside a server's."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import folkmoot as fm
from chapters.jobs import CORES, deviation, mean, over, run, table
from chapters.privacy import data, work

RATE, CLIP, DELTA, NOISE = 0.2, 1.0, 1e-4, 3.0
"""As chapter 3 has chosen for the writers' larger federations; nothing is chosen here."""
PLAIN = {
    "plain sums": False,
    "secure sums": True,
    "16 bits, weights to 128": fm.Secure(bits=16, weight_cap=128),
}


class Size(NamedTuple):
    """How much is run."""

    seeds: Sequence[int] = range(3)
    rounds: int = 20
    writers: int | None = None
    """None is all."""
    cohort: int = 40
    rows: int | None = None
    cores: int = CORES


FULL = Size()
QUICK = Size((0,), 2, 12, 5, 200, 1)


class Found(NamedTuple):
    """What one run gives."""

    accuracy: float
    kilobytes: float
    """Of one client's update."""
    cut: int
    """Updates that were clipped, over all rounds."""
    epsilon: float


class Setting(NamedTuple):
    """A row of the second table."""

    name: str
    secure: Any
    noise: float


def section(size: Size = FULL) -> str:
    """Return the chapter."""
    clients, _, test = data(size.rows)
    if size.writers is not None:
        clients = clients.subset(list(clients)[: size.writers])
    number = len(clients)
    plain = over(
        list(PLAIN.values()), size.seeds, functools.partial(_plain, size, clients, test), size.cores
    )
    realised = NOISE * math.sqrt(number / fm.Secure().providers(number))
    settings = [
        Setting("no noise", False, 0.0),
        Setting("server, noise as in all shares", False, realised),
        Setting("clients, 32 bits", fm.Secure(bits=32), NOISE),
        Setting("clients, 16 bits", fm.Secure(bits=16), NOISE),
        Setting("clients, 16 bits, Skellam", fm.Secure(bits=16, noise="skellam"), NOISE),
    ]
    private = over(
        settings, size.seeds, functools.partial(_private, size, clients, test), size.cores
    )
    rows = [_row(name, found) for name, found in zip(PLAIN, plain, strict=True)]
    lines = [
        [*_row(one.name, found)[:3], f"{one.noise:.3f}", f"{found[0].epsilon:.2f}"]
        for one, found in zip(settings, private, strict=True)
    ]
    return _text(size, number, realised, rows, lines)


def _plain(size: Size, clients: Any, test: Any, secure: Any, seed: int) -> Found:
    """Train without a promise."""
    return _found(
        run(
            fm.fedavg(work(RATE, seed)),
            clients,
            rounds=size.rounds,
            cohort=size.cohort,
            secure=secure,
            test=test,
            seed=seed,
            evaluate_every=size.rounds,
            client_tests=False,
        )
    )


def _private(size: Size, clients: Any, test: Any, setting: Setting, seed: int) -> Found:
    """Train with noise of a server, or of clients in a secure sum; everyone in every round."""
    budget = fm.DP(noise_multiplier=setting.noise, delta=DELTA, clip=CLIP, simulation=True)
    with warnings.catch_warnings():
        # Of more noise than signal: that is what the table shows.
        warnings.simplefilter("ignore")
        result = run(
            fm.fedavg(work(RATE, seed)),
            clients,
            rounds=size.rounds,
            privacy=budget,
            secure=setting.secure,
            test=test,
            seed=seed,
            evaluate_every=size.rounds,
        )
    return _found(result)


def _found(result: fm.Result) -> Found:
    sent = sum(row["upload_bytes"] for row in result.history)
    answered = sum(row["answered"] for row in result.history)
    return Found(
        result.metrics["test_accuracy"],
        sent / max(answered, 1) / 1e3,
        sum(row.get("clipped", 0) for row in result.history),
        math.inf if result.privacy is None else result.privacy.epsilon,
    )


def _row(name: str, found: Sequence[Found]) -> list[str]:
    scores = [one.accuracy for one in found]
    clipped = sum(one.cut for one in found)
    return [
        name,
        f"{mean(scores):.4f} ({deviation(scores):.4f})",
        f"{found[0].kilobytes:.1f}",
        str(clipped),
    ]


def _text(
    size: Size, number: int, realised: float, rows: list[list[str]], lines: list[list[str]]
) -> str:
    seeds = len(size.seeds)
    providers = fm.Secure().providers(number)
    return f"""## 4. Secure sums

`fm.run(..., secure=True)` on mnist_writers: 784-64-10 (50,890 numbers), one local epoch with
batches of 20 at rate {RATE:g}, {size.rounds} rounds; accuracy on MNIST's test digits, by people who
are no clients; {seeds} seeds, with the sample deviation in brackets. Means by examples,
{size.cohort} of {number} writers a round.

{table(["sums", "accuracy", "kB of an update", "updates clipped"], rows)}

Nobody has chosen a range: the clip norm begins far above, and comes down by quarters. At 16 bits
the largest weight is stated, for the default of 65,536 leaves writers of 90 digits few steps.

With noise inside the sum, everyone in every round, clip norm {CLIP:g}, uniform means. Shares are
made for {providers} of {number} writers; all {number} bring {number / providers:.3f} times their
variance, so the server's noise beside it is {realised:.3f} of the clip norm. Epsilon at delta
{DELTA:g}, zero out one, without a lot: of clients' noise against everyone, the server too.

{table(["noise", "accuracy", "kB of an update", "noise multiplier", "epsilon"], lines)}
"""
