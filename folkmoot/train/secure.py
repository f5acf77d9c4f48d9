"""From `secure=` to a program: every exchange becomes a sum of whole numbers.

Nothing of the algorithm is known here, as under privacy: its round is driven as it is, and the
aggregators of what it asks are rebuilt.
"""

import functools
import warnings
from typing import Any, NamedTuple

from torch import Tensor

from folkmoot.codecs.field import to_field
from folkmoot.codecs.rotate import rotate
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, Aggregator
from folkmoot.core.algorithm import Algorithm, Task
from folkmoot.core.codec import chain
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.engines.secure import unseen
from folkmoot.engines.tasks import example
from folkmoot.secagg.secure import Secure
from folkmoot.secagg.terms import SMALLEST_COHORT
from folkmoot.train.driven import driven
from folkmoot.train.plan import asked_in_a_round


class Secured(NamedTuple):
    """A run's plan with secure sums."""

    algorithm: Algorithm
    facts: dict[str, Any]
    """What the result tells, as plain JSON."""


def secured(
    secure: Secure, algorithm: Algorithm, population: int, expected: float, *, private: bool
) -> Secured:
    """Plan a run whose every exchange is a secure sum.

    Args:
        secure: What is asked of the sums.
        algorithm: What is done; under privacy its aggregators add whole numbers already.
        population: Clients that there are.
        expected: How many a round asks on average.
        private: Whether noise is added inside the sum.

    Raises:
        SettingsError: If cohorts are too small, or a rule needs more than a sum.
    """
    n = round(expected)
    if n < SMALLEST_COHORT:
        raise SettingsError(
            f"A secure sum hides one client among {SMALLEST_COHORT} or more, but rounds ask "
            f"{expected:g}. Ask for a larger cohort, or leave secure= out."
        )
    agreed = secure.terms(n, [])
    asked = asked_in_a_round(algorithm, population)
    lengths: dict[Aggregator, float] = {}
    for task, _ in asked:
        _refuse_each(algorithm, task.aggregator)
        lengths.setdefault(task.aggregator, _length(task))
    if not private:
        field = chain(rotate(), to_field(bits=secure.bits))
        rebuilt = functools.cache(functools.partial(_summed, algorithm, secure, field, lengths))
        algorithm = driven(
            algorithm, ask=lambda task: task._replace(aggregator=rebuilt(task.aggregator))
        )
    states = [_first(task, n) for task, _ in asked_in_a_round(algorithm, population)]
    words = [leaf for state in states for leaf in _named("zero", state)]
    bits = 8 * max(leaf.element_size() for leaf in words)
    norms = [float(leaf) for state in states for leaf in _named("norm", state)]
    if bits == 16 and not private:
        warnings.warn(
            "Sums of 16 bits without noise have steps so large that clients with few examples are "
            f"rounded away while weights of up to {secure.weight_cap} must fit. State the largest "
            "number of examples, fm.Secure(bits=16, weight_cap=...), or leave bits= out.",
            stacklevel=4,
        )
    return Secured(
        algorithm,
        {
            "sum": "protocol" if secure.protocol else "modular",
            "threat": agreed.threat,
            "corrupt": agreed.corrupt,
            "dropped": agreed.dropped,
            "cohort": n,
            "neighbours": agreed.degree,
            "threshold": agreed.threshold,
            "quorum": agreed.quorum,
            "bits": bits,
            "weight_cap": None if private else secure.weight_cap,
            "first_norm": None if private else max(norms),
        },
    )


def _first(task: Task, clients: int) -> Tree:
    """Return the state that an exchange's stages begin with."""
    return task.aggregator.init(example(task), clients).codec


def _named(name: str, state: Tree) -> list[Tensor]:
    return [leaf for path, leaf in trees.items(state) if path[-1] == name]


def _refuse_each(algorithm: Algorithm, rule: Aggregator) -> None:
    if rule.sees is EACH:
        error = unseen(Task({}, algorithm.works[0], rule))
        error.args = (f"{algorithm.name}() cannot be summed securely: {error}",)
        raise error


def _summed(
    algorithm: Algorithm,
    secure: Secure,
    field: Any,
    lengths: dict[Aggregator, float],
    asked: Aggregator,
) -> Aggregator:
    """Rebuild a rule as a sum of whole numbers."""
    _refuse_each(algorithm, asked)
    if asked.fielded is None:
        raise SettingsError(
            f"{algorithm.name}() combines updates by {asked.name}(), which does not say how it is "
            "a sum of whole numbers. Use aggregator=fm.aggregators.weighted_mean() or "
            "uniform_mean(), or leave secure= out."
        )
    length = lengths.get(asked, max(lengths.values(), default=1.0))
    found = asked.fielded(field, secure.weight_cap, length)
    return found._replace(divisor=asked.divisor, averages=asked.averages)


def _length(task: Task) -> float:
    """Return the length of what is broadcast, which is public, and at least 1."""
    return max(float(trees.norm(_floating(task.broadcast))), 1.0)


def _floating(tree: Tree) -> Tree:
    """Return a tree's floating leaves."""
    inner = {key: _floating(part) if isinstance(part, dict) else part for key, part in tree.items()}
    return {
        key: part
        for key, part in inner.items()
        if isinstance(part, dict) or part.is_floating_point()
    }
