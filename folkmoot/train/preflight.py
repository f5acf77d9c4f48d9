"""The look before the first round: one step of one client shows a mistake at once, by name."""

import contextlib

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, Batch, Task
from folkmoot.core.engine import Cohort, Setting
from folkmoot.core.errors import DataError, SettingsError
from folkmoot.core.rng import as_tensor
from folkmoot.core.tree import Tree
from folkmoot.data import check_examples
from folkmoot.engines.batches import rows
from folkmoot.engines.stream import Skipped, Stream, one_thread
from folkmoot.engines.tasks import in_precision
from folkmoot.local.diagnose import explain
from folkmoot.train.gradient import nothing_learnt, watched
from folkmoot.train.loop import begun, check_task, first_snapshot

_TRIED = 10
_ROWS = 2


def first_client(algorithm: Algorithm, setting: Setting, held_out: Tree | None) -> None:
    """Train one client for one step and judge two test rows, and throw both results away.

    Raises:
        DataError: If there are no clients, or the examples cannot be used.
        SettingsError: If the loss has no gradient.
        Exception: What the model or the loss raises, with client and stage as a note.
    """
    if not len(setting.clients):
        raise DataError("There are no clients to train. Give at least one with examples.")
    state = first_snapshot(algorithm).state
    # A round may ask for nothing at all.
    task = next(begun(algorithm, state), None)
    if task is not None:
        _try(check_task(algorithm, task), setting)
    if held_out is not None and not algorithm.works[0].personal:
        _judge(algorithm, state, held_out)


def _try(task: Task, setting: Setting) -> None:
    """Train a client that can be trained for one step, or some until a loss has a gradient."""
    work = task.work._replace(plan=task.work.plan._replace(epochs=None, steps=1))
    one_step, seen = watched(in_precision(task._replace(work=work), setting))
    cohort = Cohort(0, (), len(setting.clients), 1)
    stream = Stream(setting)
    with one_thread():
        for client, _ in zip(setting.clients, range(_TRIED), strict=False):
            examples = setting.clients[client].train
            if not rows(examples):
                continue
            check_examples(examples, client, "train")
            with contextlib.suppress(Skipped):
                stream.train(one_step, cohort, client, None)
                if any(seen) or not seen:
                    return
    why = nothing_learnt(seen)
    if why:
        raise SettingsError(why)


def _judge(algorithm: Algorithm, state: Tree, held_out: Tree) -> None:
    """Measure two rows of the test set, to find a wrong shape before a round of training."""
    check_examples(held_out, None, "test")
    batch = Batch(trees.map(lambda leaf: leaf[:_ROWS].clone(), held_out), None, as_tensor(0), 0)
    try:
        algorithm.objective.measure(state["params"], state["buffers"], state["counts"], batch)
    except Exception as error:
        error.add_note(f"In the test set. {explain(algorithm.objective, held_out, error)}")
        raise
