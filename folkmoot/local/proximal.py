"""The proximal term: a pull of the local model towards the broadcast one.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv:1812.06127,
equation 2: mu / 2 * ||w - w_sent||^2 is added to the loss, so mu * (w - w_sent) to the gradient.
"""

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import LocalWork, unchanged
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
    if work.optimizer is not None:
        # Who steps by an optimizer knows how to draw at the least cost.
        return work._replace(pull=work.pull + mu)
    before = work.correct or unchanged

    def correct(gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
        pull = trees.sub(params, sent["params"])
        return trees.axpy(mu, pull, before(gradient, params, sent, own))

    return work._replace(correct=correct)
