"""An algorithm whose every exchange is combined by a rule that bounds, noises and divides.

Nothing of the algorithm is known here: its round is driven as it is, and the aggregators of what it
asks are rebuilt.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from folkmoot.core.aggregator import EACH, Aggregator, State, Update
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.core.codec import Codec
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.train.driven import driven


def shielded(algorithm: Algorithm, rule: Callable[[Aggregator], Aggregator]) -> Algorithm:
    """Return an algorithm whose exchanges are combined by `rule` of what it asks for."""
    rebuilt = functools.cache(rule)
    variances = _variances(algorithm.objective)
    return driven(
        algorithm,
        ask=lambda task: task._replace(aggregator=rebuilt(task.aggregator)),
        end=lambda state: _mended(state, variances),
    )


def with_works(algorithm: Algorithm, change: Callable[[LocalWork], LocalWork]) -> Algorithm:
    """Return an algorithm that asks for changed works, wherever it asks for some."""
    changed = functools.cache(change)
    found = driven(algorithm, ask=lambda task: task._replace(work=changed(task.work)))
    return found._replace(works=tuple(map(changed, algorithm.works)))


def private_mean(
    name: str, before: Codec, after: tuple[Codec, ...], expected: float, asked: Aggregator
) -> Aggregator:
    """Rebuild a rule as the uniform mean over the expected cohort, bounded and noised."""
    if asked.bounded is not None:
        return asked.bounded((before,), after, expected)
    if asked.sees is EACH:
        why = "looks at single updates, which privacy hides"
    elif not asked.averages:
        why = "adds what is neither clipped nor divided by a fixed number"
    elif asked.name != "weighted_mean":
        why = "does not say how it is bounded, so one client could outweigh all noise"
    else:
        why = "weighs clients, and a weight has no bound, so one client could outweigh all noise"
    raise SettingsError(
        f"{name}() combines updates by {asked.name}(), which cannot be private: it {why}. Use "
        "aggregator=fm.aggregators.uniform_mean() where the algorithm has that option, or another "
        "algorithm, such as fm.fedavg(work)."
    )


def noised_by_clients(rule: Callable[[Aggregator], Aggregator]) -> Callable[..., Aggregator]:
    """Return `rule` where clients add the noise: each number that travels is then a noisy one,
    whatever a work has packed."""

    def noised(asked: Aggregator) -> Aggregator:
        found = rule(asked)

        def encode(state: State, update: Update, key: int) -> Update:
            return found.encode(state, update._replace(packed_bytes=None), key)

        return found._replace(encode=encode)

    return noised


def _variances(objective: Any) -> tuple[str, ...]:
    """Name the leaves that must not fall below 0, as noise may let them."""
    module = getattr(objective, "model", None)
    if module is None:
        return ()
    layers = module.named_modules()
    kind = nn.modules.batchnorm._NormBase
    found = [(name, layer) for name, layer in layers if isinstance(layer, kind)]
    # A Keras layer says what its variance is called.
    return tuple(f"{name}.{getattr(layer, 'variance', 'running_var')}" for name, layer in found)


def _mended(state: Tree, variances: tuple[str, ...]) -> Tree:
    """Lift noisy variances to 0: what is done to a release costs no privacy."""
    low = [name for name in variances if name in state["buffers"]]
    if not low:
        return state
    buffers = {**state["buffers"], **{name: state["buffers"][name].clamp(min=0) for name in low}}
    return {**state, "buffers": buffers}
