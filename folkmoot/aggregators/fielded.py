"""A rule as a sum of whole numbers, which a secure protocol can take: nothing else leaves a client.

Bonawitz et al., CCS 2017, section 7: a secure sum is one of integers modulo a power of two. So an
update is clipped, weighed by its share of the largest weight, and rounded; beside it travel, as
whole numbers too, its weight, and whether it was clipped or its weight was capped. Where nothing
bounds an update, the clip's norm follows the 0.99 quantile of the norms by the rule of Andrew et
al., NeurIPS 2021, arXiv:1905.03871, from a number that is public. That begins far above updates as
they are, for what is clipped once may be missing for good where clients keep a state; and comes
down by quarters while nearly all are shorter than an eighth of it. Where half or more are longer,
it grows by sixteen.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from folkmoot.core.aggregator import Aggregator, State, Sum, Update
from folkmoot.core.codec import Bounds, Codec, Layout, chain
from folkmoot.core.errors import QuorumError, SettingsError
from folkmoot.core.tree import Tree

_QUANTILE = 0.99
_RATE = 0.2
_FIRST, _FIRST_WEIGHED = 2.0**16, 2.0**5
"""Lengths of what is broadcast at which a clip begins; weights take steps that it then has not."""
_SHORT, _DOWN = 1 / 8, 1 / 4
_LONG, _UP = 1 / 2, 16
_UNEVEN, _FAINT = 2.0**-8, 2.0**-20
"""Share by which a weight may be rounded, and share of the largest that leaves an update steps."""
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


def fielded(parts: Parts, field: Codec, most: int, length: float) -> Aggregator:
    """Build a rule whose encoded updates are whole numbers that add up modulo a power of two.

    Args:
        parts: Of the rule.
        field: Stages from a vector to whole numbers, such as chain(rotate(), to_field()).
        most: Largest weight; more counts as that.
        length: A public one: where the rule's own stages leave updates without a bound, the clip's
            norm begins at 2^16 times that, or 2^5 times under weights.

    Returns:
        A rule that sees nothing but sums. Its codec state holds the present "norm", and under
        "told" how many updates of the last sum were "clipped", how many weights "capped", or so
        small beside the cap that they are "faint", and how many single numbers "cut".
    """
    stages = chain(*parts.codecs)
    norm = length * (_FIRST_WEIGHED if parts.weighted else _FIRST)

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
            # Steps of a weight of 1: as many as the sum of all has room for.
            "steps": torch.tensor(1 << ((2**32 - 1) // (clients * most)).bit_length() - 1),
            "told": {name: torch.tensor(0) for name in ("clipped", "capped", "faint", "cut")},
        }
        return State(state, after, layout, example.counts)

    def encode(state: State, update: Update, key: int) -> Update:
        given, steps = float(parts.weigh(update)), int(state.codec["steps"])
        weight = round(min(given, most) * steps) / steps
        vector = stages.encode(state.codec["stages"], state.layout.pack(update.value), key)
        vector, length = _in_ball(vector, norm := float(state.codec["norm"]))
        if parts.weighted:
            # A bit that a stage has added is one client's, whatever the client weighs.
            vector[: state.layout.size] *= weight / most
        told = [round(weight * steps), length > norm, length <= _SHORT * norm]
        told += [given > most, _is_faint(min(given, most), weight, most)]
        whole = field.encode(state.codec["field"], vector, key)
        return Update({"vector": whole, "told": torch.tensor(told).to(torch.int32)})

    def decode(state: State, added: Sum, key: int) -> tuple[Tree, Tree, State]:
        codec, told = state.codec, added.value["told"].tolist()
        weighed, clipped, short, capped, faint = (number % 2**32 for number in told)
        weight = weighed / int(codec["steps"])
        vector, inner = field.decode(codec["field"], added.value["vector"], key)
        norm = float(codec["norm"])
        if parts.weighted:
            vector[: state.layout.size] *= most
        if norm:
            vector *= norm / _GUARD
        vector, own = stages.decode(codec["stages"], vector, key)
        share = 1 / _divisor(parts, added._replace(weight=weight))
        norm = _next_norm(norm, clipped / added.count, short / added.count)
        heard = {"clipped": clipped, "capped": capped, "faint": faint, "cut": _cut(inner)}
        following = {
            **codec,
            "stages": own,
            "field": inner,
            "norm": torch.tensor(norm, dtype=torch.float64),
            "told": {name: torch.tensor(number) for name, number in heard.items()},
        }
        value = state.layout.unpack(vector * share)
        return value, state.counts, state._replace(codec=following)

    return Aggregator(f"secure {parts.name}", init, encode, decode)


def _is_faint(wanted: float, weight: float, most: int) -> bool:
    """Tell whether a weight is rounded too far, or leaves its update too few steps."""
    return abs(weight - wanted) > wanted * _UNEVEN or 0 < wanted < most * _FAINT


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
    if short >= _QUANTILE or clipped >= _LONG:
        following = math.log(norm * (_UP if clipped >= _LONG else _DOWN))
    return math.exp(min(max(following, -_MOST), _MOST))


def _cut(state: Tree) -> int:
    """Return how many numbers were beyond the range of a field, wherever it stands in a chain."""
    parts = state.values()
    return int(state.get("cut", 0)) + sum(_cut(part) for part in parts if isinstance(part, dict))


def _divisor(parts: Parts, added: Sum) -> float:
    if not added.count or (parts.weighted and not added.weight):
        raise QuorumError(
            "Nobody is in the secure sum, or all of its weights are 0, or too small beside the "
            "largest that may be: fm.Secure(weight_cap=...)."
        )
    return parts.divisor(added)
