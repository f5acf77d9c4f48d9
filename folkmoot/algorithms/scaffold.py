"""SCAFFOLD: control variates against client drift.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
arXiv:1910.06378, algorithm 1 with option I (a client's control is the gradient at the broadcast
model) or II (it is read off the path of its local steps).

Departures: with momentum in the local steps, option II divides by the distance that as many unit
gradients would have moved, which in the paper's plain steps is K * lr. `clip_gradient` clips the
corrected gradient, so option II comes to a client's own gradient over several rounds. Option I
takes the gradient over the first epoch's batches. BatchNorm statistics are averaged and have no
control.

State: beside the model, the server's control c; each client keeps its own control c_i. Cost: twice
FedAvg's bytes both ways; a local step makes one more pass over the parameters and, with option I,
takes one more gradient in the first epoch.
"""

import torch
from torch import Tensor

from folkmoot.aggregators import uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Seen, Task, unchanged
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local import full_gradient
from folkmoot.local.composed import optimizer_of, own_of, refuse_no_mean, refuse_no_optimizer, seam
from folkmoot.local.grad import plus
from folkmoot.local.parts import but
from folkmoot.optimizers import Optimizer, sgd, stepped


def scaffold(
    work: LocalWork,
    *,
    option: int = 2,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build SCAFFOLD.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        option: 2 reads a client's control off its path, and needs local steps of SGD, plain or with
            momentum; 1 takes it as the gradient at the broadcast model.
        server: Optimizer that steps along the mean delta; None is `optimizers.sgd(1.0)`.
        aggregator: How deltas and changes of controls are combined; None is `uniform_mean()`, the
            paper's.

    Returns:
        An algorithm of one exchange a round, whose clients keep a state.

    Raises:
        SettingsError: If the work writes its own step, a part is none, or option 2 meets local
            steps that are not proportional to gradients, such as Adam's.
    """
    controlled = _controlled(work, option)
    server = sgd(1.0) if server is None else server
    aggregator = uniform_mean() if aggregator is None else aggregator
    refuse_no_optimizer(server)
    refuse_no_mean("scaffold", aggregator)

    def init() -> Tree:
        model = work.init()
        return {
            **model,
            "control": trees.zeros_like(model["params"]),
            "optimizer": server.init(model["params"]),
            "round": torch.ones((), dtype=torch.int64),
        }

    def round(state: Tree) -> Round:
        sent = but(state, "optimizer")
        mean = yield Task(sent, controlled, aggregator)
        params, optimizer = stepped(server, state, mean.value["params"])
        # c is a mean over all clients, of whom only these have changed theirs.
        share = mean.count / mean.population
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "control": trees.axpy(share, mean.value["control"], state["control"]),
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm("scaffold", init, round, (controlled,))


def _controlled(work: LocalWork, option: int) -> LocalWork:
    """Add c - c_i to every local gradient, and renew c_i at the end."""
    before, reach = seam("scaffold", work), None
    if option == 2:
        reach = optimizer_of("scaffold", work).reach
        if reach is None:
            raise SettingsError(
                f"scaffold(option=2) reads a client's control off its path, but steps of "
                f"{work.optimizer.name} are not proportional to gradients. Use "
                "fm.local.sgd(...), or option=1."
            )
    elif option == 1:
        work = full_gradient.beside(work)
    else:
        raise SettingsError(f"option must be 1 or 2, as in the paper, but is {option!r}.")

    def own(sent: Tree) -> Tree:
        return {**own_of(work, sent), "control": trees.zeros_like(sent["params"])}

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        shift = trees.sub(sent["control"], own["control"])
        return work.start(sent, {**own, "shift": shift}, key)

    def correct(gradient: Tree, params: Tree, sent: Tree, own: Tree) -> Tree:
        if before is unchanged:
            return plus(gradient, own["shift"])
        return trees.add(before(gradient, params, sent, own), own["shift"])

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        old = own["control"]
        if reach is None:
            found, distance = full_gradient.mean(sent, carry, seen), seen.steps
        else:
            # c_i+ = c_i - c + (x - y_i) / (K lr)
            distance = reach(seen.steps, int(sent["round"]))
            found = trees.axpy(-_inverse(distance), update.value["params"], old)
            trees.axpy_(found, -1.0, sent["control"])
        # Without a step there is nothing to read a gradient from, and the control stays.
        control = _if(distance, found, old)
        value = {**update.value, "control": trees.sub(control, old)}
        own = but(own, "shift")
        return update._replace(value=value), {**own, "control": control}

    return work.changed(own=own, start=start, correct=correct, finish=finish)


def _inverse(distance: float | Tensor) -> float | Tensor:
    """Return 1 / distance; 0 where nobody moved."""
    if isinstance(distance, Tensor):
        return torch.where(distance > 0, 1 / distance, 0.0)
    return 1 / distance if distance else 0.0


def _if(distance: float | Tensor, new: Tree, old: Tree) -> Tree:
    """Return the new tree where there was a step, which many clients at once know as tensors."""
    if isinstance(distance, Tensor):
        return trees.map(lambda a, b: torch.where(distance > 0, a, b), new, old)
    return new if distance else old
