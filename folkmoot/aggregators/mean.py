"""Means and totals: the rules that need nothing but a sum.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, arXiv:1602.05629 (the mean weighted by examples).
"""

import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from folkmoot.aggregators.faults import misfit, not_finite
from folkmoot.aggregators.fielded import Parts, fielded
from folkmoot.aggregators.traffic import travelled
from folkmoot.aggregators.within import within
from folkmoot.core import fold
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, Aggregator, State, Sum, Update
from folkmoot.core.codec import Bounds, Codec, Layout, chain
from folkmoot.core.errors import ClientError, QuorumError, SettingsError, positive
from folkmoot.core.tree import Tree


def weighted_mean(*codecs: Codec) -> Aggregator:
    """Mean over the clients that answered, each by its weight (its number of examples, as a rule).

    A weight has no bound, so one client's share has none either: a stage that needs a bound (noise,
    a field) refuses this rule and asks for `uniform_mean`.

    Args:
        codecs: Stages between each client's update and the sum.
    """
    return _linear("weighted_mean", codecs, math.inf, lambda update: update.weight, _by_weight)


def uniform_mean(*codecs: Codec, divisor: float | None = None) -> Aggregator:
    """Mean in which every client counts the same.

    Args:
        codecs: Stages between each client's update and the sum.
        divisor: Divide by this number, the *expected* cohort, and not by the number of clients that
            answered: under differential privacy the divisor must not depend on who took part. None
            divides by the number that answered. A sum of nobody then decodes as well.

    Raises:
        SettingsError: If `divisor` is not above 0.
    """
    if divisor is not None:
        positive(divisor=divisor)
    rule = _linear(
        "uniform_mean",
        codecs,
        1.0,
        lambda update: 1.0,
        lambda added: divisor or added.count,
        expected=divisor,
    )
    return rule._replace(divisor=divisor, bounded=_bounded(codecs))


def unnamed_mean() -> Aggregator:
    """Return what algorithms take that average by examples, where nobody has named a rule.

    That is `weighted_mean()`; under differential privacy, where a mean needs a bound on what one
    client weighs, the uniform mean takes its place. A `weighted_mean()` that was named is refused.
    """
    return weighted_mean()._replace(bounded=_bounded(()))


def _bounded(
    own: tuple[Codec, ...],
) -> Callable[[tuple[Codec, ...], tuple[Codec, ...], float], Aggregator]:
    """Return how a uniform mean is built around a rule's own stages.

    Integer leaves stay with the clients: nothing bounds or hides them.
    """

    def build(before: tuple[Codec, ...], after: tuple[Codec, ...], divisor: float) -> Aggregator:
        stages = (*before, *map(within, own), *after)
        rule = _linear(
            "uniform_mean",
            stages,
            1.0,
            lambda update: 1.0,
            lambda added: divisor,
            expected=divisor,
            counted=False,
        )
        return rule._replace(divisor=divisor)

    return build


def total(*codecs: Codec) -> Aggregator:
    """Sum over the clients that answered, unweighted and undivided; metrics are added by it."""
    added = _linear("total", codecs, 1.0, lambda update: 1.0, lambda added: 1.0)
    return added._replace(averages=False)


def _by_weight(added: Sum) -> float:
    if not added.weight:
        raise QuorumError(
            f"The weights of all {added.count} clients that answered add up to 0, so there is no "
            "weighted mean. Look at the clients' numbers of examples, or use uniform_mean()."
        )
    return added.weight


def _linear(
    name: str,
    codecs: tuple[Codec, ...],
    largest_weight: float,
    weigh: Callable[[Update], float | Tensor],
    divisor: Callable[[Sum], float],
    *,
    expected: float | None = None,
    counted: bool = True,
) -> Aggregator:
    """Build a rule that sums weight * encoded value and divides.

    Args:
        name: Of the rule.
        codecs: Its stages.
        largest_weight: Of one client.
        weigh: From an update to its weight.
        divisor: From the sum to what it is divided by.
        expected: Clients that a sum holds on average; None is the most that it may hold.
        counted: Whether integer leaves are summed; else those that were sent remain.
    """
    for codec in codecs:
        if not isinstance(codec, Codec):
            raise SettingsError(
                f"{name}() takes codecs, such as fm.codecs.clip(1.0), but was given {codec!r}."
            )
    stages = chain(*codecs)

    def init(example: Update, clients: int) -> State:
        layout = Layout.of(example.value)
        bounds = Bounds(
            weight=largest_weight,
            clients=clients,
            size=layout.size,
            expected=clients if expected is None else expected,
        )
        codec, bounds = stages.init(bounds, layout)
        if bounds.noise and name == "uniform_mean" and expected is None:
            raise SettingsError(
                f"{stages.name} hides who takes part, but this mean is over those that answered, "
                "and their number tells. Divide by the expected cohort: uniform_mean(..., "
                "divisor=...)."
            )
        return State(codec, bounds, layout, example.counts)

    def encode(state: State, update: Update, key: int) -> Update:
        weighed = update._replace(weight=weigh(update), counts=update.counts if counted else {})
        if not codecs:
            # No stage, no packing: the leaves are added where they are.
            return weighed
        vector, size = travelled(stages, state.codec, state.layout.pack(update.value), key)
        size = update.packed_bytes if size is None else size
        return weighed._replace(value={"vector": vector}, packed_bytes=size)

    def decode(state: State, added: Sum, key: int) -> tuple[Tree, Tree, State]:
        share = 1 / divisor(added)
        counts = _rounded_mean(added, state.counts) if counted else state.counts
        if not codecs:
            mean = trees.scale(share, added.value)
            dtypes = iter(state.layout.dtypes)
            return trees.map(lambda leaf: leaf.to(next(dtypes)), mean), counts, state
        vector, codec = stages.decode(state.codec, added.value["vector"], key)
        return state.layout.unpack(vector * share), counts, state._replace(codec=codec)

    parts = Parts(name, codecs, weigh, divisor, weighted=largest_weight != 1.0)
    return Aggregator(
        name, init, encode, decode, fielded=functools.partial(fielded, parts) if counted else None
    )


def _rounded_mean(total: Sum, like: Tree) -> Tree:
    """Return the weighted mean of integer leaves, rounded half to even; booleans by majority."""

    def mean(added: Tensor, leaf: Tensor) -> Tensor:
        value = added / total.weight if total.weight else added
        return (value >= 0.5) if leaf.dtype == torch.bool else value.round().to(leaf.dtype)

    return trees.map(mean, total.counts, like) if like else {}


def aggregate(aggregator: Aggregator, updates: Iterable[Update], key: int = 0) -> Tree:
    """Put updates through an aggregator by hand and return the aggregate's value.

    Clients are numbered by position. Integer leaves come back beside the floating ones.

    Raises:
        ClientError: If an update has a bad weight, a NaN, an infinity, or leaves that the first one
            has not.
        QuorumError: If there is no update, or all weights are 0.
    """
    given = list(updates)
    if not given:
        raise QuorumError("There is no update to aggregate; the model stays as it is.")
    state = aggregator.init(given[0], len(given))
    encoded = []
    for client, update in enumerate(given):
        reason = misfit(update, given[0])
        if reason is None:
            encoded.append(aggregator.encode(state, update, key))
            # A weight of 0 adds nothing to a sum, not even 0 * NaN.
            if aggregator.sees is EACH or float(encoded[-1].weight):
                reason = not_finite(update.value)
        if reason:
            raise ClientError(f"Client {client} cannot be aggregated: {reason}.")
    answers: list[Update] | Sum = encoded
    if aggregator.sees is not EACH:
        answers = fold.zero(encoded[0])
        for block in fold.blocks(range(len(encoded))):
            partial = fold.zero(encoded[0])
            for place in block:
                partial = fold.add(partial, encoded[int(place)])
            answers = fold.merge(answers, partial)
    value, counts, _ = aggregator.decode(state, answers, key)
    return {**value, **counts}
