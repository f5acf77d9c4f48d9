"""Clients that train each by itself: local-only training, and fine-tuning of a global model.

Both are one algorithm, in which every leaf of the model is personal: nothing of it travels, and a
client goes on from where it stood when it was asked the last time. They differ in the model that
clients begin with.

Fine-tuning is that of Yu et al., "Salvaging Federated Learning by Local Adaptation", 2020,
arXiv:2002.04758, with all layers free; it is what an algorithm with personal models must beat.

State: the first model and the number of the round. Cost: of the model nothing travels.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from folkmoot.aggregators import total
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, LocalWork, Objective, Round, Task, unchanged
from folkmoot.core.engine import Opener
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.composed import kind_of, own_of, refuse_own_models
from folkmoot.local.parts import PARTS, model_in
from folkmoot.local.personal import personal
from folkmoot.train.progress import Progress
from folkmoot.train.result import Result
from folkmoot.train.run import run


def alone(work: LocalWork, first: Tree) -> Algorithm:
    """Let each client train a model of its own by itself, with every leaf personal.

    Args:
        work: What a client does when it is asked, such as `local.sgd(...)`.
        first: The model {"params", "buffers", "counts"} that clients begin with, or the state of an
            algorithm: a learning rate that follows the round then goes on from its "round".

    Returns:
        An algorithm whose state stays what `first` is, but for the number of the round.

    Raises:
        SettingsError: If clients have models of their own already, or the work corrects its
            gradients by what clients share.
    """
    refuse_own_models("alone", work)
    if work.correct is not None and work.correct is not unchanged:
        raise SettingsError(
            f"Work {work.name!r} corrects its gradients by what clients share, but a client that "
            "trains alone shares nothing. Give the work without that transform, such as "
            "fm.local.sgd(...)."
        )
    model = model_in(first)
    kept = personal(work, "*")

    def own(sent: Tree) -> Tree:
        return {**own_of(kept, sent), "kept": trees.clone(model)}

    mine = kept._replace(own=own)
    begun = first.get("round", torch.ones((), dtype=torch.int64))

    def init() -> Tree:
        return {**model, "round": begun}

    def round(state: Tree) -> Round:
        # The model stays here: each client has its own.
        yield Task({**{part: {} for part in PARTS}, "round": state["round"]}, mine, total())
        return {**state, "round": state["round"] + 1}

    return Algorithm("alone", init, round, (mine,))


def finetune(
    result: Result,
    clients: Any,
    work: LocalWork | None = None,
    *,
    seed: int | None = None,
    workers: int | None = None,
    engine: Opener | None = None,
    progress: Progress | bool | None = None,
    save: str | Path | None = None,
    name: str | None = None,
) -> Result:
    """Train the global model of a run further on each client by itself.

    FedAvg and this is the baseline that an algorithm with personal models must beat. It costs one
    round that asks everyone.

    Args:
        result: A run that has a global model; it stays as it was.
        clients: Whose data, as in `run`; also people who took no part in the run.
        work: What each client does, once; its epochs or steps say for how long. None is the run's
            own work, without what an algorithm has put on it.
        seed: As in `run`; None is the run's.
        workers, engine, progress, save: As in `run`.
        name: What the result is called; None is the run's name and "-finetuned".

    Returns:
        A result whose `clients[id].model` are the models fine-tuned, judged on the clients' own
        tests; `model` is the global one that they began with, and `base` the run.

    Raises:
        SettingsError: If the run has no global model, if it was read from a folder and `work` is
            not given, or if `work` trains another model.
    """
    refuse_no_result("finetune", result)
    work = plain_work("finetune", result, work)
    refuse_other_model("finetune", result, work.objective)
    advice = "Fine-tune a run without personal leaves, such as fm.fedavg(work)."
    refuse_no_global("finetune", result, work.objective, advice)
    tuned = run(
        alone(work, result.state),
        clients,
        rounds=1,
        seed=result.settings.get("seed", 0) if seed is None else seed,
        workers=workers,
        engine=engine,
        precision=result.settings.get("precision", "float32"),
        progress=progress,
        save=save,
        name=name or f"{result.name}-finetuned",
    )
    return dataclasses.replace(tuned, base=result.base or result)


def plain_work(verb: str, result: Result, work: LocalWork | None) -> LocalWork:
    """Return the work that was given, or the run's without what transforms have put on it.

    Raises:
        SettingsError: If it is no work, or one whose clients have models of their own; or if none
            was given and the run's is not known.
    """
    if work is not None:
        refuse_own_models(verb, work)
        return work
    program = (result.base or result).program
    if program is None:
        raise SettingsError(
            f"{verb}() does not know what clients did in this run, because the result was read "
            f"from a folder. Pass the local work: {verb}(result, clients, work=...)."
        )
    first = program.algorithm.works[0]
    return first.plain or first


def refuse_no_result(verb: str, result: Any) -> None:
    """Refuse what is no result of a run."""
    if not isinstance(result, Result):
        raise SettingsError(
            f"{verb}() needs the result of a run first, result = fm.run(...), but was given "
            f"{kind_of(result)}."
        )


def refuse_other_model(verb: str, result: Result, objective: Objective) -> None:
    """Refuse an objective whose model is not the one that was trained."""
    found = {name: tuple(leaf.shape) for name, leaf in result.state_dict.items()}
    parts = objective.init().values()
    wanted = {name: tuple(leaf.shape) for part in parts for name, leaf in part.items()}
    other = [name for name, shape in wanted.items() if found.get(name) != shape]
    if other:
        was = f"is {found[other[0]]} in the run" if other[0] in found else "is not in the run"
        raise SettingsError(
            f"The work given to {verb}() is not for the model that was trained: {other[0]}, "
            f"{wanted[other[0]]}, {was}. Build the work with the model of the run."
        )


def refuse_no_global(verb: str, result: Result, objective: Objective, advice: str) -> None:
    """Refuse a run of which some leaves stayed with each client, and say what to do instead."""
    first = objective.init()
    kept = [name for part in PARTS for name in first[part] if name not in result.state[part]]
    if kept:
        shown = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
        raise SettingsError(
            f"{verb}() needs a global model, and this run has none: {shown} stayed with each "
            f"client. {advice}"
        )
