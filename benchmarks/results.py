"""Make the figures of docs/results.md: published results beside our own.

    python benchmarks/results.py            # writes docs/results.md, a few minutes
    python benchmarks/results.py --print    # shows it instead

A chapter is a function that runs its experiments and returns its page. Every figure comes from the
seeds 0 to 9, which nobody has chosen.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import folkmoot as fm

SEEDS = range(10)
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
HEAD = """# Results

Published figures beside ours, by the protocol of the publication. `make results` makes this page:
every number below comes out of `python benchmarks/results.py`.
"""


class Entry(NamedTuple):
    """One row of the heart-disease benchmark."""

    name: str
    build: Callable[[fm.LocalWork], object]
    """From local work to the algorithm."""
    lr: float
    """Learning rate of the local steps."""
    published: float
    """Mean accuracy on the pooled test set."""
    scale: str = "client"
    """How x is standardised."""


def _adam() -> fm.Optimizer:
    return fm.optimizers.adam(0.01, beta_1=0.9, beta_2=0.999, tau=1e-8)


def _yogi() -> fm.Optimizer:
    return fm.optimizers.yogi(0.01, beta_1=0.9, beta_2=0.999, tau=1e-8)


HEART_DISEASE = {
    entry.name: entry
    for entry in (
        Entry("FedAvg", lambda work: fm.fedavg(work), 0.001, 0.748),
        Entry("FedProx", lambda work: fm.fedprox(work, mu=0.01), 0.001, 0.748),
        Entry("FedAdam", lambda work: fm.fedavg(work, server=_adam()), 0.01, 0.779),
        Entry("FedYogi", lambda work: fm.fedavg(work, server=_yogi()), 0.003, 0.779),
    )
}
"""FLamby's rows of algorithms that are here."""
POOLED = Entry("FedAvg, pooled statistics", lambda work: fm.fedavg(work), 0.003, 0.78, "pooled")


def heart_disease_accuracy(entry: Entry, seed: int) -> float:
    """Train by FLamby's protocol and return the accuracy on the pooled test set.

    15 rounds of 100 local steps with batches of 4, a logistic regression of 13 inputs, means
    weighted by examples. Each seed has its own first model.
    """
    clients, test = fm.data.heart_disease(scale=entry.scale)
    torch.manual_seed(seed)
    objective = fm.classifier(nn.Linear(13, 1))
    work = fm.local.sgd(objective, lr=entry.lr, steps=100, batch_size=4)
    result = fm.run(
        entry.build(work),
        clients,
        rounds=15,
        test=test,
        seed=seed,
        evaluate_every=15,
        client_tests=False,
        progress=False,
        workers=1,
    )
    return result.metrics["test_accuracy"]


def heart_disease(seeds: Sequence[int] = SEEDS) -> str:
    """Return chapter 1."""
    rows = []
    for entry in (*HEART_DISEASE.values(), POOLED):
        found = [heart_disease_accuracy(entry, seed) for seed in seeds]
        published = f"{entry.published:.3f}" if entry is not POOLED else "-"
        rows.append(
            f"| {entry.name} | {entry.lr:g} | {published} | {statistics.fmean(found):.3f} | "
            f"{statistics.stdev(found):.3f} |"
        )
    table = "\n".join(rows)
    return f"""## 1. heart_disease: four hospitals

FLamby (Ogier du Terrail et al., NeurIPS 2022, arXiv:2210.04620), `fed_heart_disease`: 486 patients
of four hospitals train a logistic regression of 13 inputs; accuracy on the pooled test set of 254.
15 rounds of 100 local steps, batches of 4, means weighted by examples. Training data are
standardised by each hospital's own statistics, the pooled test set by the pooled training
statistics. FedProx has mu 0.01, the adaptive servers 0.01, 0.9, 0.999 and tau 1e-8.

| algorithm | local rate | published, mean of 5 seeds | ours, mean of {len(seeds)} | deviation |
| --- | --- | --- | --- | --- |
{table}

Seeds differ in their first model, and FedAvg at this rate has not forgotten it after 15 rounds; its
mean over 10 seeds is known to about 0.008. The last row standardises everything by pooled
statistics, which a federation may not have, and takes a rate of its own. A test set that is scaled
unlike the training data is what the other rows pay for.
"""


CHAPTERS = (heart_disease,)


def main(arguments: Sequence[str]) -> None:
    """Write the page, or show it."""
    text = "\n".join([HEAD, *(chapter() for chapter in CHAPTERS)])
    if "--print" in arguments:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Wrote {PAGE}.")


if __name__ == "__main__":
    main(sys.argv[1:])
