"""How much what was released speaks for each canary: log-likelihood ratios.

By the lemma of Neyman and Pearson no other score tells more. Where a canary's seat is drawn by lot
and the promise counts on nobody knowing of the draw, the ratio is that of a mixture; where nothing
is claimed of the lot, the rounds of each seat are taken as known.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folkmoot.audit.watched import Sighting
from folkmoot.privacy.dp import Banded, Tree
from folkmoot.privacy.matrix import optimal_bands

Numbers = NDArray[np.float64]


def evidence(
    seen: Sequence[Sighting],
    *,
    share: float | None,
    opposed: bool,
    covariance: Numbers | None = None,
) -> Numbers:
    """Score every canary, (canaries,); higher speaks for it.

    Args:
        seen: What each exchange has shown, in units of the clip norm.
        share: The chance with which a seat is drawn, secretly; None where draws are known.
        opposed: Whether the alternative is the opposite update, and not silence.
        covariance: (rounds, rounds), of noise that hangs together over rounds, in units of `noise`
            squared; None where it is drawn anew.
    """
    scores = np.zeros(len(seen[0].pull))
    ordered = sorted(seen, key=lambda sighting: sighting.exchange)
    for _, group in itertools.groupby(ordered, key=lambda sighting: sighting.exchange):
        series = list(group)
        if covariance is not None:
            scores += _correlated(series, covariance)
        elif share is None:
            scores += sum(_known(one, opposed) for one in series)
        else:
            scores += sum(_drawn(one, share, opposed) for one in series)
    return scores


def _ratio(pull: Numbers, noise: float) -> Numbers:
    """Return the log-likelihood ratio of a pull of 1 against none; without noise a bare pull."""
    found: Numbers = (2 * pull - 1) / (2 * noise**2) if noise else pull - 0.5
    return found


def _known(one: Sighting, opposed: bool) -> Numbers:
    for_it = _ratio(one.pull, one.noise)
    against = _ratio(-one.pull, one.noise) if opposed else np.zeros_like(for_it)
    return np.where(one.drawn, for_it - against, 0.0)


def _drawn(one: Sighting, share: float, opposed: bool) -> Numbers:
    def mixed(pull: Numbers) -> Numbers:
        found: Numbers = np.logaddexp(np.log1p(-share), np.log(share) + _ratio(pull, one.noise))
        return found

    return mixed(one.pull) - (mixed(-one.pull) if opposed else 0.0)


def _correlated(series: Sequence[Sighting], covariance: Numbers) -> Numbers:
    """Return the ratios under noise of many rounds at once."""
    pulls = np.array([one.pull for one in series])  # (rounds, canaries)
    drawn = np.array([one.drawn for one in series], dtype=np.float64)
    if not series[0].noise:
        return (pulls * drawn).sum(axis=0)
    matched = np.linalg.solve(covariance, drawn)
    found: Numbers = (matched * (pulls - drawn / 2)).sum(axis=0) / series[0].noise ** 2
    return found


def covariance_of(mechanism: Tree | Banded | None, rounds: int) -> Numbers | None:
    """Return how noise hangs together over rounds, (rounds, rounds), or None where it does not.

    In units of the variance that the chain states: one node's, or that of what the bands mix.
    """
    if isinstance(mechanism, Tree):
        mixed = _nodes(rounds, mechanism.restart)
        return mixed @ mixed.T
    if isinstance(mechanism, Banded):
        column = np.zeros(rounds)
        bands = optimal_bands(rounds, mechanism.bands)[:rounds]
        column[: len(bands)] = bands
        apart = np.subtract.outer(np.arange(rounds), np.arange(rounds))
        inverse = np.linalg.inv(np.where(apart >= 0, column[np.abs(apart)], 0.0))
        return inverse @ inverse.T
    return None


def _nodes(rounds: int, restart: int) -> Numbers:
    """Return what each round of a tree adds: its own node, (rounds, rounds), less those replaced.

    A round's node covers as many rounds as the lowest binary digit 1 of its number says, and takes
    the place of the nodes below it.
    """
    mixed, present = np.eye(rounds), [0] * restart.bit_length()
    for place in range(rounds):
        number = place % restart + 1
        level = (number & -number).bit_length() - 1
        mixed[place, present[:level]] = -1.0
        present[level] = place
    return mixed
