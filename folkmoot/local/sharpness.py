"""Gradients at the worst model nearby, which lead to flat minima.

Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
arXiv:2010.01412, equation 2: the gradient is taken at w + rho * g / ||g||, g the gradient at w on
the same batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch, LocalWork, Objective
from folkmoot.core.errors import not_negative
from folkmoot.core.tree import Tree
from folkmoot.local.composed import seam

_TINY = 1e-30
"""A gradient shorter than that moves the model by less than `rho`."""


def sharpness_aware(work: LocalWork, rho: float) -> LocalWork:
    """Take every local gradient at the worst model within `rho`, to first order.

    The norm is over all leaves that a client trains, its own ones too. Corrections ride on the
    gradient at the moved model; batch statistics are those of the pass before the move.

    Args:
        work: Any work with a seam between gradient and step, such as `local.sgd(...)`.
        rho: L2 length of the move, in units of the parameters, at least 0; 0 returns the work
            unchanged.

    Raises:
        SettingsError: If `work` is none, `rho` is negative, or the work writes its own step.
    """
    seam("sharpness_aware", work)
    not_negative(rho=rho)
    if rho == 0:
        return work

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        return work.step(outer._replace(objective=_Sharp(outer.objective, rho)), sent, carry, batch)

    return work.changed(step=step)


class _Sharp(NamedTuple):
    """An objective with the gradient of another one at the worst model nearby."""

    plain: Objective
    rho: float

    def init(self) -> Tree:
        """Return the plain objective's first model."""
        return self.plain.init()

    def with_precision(self, precision: str) -> "_Sharp":
        """Return this objective with gradients in "float32" or "bf16"."""
        return self._replace(plain=self.plain.with_precision(precision))

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        """Return the gradient at the moved model, and the loss where it was not moved."""
        # The second pass must not count its batch again.
        held = trees.clone(buffers), trees.clone(counts)
        gradient, loss = self.plain.grad(params, buffers, counts, batch)
        # In the gradient's precision: it sets how far the move goes, and nothing else.
        length = torch.stack(trees.each("norm", trees.leaves(gradient))).norm()
        # Where there is no slope there is no direction, and the model stays.
        by_length = length.clamp(min=_TINY).reciprocal()
        worst = trees.map(
            lambda w, g: torch.addcmul(w, g, by_length.to(g.dtype), value=self.rho),
            params,
            gradient,
        )
        gradient, _ = self.plain.grad(worst, *held, batch)
        return gradient, loss

    def measure(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> Tree:
        """Return the plain objective's metrics."""
        return self.plain.measure(params, buffers, counts, batch)
