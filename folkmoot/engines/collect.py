"""How finished blocks become what an engine brings back."""

from folkmoot.core import fold
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.engine import Collected
from folkmoot.engines.stream import Block

_WEIGHT_BYTES = 8


def upload_bytes(encoded: Update) -> int:
    """Return the bytes of one client's encoded update, its counts and its weight."""
    return trees.num_bytes(encoded.value) + trees.num_bytes(encoded.counts) + _WEIGHT_BYTES


def nothing(template: Update) -> Collected:
    """Return the answer of nobody, with an encoded update's leaves."""
    return Collected(fold.zero(template), {}, [], 0.0, 0)


def merged(collected: Collected, block: Block, each_bytes: int) -> Collected:
    """Add a block; blocks must come in the cohort's order."""
    return Collected(
        fold.merge(collected.total, block.total),
        {**collected.own, **block.own},
        collected.left_out + block.left_out,
        collected.client_s + block.client_s,
        collected.upload_bytes + block.total.count * each_bytes,
    )
