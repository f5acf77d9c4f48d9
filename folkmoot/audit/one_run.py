"""A lower bound on epsilon from one run: how often one can guess which canaries took part.

Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023,
arXiv:2305.08846. Each of m canaries is in the run by a fair coin of its own. Whoever sees what the
run releases, if that is (epsilon, delta)-private, guesses r of the coins no better than by
randomized response: correctly with chance e^epsilon / (1 + e^epsilon) each, but for delta. So many
correct guesses refute a small epsilon.

The paper's experiments report the best of several numbers of guesses. Here each number tried pays
for itself: the error is divided among them.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folkmoot.audit.binomial import probabilities
from folkmoot.core.errors import SettingsError

_HALVINGS = 40
_FEWEST = 32
"""Fewer guesses, even if all are right, say nothing of an epsilon above 2."""
_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)


class Guessed(NamedTuple):
    """What guesses have shown."""

    epsilon: float
    """Not below this, with the stated confidence."""
    guesses: int
    correct: int
    canaries: int


def epsilon_lower_bound(
    correct: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95
) -> float:
    """Return what epsilon is not below, given how many guesses were correct.

    The number of guesses must not depend on how many turned out to be correct.

    Args:
        correct: Guesses that were right.
        guesses: Guesses that were made; the other canaries were passed over.
        canaries: Canaries that were in the run or not, each by a fair coin.
        delta: The other half of the promise, in [0, 1).
        confidence: How sure the bound is, in (0, 1).

    Returns:
        0 where the guesses are no better than chance.

    Raises:
        SettingsError: If a number is out of range.

    Source: Steinke et al. 2023, Theorem 5.2 and Appendix D.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise SettingsError(
            "An audit needs 0 <= correct <= guesses <= canaries, but these are "
            f"{correct}, {guesses} and {canaries}."
        )
    refuse_shares(delta=delta, confidence=confidence)
    error = 1 - confidence

    def refuted(epsilon: float) -> bool:
        return p_value(correct, guesses, canaries, epsilon, delta) < error

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if refuted(middle):
            low = middle
        else:
            high = middle
    return low


def p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Return at most how likely so many correct guesses are under (epsilon, delta)-privacy.

    With W binomial over the guesses, of chance e^epsilon / (1 + e^epsilon), that is P[W >= correct]
    + 2 canaries delta max_i P[correct > W >= correct - i] / i.
    """
    chance = 1 / (1 + math.exp(-epsilon))
    found = probabilities(guesses, chance)
    beyond = float(found[correct:].sum())
    if not correct or not delta:
        return min(1.0, beyond)
    below = np.cumsum(found[correct - 1 :: -1])
    alpha = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, beyond + 2 * canaries * delta * alpha)


def guess(
    scores: ArrayLike, included: ArrayLike, delta: float, confidence: float = 0.95
) -> Guessed:
    """Guess coins by their scores, and return the best lower bound on epsilon.

    The highest scores are guessed to be in, the lowest to be out, the others passed over. Several
    numbers of guesses are tried, fixed by the number of canaries alone, with and without guesses
    that a canary is out: where cohorts are drawn by lot, silence says little.

    Args:
        scores: (canaries,), higher where what was released speaks for the canary; from what was
            released alone.
        included: (canaries,), the coins.
        delta: The other half of the promise, in [0, 1).
        confidence: How sure the bound is, in (0, 1); the error is shared among all tries.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    coins: NDArray[np.bool_] = np.asarray(included, dtype=bool)[order]
    canaries = len(coins)
    tried = _numbers_of_guesses(canaries)
    each = 1 - (1 - confidence) / len(tried)
    best = Guessed(-1.0, 0, 0, canaries)
    for inside, outside in tried:
        correct = int(coins[:inside].sum() + (~coins[canaries - outside :]).sum())
        guesses = inside + outside
        bound = epsilon_lower_bound(correct, guesses, canaries, delta, each)
        best = max(best, Guessed(bound, guesses, correct, canaries))
    return best


def _numbers_of_guesses(canaries: int) -> list[tuple[int, int]]:
    """Return the pairs (guesses "in", guesses "out") that are tried, by the canaries' number."""
    numbers = [round(share * canaries) for share in _SHARES]
    kept = [number for number in numbers if number >= min(_FEWEST, canaries)]
    both = [(number - number // 2, number // 2) for number in kept]
    # All of them guessed to be in is no guess at all.
    return both + [(number, 0) for number in kept[1:]]


def refuse_shares(**values: float) -> None:
    """Refuse, by name and value, what is no share: delta may be 0, confidence may not."""
    for name, value in values.items():
        if not 0 <= value < 1 or (value == 0 and name != "delta"):
            raise SettingsError(f"{name} must lie between 0 and 1, but is {value!r}.")
