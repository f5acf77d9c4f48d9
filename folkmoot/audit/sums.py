"""Audit one private sum by releasing it many times, with a canary in it and without.

A run trains for minutes and is audited once; its sums alone take microseconds, and a thousand of
them show what one run cannot: that noise is half of what was stated.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from folkmoot.aggregators.faults import misfit
from folkmoot.audit.many_runs import (
    Numbers,
    epsilon_lower_bound,
    gaussian_lower_bound,
    rates_of,
)
from folkmoot.audit.report import Audit
from folkmoot.audit.watched import HEAVY, counted
from folkmoot.core import fold, rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, Aggregator, State, Sum, Update
from folkmoot.core.errors import SettingsError, positive
from folkmoot.privacy.accountants import gaussian_epsilon

_LOUD = 1e3


class Releases(NamedTuple):
    """What one direction showed of many releases, in units of what a canary should add."""

    inside: Numbers
    """(runs,), with the canary in the sum."""
    outside: Numbers
    """(runs,), without it."""


def audit_sum(
    aggregator: Aggregator,
    like: Update,
    *,
    stated: float | None = None,
    others: Sequence[Update] = (),
    runs: int = 10_000,
    delta: float = 1e-5,
    confidence: float = 0.95,
    gaussian: bool = False,
    norm: float = _LOUD,
    seed: int = 0,
) -> Audit:
    """Release a sum many times, and bound epsilon from below.

    Args:
        aggregator: A rule with clip and noise in its chain.
        like: An update of the leaves that clients send; the canary is one long direction in them,
            of weight 10^6.
        stated: The epsilon of one release at `delta`; None takes it from the noise that the chain
            states, as Gaussian noise in which anyone may take part.
        others: Who else is in the sum.
        runs: Releases with the canary, and as many without; 10,000 show an epsilon of about 5.
        delta: The other half of the promise, in (0, 1).
        confidence: How sure the bound is.
        gaussian: Whether noise is taken for normal, so that far fewer runs do.
        norm: L2 norm of the canary's update, far above the clip.
        seed: Of the direction, and of what codecs draw.
    """
    positive(norm=norm)
    state = aggregator.init(like, len(others) + 1)
    if stated is None:
        noise = state.bounds.noise
        stated = gaussian_epsilon(1 / noise, delta) if noise else float("inf")
    scores = releases(aggregator, state, canary_like(like, norm, state, seed), others, runs, seed)
    rates = rates_of(*scores, delta)
    bound = gaussian_lower_bound if gaussian else epsilon_lower_bound
    correct = rates.true_positives + rates.negatives - rates.false_positives
    return Audit(
        name=aggregator.name,
        method="many runs, " + ("of normal noise (Nasr et al. 2023)" if gaussian else "by counts"),
        epsilon_lower=bound(rates, delta, confidence),
        epsilon_stated=stated,
        delta=delta,
        confidence=confidence,
        unit="client",
        canaries=1,
        guesses=rates.positives + rates.negatives,
        correct=correct,
        rounds=1,
        clients=len(others),
        runs=2 * runs,
    )


def canary_like(like: Update, norm: float, state: State, seed: int) -> Update:
    """Return an update of one random direction, far too long and far too heavy."""
    draw = rng.generator(rng.derive(seed, purpose="canary"))
    direction = torch.from_numpy(draw.standard_normal(state.layout.size)).float()
    value = state.layout.unpack(norm * direction / torch.linalg.vector_norm(direction))
    return Update(value, HEAVY, trees.map(lambda leaf: counted(leaf, HEAVY), like.counts))


def releases(
    aggregator: Aggregator,
    state: State,
    canary: Update,
    others: Sequence[Update] = (),
    runs: int = 1000,
    seed: int = 0,
) -> Releases:
    """Release one sum many times, with a canary in it and without, and look along its direction.

    Each release draws the noise that a run would draw.
    """
    if aggregator.sees is EACH:
        raise SettingsError(
            f"{aggregator.name}() looks at single updates, so it releases no sum to be audited."
        )
    for place, update in enumerate(others):
        if misfit(update, canary):
            raise SettingsError(
                f"Update {place} has other leaves than the canary: {misfit(update, canary)}."
            )
    direction = state.layout.pack(canary.value).double()
    direction /= torch.linalg.vector_norm(direction)
    sides = ((canary, *others), tuple(others))
    # Where encoding draws nothing, sums are taken once; the noise of a release is drawn behind.
    same = not _draws(aggregator, state, canary)
    kept = [_sum(aggregator, state, members, canary, 0) for members in sides] if same else []
    scores: list[list[float]] = [[], []]
    for run in range(runs):
        for out, members in enumerate(sides):
            key = rng.derive(seed, round=run, purpose=f"audit {out}")
            total = kept[out] if same else _sum(aggregator, state, members, canary, key)
            value, _, _ = aggregator.decode(state, total, key)
            scores[out].append(float(state.layout.pack(value).double() @ direction))
    return Releases(np.array(scores[0]), np.array(scores[1]))


def _draws(aggregator: Aggregator, state: State, update: Update) -> bool:
    """Tell whether a client's half is random: noise at the client, or rounding by lot."""
    one, other = (trees.leaves(aggregator.encode(state, update, key).value) for key in (1, 2))
    return not all(map(torch.equal, one, other))


def _sum(
    aggregator: Aggregator, state: State, members: Sequence[Update], like: Update, key: int
) -> Sum:
    total = fold.zero(aggregator.encode(state, like, key))
    for client, update in enumerate(members):
        total = fold.add(total, aggregator.encode(state, update, rng.of_client(key, client)))
    return total
