"""q-FedAvg: clients whose loss is high count more, so that the model serves all more alike.

Li, Sanjabi, Beirami and Smith, "Fair Resource Allocation in Federated Learning", ICLR 2020,
arXiv:1905.10497, algorithm 2, for the objective sum_i F_i^(q + 1) / (q + 1). With F the client's
loss at the broadcast model w, and delta = w_i - w what it has learnt,

    w += sum F^q delta / sum (F^q + q F^(q - 1) L ||delta||^2)

Departures: both of the paper's sums are divided by L, which is one number for all clients. A loss
of 0 or below counts as 0: the objective has no meaning there. Clients of a cohort count alike, as
in the paper, where they are sampled by their examples; with our uniform cohorts that is the fair
objective in which each client is one, and `weighted_mean()` is the one weighted by examples.
BatchNorm statistics are averaged. A codec that clips shortens both sums of a client alike.

State: FedAvg's. Cost: FedAvg's bytes, and one number more up; with q above 0 one more forward pass
for each step of the first epoch, in which F is measured.
"""

import torch
from torch import Tensor

from folkmoot.aggregators import uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree
from folkmoot.local import full_loss
from folkmoot.local.composed import optimizer_of, refuse_no_mean, refuse_no_optimizer
from folkmoot.optimizers import Optimizer, sgd, stepped

_TINY = 1e-100
"""Smallest loss that is divided by."""


def qfedavg(
    work: LocalWork,
    *,
    q: float,
    lipschitz: float | None = None,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build q-FedAvg.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        q: How much high losses count, at least 0; 0 is FedAvg in which every client counts the
            same, and the larger it is, the more alike losses become.
        lipschitz: L, how fast a client's gradient may change, above 0; None is 1 over the local
            learning rate, as in the paper. Many local steps make ||delta|| large and so the
            model's move short; a smaller L lengthens it.
        server: Optimizer that steps along the fair direction; None is `optimizers.sgd(1.0)`.
        aggregator: How the two sums are formed; None is `uniform_mean()`.

    Returns:
        An algorithm of one exchange a round.

    Raises:
        SettingsError: If a number is out of range, a part is none, or L is neither given nor known,
            as with Adam's steps.
    """
    weighed = _weighed(work, q, lipschitz)
    server = sgd(1.0) if server is None else server
    aggregator = uniform_mean() if aggregator is None else aggregator
    refuse_no_optimizer(server)
    refuse_no_mean("qfedavg", aggregator)

    def init() -> Tree:
        model = work.init()
        optimizer = server.init(model["params"])
        return {**model, "optimizer": optimizer, "round": torch.ones((), dtype=torch.int64)}

    def round(state: Tree) -> Round:
        sent = {key: state[key] for key in ("params", "buffers", "counts", "round")}
        mean = yield Task(sent, weighed, aggregator)
        # Where every loss is 0, nobody has a wish.
        h = float(mean.value["h"])
        direction = trees.scale(1 / h if h > 0 else 0.0, mean.value["params"])
        params, optimizer = stepped(server, state, direction)
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm("qfedavg", init, round, (weighed,))


def _weighed(work: LocalWork, q: float, lipschitz: float | None) -> LocalWork:
    """Scale each delta by F^q, and send its share h of the divisor beside it."""
    not_negative(q=q)
    reach = optimizer_of("qfedavg", work).reach
    if lipschitz is not None:
        positive(lipschitz=lipschitz)
    elif reach is None:
        raise SettingsError(
            f"qfedavg() takes L as 1 over the local learning rate, but steps of "
            f"{work.optimizer.name} are not proportional to gradients. Give lipschitz=, or use "
            "fm.local.sgd(...)."
        )
    if q:
        work = full_loss.beside("qfedavg", work)

    def rate(round: int) -> float:
        """Return 1 / L."""
        return 1 / lipschitz if lipschitz is not None else float(reach(1, round))

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        delta = update.value["params"]
        if not q:
            one = torch.ones((), dtype=torch.float64)
            return update._replace(value={**update.value, "h": one}), own
        share, h = _shares(full_loss.mean(carry), _length(delta), q, rate(int(sent["round"])))
        value = {**update.value, "params": trees.scale(share, delta), "h": h}
        return update._replace(value=value), own

    return work.changed(finish=finish)


def _length(delta: Tree) -> Tensor:
    """Return the L2 norm in the delta's own precision, at half of what doubles would cost."""
    found = trees.each("norm", trees.leaves(delta))
    # All leaves may be personal.
    return torch.stack(found).norm().double() if found else torch.zeros((), dtype=torch.float64)


def _shares(loss: Tensor, length: Tensor, q: float, rate: float) -> tuple[Tensor, Tensor]:
    """Return F^q, by which a delta counts, and h over L; both 0 at a loss of 0 or below."""
    loss = loss.clamp(min=0)
    share = loss**q
    # Without a rate nobody has moved.
    curved = length.square() / rate if rate else 0.0
    # q F^(q - 1) is infinite at a loss of 0 where q < 1; share is 0 there.
    return share, share + share * (q / loss.clamp(min=_TINY)) * curved
