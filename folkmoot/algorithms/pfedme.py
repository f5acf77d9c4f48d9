"""pFedMe: clients descend on Moreau envelopes of their losses, whose proximal points are their own.

T Dinh, Tran and Nguyen, "Personalized Federated Learning with Moreau Envelopes", NeurIPS 2020,
arXiv:2006.08848, algorithm 1. For each batch a client takes K steps for its own theta_i, then moves
its copy w_i of the global model:

    theta_i ~ argmin over theta of f_i(theta) + lambda / 2 * ||theta - w_i||^2
    w_i -= lr * lambda * (w_i - theta_i)

Departures: K steps of the work's optimizer replace the paper's accuracy nu; they go on from the
last batch's theta_i, which begins at w in each round. The server's w += beta * mean(w_i - w) is
`server=optimizers.sgd(beta)`. Only clients that are asked train. BatchNorm statistics are those of
theta_i, of the last of a batch's K passes, and are averaged.

State: FedAvg's; each client keeps theta_i, which it is judged by. Cost: FedAvg's bytes; K local
steps for each one, with two more passes over the parameters: K to 1.3 K times FedAvg's time.
"""

from torch import Tensor

from folkmoot.aggregators import uniform_mean
from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Seen
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree
from folkmoot.local.composed import own_of, refuse_own_models, seam
from folkmoot.local.parts import but, model_in
from folkmoot.local.proximal import drawn
from folkmoot.optimizers import Optimizer


def pfedme(
    work: LocalWork,
    *,
    lam: float,
    lr: float,
    inner_steps: int = 5,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build pFedMe.

    Clients' tests judge their own models, and `result.clients[id].model` is one.

    Args:
        work: How a client takes an inner step, such as `local.sgd(...)`; its learning rate times
            `lam` stays below 2.
        lam: Strength of the pull of a client's own model towards its copy of the global one, above
            0; the paper has 15.
        lr: Of the steps of that copy, at least 0; each goes the share lr * lam of the way to the
            client's own model, so keep it at most 1 / lam.
        inner_steps: K, steps of a client's own model for each batch, at least 1.
        server: Optimizer that steps along the mean delta; None is `optimizers.sgd(1.0)`, the
            paper's beta of 1.
        aggregator: How deltas are combined; None is `uniform_mean()`, the paper's.

    Returns:
        An algorithm of one exchange a round, whose clients keep a model.

    Raises:
        SettingsError: If `work` is none, writes its own step or has clients with models of their
            own, a number is out of range, or a part is none.
    """
    enveloped = _enveloped(work, lam, lr, inner_steps)
    aggregator = uniform_mean() if aggregator is None else aggregator
    return fedavg(enveloped, server=server, aggregator=aggregator)._replace(name="pfedme")


def _enveloped(work: LocalWork, lam: float, lr: float, inner_steps: int) -> LocalWork:
    """Take the work's steps for theta, and let w follow it."""
    refuse_own_models("pfedme", work)
    seam("pfedme", work)
    positive(lam=lam)
    not_negative(lr=lr)
    if not isinstance(inner_steps, int) or isinstance(inner_steps, bool) or inner_steps < 1:
        raise SettingsError(
            f"inner_steps must be a whole number of at least 1, but is {inner_steps!r}."
        )

    def own(sent: Tree) -> Tree:
        return {**own_of(work, sent), "theta": model_in(sent)}

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        own = but(own, "theta")
        return {**work.start(sent, own, key), "theta": sent["params"]}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        inner = drawn(outer, lam)
        w, statistics = carry["params"], {part: carry[part] for part in ("buffers", "counts")}
        # The pull is to this client's own copy of the global model, not to what was broadcast.
        near = {**sent, "params": w}
        moving = {**but(carry, "theta"), "params": carry["theta"]}
        for left in reversed(range(inner_steps)):
            # A batch is one to the statistics.
            shown = trees.clone(statistics) if left else statistics
            moving = work.step(inner, near, {**moving, **shown}, batch)
        theta = moving["params"]
        _go(w, lr * lam, theta)
        return {**moving, "params": w, "theta": theta}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, but(carry, "theta"), seen)
        theta = {**model_in(carry), "params": carry["theta"]}
        return update, {**own, "theta": theta}

    def model(sent: Tree, own: Tree) -> Tree:
        theta: Tree = own["theta"]
        return theta

    return work.changed(own=own, start=start, step=step, finish=finish, model=model)


def _go(w: Tree, share: float, theta: Tree) -> None:
    """Move w a share of the way to theta: in one pass, which mapped leaves do not have."""
    leaves, there = trees.leaves(w), trees.aligned(w, theta)
    if trees.is_ordinary(leaves[0]):
        trees.each("lerp_", leaves, there, share)
    else:
        trees.axpy_(w, share, trees.sub(theta, w))
