"""A twin: a second model, the client's own, trained beside the one that travels.

It has parameters, batch statistics and optimizer state of its own, and sees the same batches with
the same random numbers. The client keeps it under "twin"; one that has not taken part yet has a
copy of what is broadcast when it first does.
"""

from collections.abc import Callable

from torch import Tensor

from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Batch, LocalWork, Seen
from folkmoot.core.tree import Tree
from folkmoot.local.composed import own_of, refuse_own_models, seam
from folkmoot.local.parts import PARTS, apart, but, model_in

Advance = Callable[[LocalWork, Tree, Tree, Tree, Batch], Tree]
"""`advance(work, sent, carry, twin, batch)` -> twin, before the work's own step is taken.

`carry` is that of the model that travels, `twin` one like it that the work's step can take.
"""


def twin(verb: str, work: LocalWork, advance: Advance, more: Tree | None = None) -> LocalWork:
    """Train a second model beside a work's own.

    Cost: one more step for each step; where a client keeps a state, one more model.

    Args:
        verb: Who asks, for a refusal.
        work: Any work with a seam between gradient and step, such as `local.sgd(...)`.
        advance: How the twin moves.
        more: First values of what else the twin keeps, beside its model.

    Raises:
        SettingsError: If `work` is none, writes its own step, or its clients have models of their
            own already.
    """
    seam(verb, work)
    refuse_own_models(verb, work)
    kept = (*PARTS, *(more or {}))

    def own(sent: Tree) -> Tree:
        return {**own_of(work, sent), "twin": {**model_in(sent), **(more or {})}}

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        own, mine = apart(own, "twin")
        begun = work.start({**sent, **model_in(mine)}, own, key)
        second = but(begun, "own")
        return {**work.start(sent, own, key), "twin": {**mine, **second}}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        carry, mine = apart(carry, "twin")
        moved = advance(outer, sent, carry, {**mine, "own": carry["own"]}, batch)
        second = but(moved, "own")
        return {**work.step(outer, sent, carry, batch), "twin": second}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        carry, mine = apart(carry, "twin")
        update, own = work.finish(sent, carry, seen)
        return update, {**own, "twin": {name: mine[name] for name in kept}}

    def model(sent: Tree, own: Tree) -> Tree:
        return model_in(own["twin"])

    return work.changed(own=own, start=start, step=step, finish=finish, model=model)
