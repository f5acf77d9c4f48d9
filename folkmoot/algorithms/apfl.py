"""APFL: each client predicts with a mixture of a model of its own and the global one.

Deng, Kamani and Mahdavi, "Adaptive Personalized Federated Learning", 2020, arXiv:2003.13461,
algorithm 1 with an adaptive alpha. Beside FedAvg's local steps for w_i, with the same batches,

    mixed_i = alpha_i * v_i + (1 - alpha_i) * w_i
    v_i     -= lr * alpha_i * grad F_i(mixed_i)
    alpha_i -= alpha_lr * <v_i - w_i, grad F_i(mixed_i)>,   kept within [0, 1]

so that alpha = 0 is FedAvg and alpha = 1 local training.

Departures: a client that is judged mixes v_i with the global w, as its w_i is gone after the round;
in a round it mixes with w_i, as in the paper. v_i begins as the model that is broadcast when the
client is first asked. BatchNorm statistics of the mixture are its own.

State: FedAvg's; each client keeps v_i and alpha_i. Cost: FedAvg's bytes; two local steps for each
one, of which one makes two more passes over the parameters, and another two where alpha adapts: 2.2
to 2.8 times FedAvg's time on a small model.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork
from folkmoot.core.errors import SettingsError, not_negative
from folkmoot.core.tree import Tree
from folkmoot.local.composed import seam
from folkmoot.local.parts import model_in
from folkmoot.local.twin import twin
from folkmoot.optimizers import Optimizer


def apfl(
    work: LocalWork,
    *,
    alpha: float = 0.5,
    alpha_lr: float = 0.0,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build APFL.

    Clients' tests judge their mixtures, and `result.clients[id].model` is one.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        alpha: Share of a client's own model in its mixture, in [0, 1]; where it adapts, its first
            value.
        alpha_lr: How fast each client adapts its share, at least 0; 0 keeps `alpha`. The paper
            takes the local learning rate.
        server: As in `fedavg`.
        aggregator: As in `fedavg`.

    Returns:
        An algorithm of one exchange a round, whose clients keep a model and their share.

    Raises:
        SettingsError: If `work` is none, writes its own step or has clients with models of their
            own, a number is out of range, or a part is none.
    """
    mixing = _mixing(work, alpha, alpha_lr)
    return fedavg(mixing, server=server, aggregator=aggregator)._replace(name="apfl")


def _mixing(work: LocalWork, alpha: float, alpha_lr: float) -> LocalWork:
    """Train v beside w, by gradients at their mixture."""
    seam("apfl", work)
    not_negative(alpha=alpha, alpha_lr=alpha_lr)
    if alpha > 1:
        raise SettingsError(f"alpha is a share, so at most 1, but is {alpha!r}.")

    def advance(outer: LocalWork, sent: Tree, carry: Tree, mine: Tree, batch: Batch) -> Tree:
        share: Tensor = mine["alpha"]
        mixture = _AtMixture(outer.objective, share, carry["params"], alpha_lr > 0, [])
        moved = work.step(outer._replace(objective=mixture), sent, mine, batch)  # type: ignore[arg-type]
        if not alpha_lr:
            return moved
        return {**moved, "alpha": (share - alpha_lr * mixture.slopes[0]).clamp(0, 1)}

    first = {"alpha": torch.tensor(float(alpha), dtype=torch.float64)}
    beside = twin("apfl", work, advance, first)

    def model(sent: Tree, own: Tree) -> Tree:
        mine = own["twin"]
        return {**model_in(mine), "params": _mixed(mine["alpha"], mine["params"], sent["params"])}

    return beside.changed(model=model)


class _AtMixture(NamedTuple):
    """An objective whose gradient by v is taken at the mixture with w."""

    objective: Any
    share: Tensor
    w: Tree
    adapts: bool
    slopes: list[Tensor]
    """Receives the loss's slope along the share, float64 [], if it adapts."""

    def grad(self, v: Tree, buffers: Tree, counts: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        mixture = _mixed(self.share, v, self.w)
        gradient, loss = self.objective.grad(mixture, buffers, counts, batch)
        if self.adapts:
            away = trees.leaves(trees.sub(v, self.w))
            pairs = zip(away, trees.aligned(v, gradient), strict=True)
            slopes = [torch.dot(a.flatten(), b.flatten()).double() for a, b in pairs]
            self.slopes.append(torch.stack(slopes).sum())
        return trees.scale(self.share, gradient), loss


def _mixed(share: Tensor, v: Tree, w: Tree) -> Tree:
    # In one pass, and exactly v or w at the ends.
    return trees.map(lambda a, b: torch.lerp(a, b, share.to(a.dtype)), w, v)
