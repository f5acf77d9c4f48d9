"""Agnostic federated learning: the model is trained for the worst mixture of the clients.

Mohri, Sivek and Suresh, "Agnostic Federated Learning", ICML 2019, arXiv:1902.00146, equation 4 and
algorithm 1: min over w of the max over lambda of sum_i lambda_i F_i(w), lambda in the simplex.
Deng, Kamani and Mahdavi, "Distributionally Robust Federated Averaging", NeurIPS 2020,
arXiv:2102.12660, for local steps and cohorts.

Each client keeps the logarithm s_i of its weight, and what it sends counts by exp(s_i), so that the
weighted mean's division makes a point of the simplex of these weights and the server knows none:

    s_i += lambda_lr * (F_i(w) - V),    V = sum_i lambda_i F_i of the cohort in the round before

Departures: ascent in lambda is exponentiated (Hedge) and not projected, which needs sums only. Only
clients that are asked move their weight, by the loss at the broadcast model, and it counts in the
same round; V keeps those that were not asked comparable. s_i stays within -10 and 10, so a weight
within 4.5e-5 and 2.2e4 of where it begins, and never reaches 0. Cohorts are sampled as the run
says, not by lambda. The rule is fixed: any other would not weigh by lambda.

State: beside FedAvg's, V; each client keeps s_i. Cost: FedAvg's bytes, and one number more both
ways; one more forward pass for each step of the first epoch.
"""

import torch
from torch import Tensor

from folkmoot.aggregators import weighted_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task
from folkmoot.core.errors import not_negative
from folkmoot.core.tree import Tree
from folkmoot.local import full_loss
from folkmoot.local.composed import own_of, refuse_no_optimizer
from folkmoot.local.parts import but
from folkmoot.optimizers import Optimizer, sgd, stepped

MOST = 10.0
"""Largest logarithm of a weight, and minus the smallest."""


def agnostic(work: LocalWork, *, lambda_lr: float, server: Optimizer | None = None) -> Algorithm:
    """Build agnostic federated learning: minimise the loss of the clients that are served worst.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        lambda_lr: How fast weights follow losses, at least 0, per unit of loss and round; 0 is
            FedAvg in which every client counts the same.
        server: Optimizer that steps along the mean delta; None is `optimizers.sgd(1.0)`.

    Returns:
        An algorithm of one exchange a round, whose clients keep a number.

    Raises:
        SettingsError: If `lambda_lr` is negative, or `work` or `server` is something else.
    """
    weighed = _weighed(work, lambda_lr)
    server = sgd(1.0) if server is None else server
    refuse_no_optimizer(server)
    by_lambda = weighted_mean()

    def init() -> Tree:
        model = work.init()
        return {
            **model,
            "value": torch.zeros((), dtype=torch.float64),
            "optimizer": server.init(model["params"]),
            "round": torch.ones((), dtype=torch.int64),
        }

    def round(state: Tree) -> Round:
        sent = but(state, "optimizer")
        mean = yield Task(sent, weighed, by_lambda)
        params, optimizer = stepped(server, state, mean.value["params"])
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "value": mean.value["loss"],
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm("agnostic", init, round, (weighed,))


def _weighed(work: LocalWork, lambda_lr: float) -> LocalWork:
    """Keep the logarithm of a client's weight, and weigh its update by it."""
    work = full_loss.beside("agnostic", work)
    not_negative(lambda_lr=lambda_lr)

    def own(sent: Tree) -> Tree:
        return {**own_of(work, sent), "log_weight": torch.zeros((), dtype=torch.float64)}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        loss: Tensor = full_loss.mean(carry)
        # The first round has no round before it whose losses could be compared.
        known = 1.0 * (sent["round"] > 1)
        moved = own["log_weight"] + lambda_lr * known * (loss - sent["value"])
        log_weight = moved.clamp(-MOST, MOST)
        value = {**update.value, "loss": loss}
        update = update._replace(value=value, weight=log_weight.exp())
        return update, {**own, "log_weight": log_weight}

    return work.changed(own=own, finish=finish)
