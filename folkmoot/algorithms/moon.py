"""MOON: a client's representation is drawn to the global model's, away from its own previous one.

Li, He and Song, "Model-Contrastive Federated Learning", CVPR 2021, arXiv:2103.16257, algorithm 1.
With z, z_glob and z_prev what the local, the broadcast and the client's previous local model make
of a row, equation 3 adds to the loss mu times

    -log(exp(sim(z, z_glob) / t) / (exp(sim(z, z_glob) / t) + exp(sim(z, z_prev) / t)))

with sim the cosine. A client that is asked for the first time has the broadcast model for its
previous one, so that the term pulls nowhere.

Departures: any named layer gives the representation; the paper puts a projection head of its own
before the output. z_glob and z_prev are taken in evaluation mode. A row whose representation is 0
is not divided by its length.

State: FedAvg's; each client keeps its last local model. Cost: FedAvg's bytes; a local step takes
two more forward passes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Seen
from folkmoot.core.errors import not_negative, positive
from folkmoot.core.tree import Tree
from folkmoot.local.composed import own_of, refuse_no_work
from folkmoot.local.features import featured
from folkmoot.local.module import ModuleObjective
from folkmoot.local.personal import PARTS
from folkmoot.optimizers import Optimizer


def moon(
    work: LocalWork,
    *,
    features: str,
    mu: float = 1.0,
    temperature: float = 0.5,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build MOON: FedAvg with a contrastive term in the local loss.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        features: The layer of the model whose output is the representation, such as "body.2".
        mu: Weight of the term, at least 0; 0 is FedAvg bit for bit. The paper tunes it among 0.1,
            1, 5 and 10.
        temperature: Divides similarities, above 0.
        server: As in `fedavg`.
        aggregator: As in `fedavg`.

    Returns:
        An algorithm of one exchange a round, whose clients keep a state.

    Raises:
        SettingsError: If `work` is none, the model has no such layer, or a number is out of range.
    """
    refuse_no_work("moon", work)
    not_negative(mu=mu)
    positive(temperature=temperature)
    contrasted = _contrasted(work, features, mu, temperature)
    # Without the term there is nothing that a client must keep.
    built = fedavg(contrasted if mu else work, server=server, aggregator=aggregator)
    return built._replace(name="moon")


def _contrasted(work: LocalWork, features: str, mu: float, temperature: float) -> LocalWork:
    """Add the contrastive term to the local loss, and keep the local model for the next time."""

    def term(z: Tensor, others: Tree) -> Tensor:
        away = _cosine(z, others["previous"]) - _cosine(z, others["sent"])
        return -mu * F.logsigmoid(-away / temperature)

    objective = featured(work.objective, features, term)

    def own(sent: Tree) -> Tree:
        first = trees.clone({part: sent[part] for part in PARTS})
        return {**own_of(work, sent), "previous": first}

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        carry = work.start(sent, own, key)
        return {**carry, "sent": trees.clone({part: carry[part] for part in PARTS})}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        here = objective.with_precision(outer.objective.precision)  # type: ignore[attr-defined]
        first, inner = _apart(carry)
        # What a client keeps has no personal leaves: they are as they were then.
        last = {part: {**first[part], **carry["own"]["previous"][part]} for part in PARTS}
        models = {"sent": first, "previous": last}
        others = {
            name: here.features(model["params"], model["buffers"], model["counts"], batch)
            for name, model in models.items()
        }
        # A trial step looks whether the loss has a gradient; the term always has one.
        if isinstance(outer.objective, ModuleObjective):
            batch = batch._replace(data={"data": batch.data, "beside": others})
            outer = outer._replace(objective=here)
        return {**work.step(outer, sent, inner, batch), "sent": first}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        _, inner = _apart(carry)
        update, own = work.finish(sent, inner, seen)
        last = {part: {name: carry[part][name] for name in sent[part]} for part in PARTS}
        return update, {**own, "previous": last}

    return work.changed(own=own, start=start, step=step, finish=finish)


def _apart(carry: Tree) -> tuple[Tree, Tree]:
    """Split a carry into the model that was broadcast, and what the inner work knows."""
    return carry["sent"], {key: part for key, part in carry.items() if key != "sent"}


def _cosine(z: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of each row with another's, (rows,); 0 where one of them is 0."""
    z = z.to(other.dtype)
    return (z * other).sum(1) / (_length(z) * _length(other))


def _length(z: Tensor) -> Tensor:
    """Return the length of each row, 1 where it is 0: its slope there is not finite."""
    squares = z.square().sum(1)
    return torch.where(squares > 0, squares, 1.0).sqrt()
