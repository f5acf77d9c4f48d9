"""The proximal term: a pull of the local model towards the broadcast one.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv:1812.06127,
equation 2: mu / 2 * ||w - w_sent||^2 is added to the loss, so mu * (w - w_sent) to the gradient.
"""

import dataclasses

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Correct, LocalWork, unchanged
from folkmoot.core.errors import not_negative
from folkmoot.core.tree import Tree
from folkmoot.local.composed import seam


def proximal(work: LocalWork, mu: float) -> LocalWork:
    """Add mu times the distance from the broadcast parameters to every local gradient.

    Args:
        work: Any work with a seam between gradient and step, such as `local.sgd(...)`.
        mu: Strength of the pull, at least 0; 0 returns the work unchanged.

    Raises:
        SettingsError: If `work` is none, `mu` is negative, or the work writes its own step.
    """
    seam("proximal", work)
    not_negative(mu=mu)
    return drawn(work.changed(), mu) if mu else work


def drawn(work: LocalWork, mu: float) -> LocalWork:
    """Return a work as a step is given it, pulled by `mu` more."""
    return work._replace(correct=Pull(work.correct or unchanged, mu))


@dataclasses.dataclass(frozen=True)
class Pull:
    """A correction that adds the pull to what another one makes of the gradient.

    A step may look for it, and draw the parameters in place instead.
    """

    before: Correct
    mu: float
    personal: frozenset[str] = frozenset()
    """Leaves that are not pulled, where a step is given the whole model."""

    def __call__(self, gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
        """Return the corrected gradient with mu * (params - sent) of the shared leaves."""
        gradient = self.before(gradient, params, sent, own)
        away = trees.sub(self.shared(params), self.shared(sent["params"]))
        return {**gradient, **trees.axpy(self.mu, away, self.shared(gradient))}

    def draw_(self, params: Tree, sent: Tree, lr: float) -> None:
        """Move shared parameters as a plain step of rate `lr` along the pull does."""
        near = self.shared(params)
        # Of w - lr (g + mu (w - w_sent)) the pull goes the share lr * mu of the way back.
        away = trees.aligned(near, self.shared(sent["params"]))
        trees.each("lerp_", trees.leaves(near), away, lr * self.mu)

    def shared(self, tree: Tree) -> Tree:
        """Return the leaves on which the pull acts."""
        if not self.personal:
            return tree
        return {name: leaf for name, leaf in tree.items() if name not in self.personal}
