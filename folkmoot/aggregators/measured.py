"""A rule that also tells how far clients' updates point apart: their gradient diversity.

Yin et al., "Gradient Diversity: a Key Ingredient for Scalable Distributed Learning", AISTATS 2018,
arXiv:1706.05699: the mean squared length of updates over the squared length of their mean. It is 1
where all are alike, and the number of clients where they have nothing in common. The squared
lengths are added like everything else.
"""

from typing import Any

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, State, Sum, Update
from folkmoot.core.tree import Tree

SQUARES = "squares"
"""The leaf of a sum that holds squared lengths: a weight enters it squared."""
DIVERSITY = "diversity"
"""The leaf of the codec state in which it is told."""


def measured(aggregator: Aggregator) -> Aggregator:
    """Build a rule that leaves the diversity of the last sum in its codec state, "diversity".

    Args:
        aggregator: One that sees nothing but sums, and whose sum of leaves has a "params".

    Returns:
        A rule with the same aggregate, bit for bit; for sums that are neither private nor secure.
    """

    def init(example: Update, clients: int) -> State:
        return aggregator.init(example, clients)

    def encode(state: State, update: Update, key: int) -> Update:
        encoded = aggregator.encode(_own(state), update, key)
        squares = _squared(update.value["params"], update.weight)
        packed = encoded.packed_bytes
        return encoded._replace(
            value={**encoded.value, SQUARES: squares},
            packed_bytes=trees.num_bytes(encoded.value) if packed is None else packed,
        )

    def decode(state: State, added: Sum, key: int) -> tuple[Tree, Tree, State]:
        sums = {name: part for name, part in added.value.items() if name != SQUARES}
        value, counts, following = aggregator.decode(_own(state), added._replace(value=sums), key)
        mean = float(trees.norm(value["params"])) ** 2
        apart = float(added.value[SQUARES]) / added.weight / mean if mean and added.weight else 0.0
        told = {**following.codec, DIVERSITY: torch.tensor(apart, dtype=torch.float64)}
        return value, counts, following._replace(codec=told)

    return aggregator._replace(init=init, encode=encode, decode=decode)


def _own(state: State) -> State:
    kept = {name: part for name, part in state.codec.items() if name != DIVERSITY}
    return state._replace(codec=kept)


def _squared(params: Any, weight: float | Tensor) -> Tensor:
    """Return the squared length of an update, []; of many clients' at once, (clients,)."""
    many = isinstance(weight, Tensor) and weight.dim() > 0
    if many:
        return sum(leaf.flatten(1).square().sum(1) for leaf in trees.leaves(params))  # type: ignore[return-value]
    norms = torch._foreach_norm(trees.leaves(params))
    return torch.stack(norms).square().sum()
