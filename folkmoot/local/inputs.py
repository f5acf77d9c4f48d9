"""Batches lent to a model: what it writes into its inputs, nobody else may see.

An objective may be shown one batch several times, by algorithms that look at two models in one
step, so none of its passes may change it. A copy for each pass would cost a twentieth of a small
model's step, and hardly a model needs it: the first pass is made with a copy and shows whether this
one does.
"""

from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree


class Inputs:
    """What a module's passes in one mode do to the rows that they are given."""

    def __init__(self) -> None:
        self.written: bool | None = None
        """Whether a pass has written into its inputs; None before the first one."""
        self._before: list[int] = []

    def lend(self, data: Tree) -> Tree:
        """Return rows that a pass may have: these, or a copy where passes write into them."""
        lent = data if self.written is False else trees.clone(data)
        self._before = _versions(lent)
        return lent

    def take_back(self, lent: Tree) -> None:
        """Note after a pass whether it has written into what was lent.

        Raises:
            SettingsError: If it has, though the first pass did not: others will see these rows.
        """
        if _versions(lent) == self._before:
            self.written = bool(self.written)
        elif self.written is False:
            raise SettingsError(
                "Some passes of the model write into their inputs, but not the first one, so the "
                "rows cannot be kept from changing. Let forward() work on a copy, such as "
                "x = x + 1 in place of x += 1."
            )
        else:
            self.written = True


def _versions(rows: Tree) -> list[int]:
    """Return how often each leaf was written into so far; one of inference mode does not tell."""
    return [-1 if leaf.is_inference() else leaf._version for leaf in trees.leaves(rows)]
