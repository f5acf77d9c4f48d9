"""What a result is judged by: the work that measures, and whose model is measured where."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from folkmoot.core.algorithm import LocalWork
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData
from folkmoot.local.evaluate import evaluate as measuring
from folkmoot.local.parts import model_in
from folkmoot.train.evaluation import model_of_client
from folkmoot.train.result import Result
from folkmoot.train.summary import plural


def judging(
    result: Result, clients: ClientData, objective: Any, personal: bool
) -> tuple[LocalWork, Tree, Callable[[ClientId], nn.Module]]:
    """Return the work that measures models, what is broadcast to it, and whose model is which."""
    work = measuring(objective)
    if not personal:
        return work, model_in(result.state), lambda _: result.model
    first = objective.init()
    for client in clients.ids:
        _refuse_stranger(result, client)
    held = work.changed(own=lambda sent: first, model=lambda sent, own: own)
    make = functools.partial(_own_model, result, objective)
    return measuring(objective, of=held), first, make


def no_tests(federation: ClientData) -> SettingsError:
    return SettingsError(
        f"None of the {plural(len(federation), 'client')} has test examples, so there is nothing "
        "to judge models by. Give clients tests of their own, such as "
        "fm.data.from_function(ids, train, test=...)."
    )


def _refuse_stranger(result: Result, client: ClientId) -> None:
    """Refuse a client of whom it is not known with what model he stands there."""
    if client in result.clients or (result.program and client in result.program.clients):
        return
    why = "took no part in this run" if result.program else "is not known to the run in this folder"
    raise SettingsError(
        f"Client {client!r} {why}, so it has no model of its own there. Pass the clients of the "
        "run, or judge the global model (personal=False)."
    )


def _own_model(result: Result, objective: Any, client: ClientId) -> nn.Module:
    """Return a client's own model, or the one that it would begin with."""
    if client in result.clients or result.program is None:
        return result.clients[client].model
    start = model_of_client(result.program.algorithm.works[0], result.state, {}, client)
    module: nn.Module = objective.module(start)
    return module


def tree_of(module: nn.Module, like: Tree) -> Tree:
    """Return a module's leaves as {"params", "buffers", "counts"}."""
    weights = module.state_dict()
    return {part: {name: weights[name] for name in leaves} for part, leaves in like.items()}
