"""A rule as a sum of whole numbers, which a secure protocol can take: nothing else leaves a client.

Bonawitz et al., CCS 2017, section 7: a secure sum is one of integers modulo a power of two. So an
update is clipped, weighed by its share of the largest weight, and rounded; beside it travel, as
whole numbers too, its weight, and whether it was clipped or its weight was capped. Where nothing
bounds an update, the clip's norm follows the 0.99 quantile of the norms by the rule of Andrew et
al., NeurIPS 2021, arXiv:1905.03871, from a number that is public. It begins far above any update,
and comes down by quarters while nearly all updates are shorter than an eighth of it. So does the
weight that counts as whole, while all weights are below an eighth of it, since what an update can
be told apart by is a share of that; it goes up again, to the cap, where a weight was above it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from folkmoot.core.aggregator import Aggregator, State, Sum, Update
from folkmoot.core.codec import Bounds, Codec, Layout, chain
from folkmoot.core.errors import ClientError, QuorumError, SettingsError
from folkmoot.core.tree import Tree

_QUANTILE = 0.99
_RATE = 0.2
_SHORT, _DOWN = 1 / 8, 1 / 4
_UNEVEN = 2.0**-8
"""Share by which a weight may be rounded."""
_GUARD = 1 / (1 + 2.0**-20)
_MOST = 64 * math.log(2)
"""A norm stays within 2^64 and 2^-64."""


class Parts(NamedTuple):
    """What a rule is made of."""

    name: str
    codecs: tuple[Codec, ...]
    weigh: Callable[[Update], float | Tensor]
    """From an update to its weight."""
    divisor: Callable[[Sum], float]
    """From the sum to what it is divided by."""
    weighted: bool
    """Whether weights differ."""


def fielded(parts: Parts, field: Codec, most: int, norm: float) -> Aggregator:
    """Build a rule whose encoded updates are whole numbers that add up modulo a power of two.

    Args:
        parts: Of the rule.
        field: Stages from a vector to whole numbers, such as chain(rotate(), to_field()).
        most: Largest weight; more counts as that.
        norm: First norm of the clip, where the rule's own stages leave updates without a bound.

    Returns:
        A rule that sees nothing but sums. Its codec state holds the present "norm", and under
        "told" how many updates of the last sum were "clipped", how many weights "capped", and how
        many single numbers "cut".
    """
    stages = chain(*parts.codecs)

    def init(example: Update, clients: int) -> State:
        if clients * most >= 2**32:
            raise SettingsError(
                f"Weights of up to {most} each of {clients} clients do not fit into 32 bits. Pass "
                f"a smaller cap: secure=fm.Secure(weight_cap={(2**32 - 1) // clients})."
            )
        layout = Layout.of(example.value)
        bounds = Bounds(weight=1.0, clients=clients, size=layout.size, expected=clients)
        own, bounds = stages.init(bounds, layout)
        clips = not math.isfinite(bounds.l2)
        inner, after = field.init(bounds._replace(l2=1.0) if clips else bounds, layout)
        state = {
            "stages": own,
            "field": inner,
            "norm": torch.tensor(norm if clips else 0.0, dtype=torch.float64),
            "whole": torch.tensor(float(most), dtype=torch.float64),
            # Steps of a weight of 1: as many as the sum of all has room for.
            "steps": torch.tensor(1 << ((2**32 - 1) // (clients * most)).bit_length() - 1),
            "told": {name: torch.tensor(0) for name in ("clipped", "capped", "cut")},
        }
        return State(state, after, layout, example.counts)

    def encode(state: State, update: Update, key: int) -> Update:
        given, steps = float(parts.weigh(update)), int(state.codec["steps"])
        whole = float(state.codec["whole"])
        weight = round(min(given, whole) * steps) / steps
        if abs(weight - min(given, whole)) > given * _UNEVEN:
            raise ClientError(
                f"An update weighs {given:g}, but a secure sum of weights up to {most} adds them "
                f"in steps of {1 / steps:g}. Pass a smaller cap: secure=fm.Secure(weight_cap=...)."
            )
        vector = stages.encode(state.codec["stages"], state.layout.pack(update.value), key)
        vector, length = _in_ball(vector, norm := float(state.codec["norm"]))
        if parts.weighted:
            # A bit that a stage has added is one client's, whatever the client weighs.
            vector[: state.layout.size] *= weight / whole
        told = [
            round(weight * steps),
            length > norm,
            length <= _SHORT * norm,
            given > whole,
            given <= _SHORT * whole,
        ]
        return Update(
            {
                "vector": field.encode(state.codec["field"], vector, key),
                "told": torch.tensor(told).to(torch.int32),
            }
        )

    def decode(state: State, added: Sum, key: int) -> tuple[Tree, Tree, State]:
        codec, told = state.codec, added.value["told"].tolist()
        weighed, clipped, short, capped, light = (number % 2**32 for number in told)
        weight = weighed / int(codec["steps"])
        vector, inner = field.decode(codec["field"], added.value["vector"], key)
        norm, whole = float(codec["norm"]), float(codec["whole"])
        if parts.weighted:
            vector[: state.layout.size] *= whole
        if norm:
            vector *= norm / _GUARD
        vector, own = stages.decode(codec["stages"], vector, key)
        share = 1 / _divisor(parts, added._replace(weight=weight))
        norm = _next_norm(norm, clipped / added.count, short / added.count)
        following = {
            **codec,
            "stages": own,
            "field": inner,
            "norm": torch.tensor(norm, dtype=torch.float64),
            "whole": torch.tensor(_next_whole(whole, capped, added.count - light, most)).double(),
            "told": {
                "clipped": torch.tensor(clipped),
                "capped": torch.tensor(capped),
                "cut": torch.tensor(_cut(inner)),
            },
        }
        value = state.layout.unpack(vector * share)
        return value, state.counts, state._replace(codec=following)

    return Aggregator(f"secure {parts.name}", init, encode, decode)


def _in_ball(vector: Tensor, norm: float) -> tuple[Tensor, float]:
    """Scale a vector into the unit ball, if there is a norm; tell its length, or else 0."""
    if not norm:
        return vector, 0.0
    length = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    if not math.isfinite(length):
        vector = vector.double().nan_to_num(nan=0.0)
        length = float(torch.linalg.vector_norm(vector))
    return (vector * (_GUARD / max(length, norm))).float(), length


def _next_norm(norm: float, clipped: float, short: float) -> float:
    """Return the norm of the next round: larger where more than 1 in 100 were clipped."""
    if not norm:
        return 0.0
    following = math.log(norm) - _RATE * (1 - clipped - _QUANTILE)
    if short >= _QUANTILE:
        following = math.log(norm * _DOWN)
    return math.exp(min(max(following, -_MOST), _MOST))


def _next_whole(whole: float, capped: int, heavy: int, most: int) -> float:
    """Return the weight that is whole in the next round: none at all is much below or above it."""
    if capped:
        return min(whole / _DOWN, float(most))
    return whole if heavy else max(whole * _DOWN, 1.0)


def _cut(state: Tree) -> int:
    """Return how many numbers were beyond the range of a field, wherever it stands in a chain."""
    parts = state.values()
    return int(state.get("cut", 0)) + sum(_cut(part) for part in parts if isinstance(part, dict))


def _divisor(parts: Parts, added: Sum) -> float:
    if not added.count or (parts.weighted and not added.weight):
        raise QuorumError("Nobody is in the secure sum, or all of its weights are 0.")
    return parts.divisor(added)
