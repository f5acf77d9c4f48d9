"""How finished blocks become what an engine brings back."""

from folkmoot.core import fold
from folkmoot.core.aggregator import Update
from folkmoot.core.engine import Collected
from folkmoot.engines.stream import Block


def nothing(template: Update) -> Collected:
    """Return the answer of nobody, with an encoded update's leaves."""
    return Collected(fold.zero(template), {}, [], 0.0, {})


def merged(collected: Collected, block: Block) -> Collected:
    """Add a block; blocks must come in the cohort's order."""
    # In place: there may be a hundred blocks of thousands of clients.
    collected.uploads.update(block.uploads)
    return Collected(
        fold.merge(collected.total, block.total),
        {**collected.own, **block.own},
        collected.left_out + block.left_out,
        collected.client_s + block.client_s,
        collected.uploads,
    )
