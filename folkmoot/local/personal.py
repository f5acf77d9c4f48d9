"""Personal leaves: the part of a model that stays with each client, under any algorithm.

Arivazhagan et al., "Federated Learning with Personalization Layers", 2019, arXiv:1912.00818
(FedPer). A client trains the whole model; the leaves that are named never travel, up or down, never
count in the norm of an update, and are there again when the client is asked the next time. All
clients begin with the first model's. A local gradient that is clipped is that of the whole model.

What rides on a work (a pull, a control variate) sees shared leaves only: the seam between gradient
and step is given them alone, and what it returns is put beside the personal ones. `start` and
`step` see the whole model, so this is the outermost transform, whenever it was put on. A client's
own state holds the personal leaves under "kept".
"""

import functools
from collections.abc import Callable, Generator
from typing import Any

from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import (
    Algorithm,
    Batch,
    Correct,
    LocalWork,
    Round,
    Seen,
    Task,
    unchanged,
)
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree, is_ordinary
from folkmoot.local.chosen import Keep, chosen
from folkmoot.local.composed import own_of, refuse_own_models
from folkmoot.local.parts import PARTS, apart, model_in
from folkmoot.local.proximal import Pull


def personal(work: LocalWork, keep: Keep) -> LocalWork:
    """Keep some leaves of the model with each client.

    Args:
        work: Any work whose model stands in its carry, such as `local.sgd(...)`.
        keep: Which leaves: a pattern such as "head.*", layer types, a predicate of the leaf's name,
            or a list of these.

    Raises:
        SettingsError: If a pattern matches no leaf, or clients have models of their own already.
    """
    refuse_own_models("personal", work)
    return keeping(work, chosen(work.objective, keep))


def personalize(algorithm: Algorithm, keep: Keep) -> Algorithm:
    """Keep some leaves with each client in everything that an algorithm does.

    Args:
        algorithm: Any whose clients have no models of their own.
        keep: As in `personal`.

    Raises:
        SettingsError: As `personal`.
    """
    for work in algorithm.works:
        refuse_own_models("personal", work)
    kept = chosen(algorithm.objective, keep)
    names = _names(algorithm.objective.init())

    @functools.lru_cache
    def known(work: LocalWork) -> LocalWork:
        # One for good: engines remember what they know of a work.
        return keeping(work, kept)

    def init() -> Tree:
        return without(algorithm.init(), kept, names)

    def round(state: Tree) -> Round:
        steps = algorithm.round(state)
        # What is no round is refused by who asks for one.
        return _asked(steps, known) if isinstance(steps, Generator) else steps

    return Algorithm(algorithm.name, init, round, tuple(map(known, algorithm.works)))


def _asked(steps: Round, known: Callable[[LocalWork], LocalWork]) -> Round:
    """Ask what a round asks, of works that keep their leaves."""
    try:
        task = next(steps)
        while True:
            if isinstance(task, Task) and isinstance(task.work, LocalWork):
                task = task._replace(work=known(task.work))
            task = steps.send((yield task))
    except StopIteration as done:
        return done.value


def keeping(work: LocalWork, kept: frozenset[str]) -> LocalWork:
    """Build the work that trains the whole model and shows its shared leaves only.

    Args:
        work: As in `personal`.
        kept: Names of the leaves that stay.
    """
    first = work.objective.init()
    names = _names(first)
    order = {part: tuple(first[part]) for part in PARTS}
    begun = {
        part: {name: leaf for name, leaf in first[part].items() if name in kept} for part in PARTS
    }

    def own(sent: Tree) -> Tree:
        return {**own_of(work, sent), "kept": trees.clone(begun)}

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        if "kept" not in own:
            # A transform has been put on since, and the same leaves are kept around that.
            return work.start(sent, own, key)
        if "params" not in sent:
            raise SettingsError(
                f"The work {work.name!r} is sent no model, so no leaf of one can stay with a "
                "client. Leave personal= out."
            )
        own, mine = apart(own, "kept")
        return {**work.start(_whole(sent, mine, order), own, key), "kept": mine}

    def step(outer: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        if "kept" not in carry:
            return work.step(outer, sent, carry, batch)
        carry, mine = apart(carry, "kept")
        inner = work._replace(
            objective=outer.objective,
            optimizer=outer.optimizer,
            personal=kept,
            correct=_on_shared(outer.correct, kept, sent),
        )
        return {**work.step(inner, _whole(sent, mine, order), carry, batch), "kept": mine}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        if "kept" not in carry:
            return work.finish(sent, carry, seen)
        shown = {part: without(tree, kept, names) for part, tree in carry.items() if part in PARTS}
        carry, before = apart(carry, "kept")
        update, own = work.finish(sent, {**carry, **shown}, seen)
        if not work.train:
            return update, own
        # Work that takes no step has no model in its carry.
        whole = {part: carry[part] if part in carry else before[part] for part in PARTS}
        mine: Tree = {part: {name: whole[part][name] for name in begun[part]} for part in PARTS}
        # Whatever a work has made of the whole model, the personal leaves of it stay here.
        value, counts = (without(tree, kept, names) for tree in (update.value, update.counts))
        return update._replace(value=value, counts=counts), {**own, "kept": mine}

    def model(sent: Tree, own: Tree) -> Tree:
        return model_in(_whole(sent, own["kept"], order))

    return work._replace(
        own=own,
        start=start,
        step=step,
        finish=finish,
        personal=kept,
        model=model,
        plain=work.plain or work,
        around=functools.partial(keeping, kept=kept),
    )


def without(tree: Tree, kept: frozenset[str], names: frozenset[str]) -> Tree:
    """Drop personal leaves wherever a tree holds something of the model's shape.

    Args:
        tree: A state, an update, a part of a model.
        kept: The leaves to drop.
        names: All leaves of the model: a dict with other keys is not of its shape.
    """
    shaped = tree.keys() <= names
    return {
        key: without(value, kept, names) if isinstance(value, dict) else value
        for key, value in tree.items()
        if isinstance(value, dict) or not (shaped and key in kept)
    }


def _names(model: Tree) -> frozenset[str]:
    return frozenset(name for part in PARTS for name in model[part])


def _whole(sent: Tree, mine: Tree, order: dict[str, tuple[str, ...]]) -> Tree:
    """Return what was sent with a client's own leaves in their places."""
    joined = {
        part: {
            name: mine[part][name] if name in mine[part] else sent[part][name]
            for name in order[part]
        }
        for part in PARTS
    }
    return {**sent, **joined}


def _on_shared(correct: Correct | None, kept: frozenset[str], sent: Tree) -> Correct | None:
    """Let a correction see shared leaves only."""
    if correct is None or correct is unchanged:
        return correct
    if isinstance(correct, Pull):
        # A step that looks for a pull finds it.
        return Pull(_on_shared(correct.before, kept, sent) or unchanged, correct.mu, kept)

    def shared(tree: Tree) -> Tree:
        return {name: leaf for name, leaf in tree.items() if name not in kept}

    def corrected(gradient: Tree, params: Tree, whole: Tree, own: Tree) -> Tree:
        moved: Any = correct(_apart_from(kept, gradient), shared(params), sent, own)
        return {name: moved.get(name, leaf) for name, leaf in gradient.items()}

    return corrected


def _apart_from(kept: frozenset[str], gradient: Tree) -> Tree:
    """Return the gradient of shared leaves, without memory that autograd gave a personal one too:
    a correction may write into it."""
    shared = {name: leaf for name, leaf in gradient.items() if name not in kept}
    if not all(map(is_ordinary, gradient.values())):
        return shared
    memory = {leaf.untyped_storage().data_ptr() for name, leaf in gradient.items() if name in kept}
    return {
        name: leaf.clone() if leaf.untyped_storage().data_ptr() in memory else leaf
        for name, leaf in shared.items()
    }
