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
from folkmoot.local.composed import own_of, refuse_no_work, refuse_private
from folkmoot.local.features import Look, featured
from folkmoot.local.module import ModuleObjective
from folkmoot.local.parts import PARTS
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
    refuse_private("moon", work, "looks at what a layer makes of each example")
    not_negative(mu=mu)
    positive(temperature=temperature)
    contrasted = _contrasted(work, features, mu, temperature)
    # Without the term there is nothing that a client must keep.
    built = fedavg(contrasted if mu else work, server=server, aggregator=aggregator)
    return built._replace(name="moon")


def _contrasted(work: LocalWork, features: str, mu: float, temperature: float) -> LocalWork:
    """Add the contrastive term to the local loss, and keep the local model for the next time."""

    def term(z: Tensor, beside: Tree) -> tuple[Tensor, Tensor]:
        length, here = _polar(z)
        away = _polar(beside["previous"])[1] - _polar(beside["sent"])[1]
        # Equation 3 is log(1 + exp(s)), s = (sim(z, z_prev) - sim(z, z_glob)) / t.
        cosine = (here * away).sum(1, keepdim=True)
        s = cosine / temperature
        slope = torch.addcmul(away, cosine, here, value=-1)
        steep = torch.sigmoid(s) / length * (mu / temperature)
        return mu * F.softplus(s[:, 0], threshold=50.0), steep * slope

    objective = featured(work.objective, features, term)
    looks = {"sent": Look(objective), "previous": Look(objective)}

    def own(sent: Tree) -> Tree:
        first = trees.clone({part: sent[part] for part in PARTS})
        return {**own_of(work, sent), "previous": first}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        # What a client keeps has no personal leaves: they are as they were then.
        last = {part: {**sent[part], **carry["own"]["previous"][part]} for part in PARTS}
        models = {"sent": sent, "previous": last}
        seen = {
            name: look(model["params"], model["buffers"], model["counts"], batch)
            for (name, look), model in zip(looks.items(), models.values(), strict=True)
        }
        # A trial step looks whether the loss has a gradient; the term always has one.
        if isinstance(outer.objective, ModuleObjective):
            here = objective.with_precision(outer.objective.precision)
            batch = batch._replace(data={"data": batch.data, "beside": seen})
            outer = outer._replace(objective=here)
        return work.step(outer, sent, carry, batch)

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        last = {part: {name: carry[part][name] for name in sent[part]} for part in PARTS}
        return update, {**own, "previous": last}

    return work.changed(own=own, step=step, finish=finish)


def _polar(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths of rows, (rows, 1), and the rows over them: products are cosines.

    The length of a row that is 0 is taken as 1.
    """
    length = F.threshold(torch.linalg.vector_norm(z, dim=1, keepdim=True), 0.0, 1.0)
    return length, z / length
