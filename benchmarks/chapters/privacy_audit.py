"""What an audit can show, beside what is stated: canaries among the writers."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

import folkmoot as fm
from chapters.jobs import CORES, side_by_side, table
from folkmoot.audit import Audit, audit

DELTA = 1e-5
CANARIES = 1000


class Case(NamedTuple):
    """A row: a promise, or none."""

    name: str
    privacy: fm.DP | None


class Size(NamedTuple):
    """How much is run."""

    writers: int = 50
    canaries: int = CANARIES
    rounds: int = 3
    epsilons: Sequence[float] = (1.0, 2.0, 4.0, 8.0)
    cores: int = CORES


FULL = Size()
QUICK = Size(5, 20, 1, (2.0,), 1)


def section(size: Size = FULL) -> str:
    """Return the section."""
    writers, _ = fm.data.load("mnist_writers")
    clients = writers.subset(list(writers)[: size.writers])
    budgets = [_budget(epsilon) for epsilon in size.epsilons]
    cases = [
        *(Case(f"epsilon {budget.epsilon:g}", budget) for budget in budgets),
        Case("clip, no noise", _budget(None)),
        Case("nothing", None),
    ]
    found = side_by_side(
        [functools.partial(_audited, size, clients, one) for one in cases], size.cores
    )
    rows = [_row(case, one) for case, one in zip(cases, found, strict=True)]
    return _text(size, rows)


def _budget(epsilon: float | None) -> fm.DP:
    """Return a promise; of no epsilon, one with a clip and no noise."""
    none = 0.0 if epsilon is None else None
    return fm.DP(epsilon=epsilon, noise_multiplier=none, delta=DELTA, clip=1.0, simulation=True)


def _audited(size: Size, clients: Any, case: Case) -> Audit:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=20)
    return audit(
        fm.fedavg(work),
        clients,
        rounds=size.rounds,
        privacy=case.privacy,
        canaries=size.canaries,
        delta=DELTA,
    )


def _row(case: Case, found: Audit) -> list[str]:
    return [
        case.name,
        f"{found.epsilon_stated:.2f}",
        f"{found.epsilon_lower:.2f}",
        f"{found.correct:,} of {found.guesses:,}",
        "yes" if found.holds else "no",
    ]


def _text(size: Size, rows: Sequence[Sequence[str]]) -> str:
    head = ["promise", "epsilon stated", "at least", "guesses that are correct", "holds"]
    return f"""### 3.5 What can be shown to leak

`fm.audit.audit` (Steinke et al., NeurIPS 2023) puts {size.canaries:,} canaries among
{size.writers} writers, each in by a fair coin, and guesses from all noisy sums which are there;
784-10, {size.rounds} rounds of everyone, so that no lot protects. What guesses prove, at 95 %
confidence and delta {DELTA:g}, stands beside what is stated.

{table(head, rows)}

Were the second number above the first, the promise would be refuted; below, nothing is proved but
that this attack finds no more. The last rows promise nothing: there nearly every canary is found,
and what that proves is the most that {size.canaries:,} coins can.
"""
