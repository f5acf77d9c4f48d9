"""IFCA: clients fall into clusters by which of k models serves them best, and train that one.

Ghosh, Chung, Yin and Ramchandran, "An Efficient Framework for Clustered Federated Learning",
NeurIPS 2020, arXiv:2006.04088, algorithm 1 with option II (model averaging): each client takes the
model with the least loss on its training data, and a model becomes the mean of what its clients
have made of it. A model that nobody took stays as it was.

Departures: losses are measured in evaluation mode. Clients of a cluster count alike, as in the
paper, and the rule is fixed: only sums leave, so a client sends its delta in its cluster's place
among k, zeros in the others, and a codec would see all of them. Integer buffers are averaged in a
cluster and rounded.

State: the k models, stacked, and how many clients of the last cohort took each. `params`, `buffers`
and `counts`, which a common test judges, are those of the model that most of them took. Each client
keeps its cluster and its k losses. Cost: 2k times FedAvg's bytes down, k times up; k more forward
passes over a client's data.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from folkmoot.aggregators import total, uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Plan, Round, Seen, Task
from folkmoot.core.tree import Tree
from folkmoot.local.composed import own_of, refuse_own_models, refuse_private
from folkmoot.local.full_loss import alone
from folkmoot.local.parts import apart, model_in
from folkmoot.local.stacked import picked, starts


def ifca(
    work: LocalWork, *, clusters: int | Sequence[nn.Module], spread: float = 0.5, seed: int = 0
) -> Algorithm:
    """Build IFCA.

    Clients' tests judge their cluster's model, and `result.clients[id].model` is it.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        clusters: How many, at least 2; or the models they begin with, such as modules with other
            random weights.
        spread: Where only a number is given: how far each model begins from the work's own, as
            normal noise by leaf in units of the leaf's root mean square, above 0. Equal models
            would never part.
        seed: Of that noise.

    Returns:
        An algorithm of two exchanges a round, whose clients keep their cluster.

    Raises:
        SettingsError: If `work` is none or its clients have models of their own, `clusters` is
            below 2, two models are equal at the start, or one is unlike the work's.
    """
    refuse_own_models("ifca", work)
    refuse_private("ifca", work, "measures the loss of each client's examples")
    first = starts("ifca", work.init(), clusters, spread, seed)
    k = len(next(iter(first["params"].values())))
    training, choosing = _training(work, k), _choosing(work, k)
    by_client, added = uniform_mean(), total()

    def init() -> Tree:
        models, members = trees.clone(first), torch.zeros(k, dtype=torch.float64)
        return {
            **picked(models, members.argmax()),
            "models": models,
            "members": members,
            "round": torch.ones((), dtype=torch.int64),
        }

    def round(state: Tree) -> Round:
        sent = {name: state[name] for name in ("models", "members", "round")}
        yield Task(sent, choosing, added)
        mean = yield Task(sent, training, by_client)
        members = mean.value["members"] * mean.count
        models = _moved(state["models"], mean.value, members)
        return {
            **picked(models, members.argmax()),
            "models": models,
            "members": members,
            "round": state["round"] + 1,
        }

    return Algorithm("ifca", init, round, (training, choosing))


def _choosing(work: LocalWork, k: int) -> LocalWork:
    """Build work that measures the loss of each model, and notes which is least."""
    beginning, judge = _own(work, k), alone(work.objective)

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {"sums": torch.zeros(k, 2, dtype=torch.float64), "own": own}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        sums, leaves = [], [leaf.unbind() for leaf in trees.leaves(sent["models"])]
        for found in zip(*leaves, strict=True):
            one = trees.like(sent["models"], found)
            model = one["params"], one["buffers"], one["counts"]
            if getattr(judge, "keeps", False):
                judge.renew()  # type: ignore[attr-defined]
            sums.append(judge.measure(*model, batch)["loss"])
        return {**carry, "sums": carry["sums"] + torch.stack(sums)}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        loss, examples = carry["sums"].unbind(1)
        losses = loss / torch.where(examples > 0, examples, 1.0)
        # A model whose loss is no number serves nobody.
        cluster = torch.where(losses.isnan(), torch.inf, losses).argmin()
        own = {**carry["own"], "cluster": cluster, "losses": losses}
        return Update({"members": _one_hot(cluster, k)}, seen.examples), own

    plan, objective = Plan(batch_size=work.plan.batch_size, shuffle=False), work.objective
    return LocalWork(
        "choose", objective, plan, start, step, finish, beginning, correct=None, train=False
    )


def _training(work: LocalWork, k: int) -> LocalWork:
    """Train the chosen model, and send what it has become in its place among k."""

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        chosen = picked(sent["models"], own["cluster"])
        begun = work.start({**sent, **chosen}, own, key)
        return {**begun, "chosen": trees.clone(chosen)}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        carry, chosen = apart(carry, "chosen")
        return {**work.step(outer, {**sent, **chosen}, carry, batch), "chosen": chosen}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        carry, chosen = apart(carry, "chosen")
        update, own = work.finish({**sent, **chosen}, carry, seen)
        hot = _one_hot(own["cluster"], k)
        counts = trees.map(lambda a, b: a.double() - b.double(), update.counts, chosen["counts"])
        placed = trees.map(
            lambda leaf: _column(hot.to(leaf.dtype), leaf.dim()) * leaf,
            {**update.value, "counts": counts},
        )
        return Update({**placed, "members": hot}, update.weight), own

    def model(sent: Tree, own: Tree) -> Tree:
        return picked(sent["models"], own["cluster"])

    return work.changed(own=_own(work, k), start=start, step=step, finish=finish, model=model)


def _own(work: LocalWork, k: int) -> Callable[[Tree], Tree]:
    """Let clients begin in the cluster that most others are in."""

    def own(sent: Tree) -> Tree:
        cluster = sent["members"].argmax()
        inner = own_of(work, {**sent, **picked(sent["models"], cluster)})
        return {**inner, "cluster": cluster, "losses": torch.zeros(k, dtype=torch.float64)}

    return own


def _moved(models: Tree, mean: Tree, members: Tensor) -> Tree:
    """Move each model by the mean of its own clients' deltas, and let those of nobody stay."""
    # Of a sum of whole numbers they are whole within its steps.
    taken = members.round() > 0
    share = torch.where(taken, mean["members"], 1.0)

    def moved(leaf: Tensor, delta: Tensor) -> Tensor:
        new = (delta / _column(share.to(delta.dtype), leaf.dim() - 1)).add_(leaf)
        if not leaf.is_floating_point():
            new = new >= 0.5 if leaf.dtype == torch.bool else new.round().to(leaf.dtype)
        new[~taken] = leaf[~taken]
        return new

    return trees.map(moved, models, model_in(mean))


def _one_hot(cluster: Tensor, k: int) -> Tensor:
    return (torch.arange(k) == cluster).double()


def _column(vector: Tensor, dims: int) -> Tensor:
    """Give a vector (k,) as many dimensions behind as a leaf has."""
    return vector.reshape(-1, *(1,) * dims)
