"""What a round costs, found out by a few steps of a few clients: seconds, bytes, memory.

The probe is an engine, so a whole round of any algorithm, with all its exchanges, runs through it.
"""

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from folkmoot.aggregators.faults import fault
from folkmoot.aggregators.traffic import upload_bytes
from folkmoot.core import fold
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Plan, Task
from folkmoot.core.engine import ClientId, Cohort, Collected, LeftOut, Setting
from folkmoot.core.errors import ClientError
from folkmoot.core.rng import as_tensor
from folkmoot.core.tree import Tree
from folkmoot.engines.batches import cut
from folkmoot.engines.clock import now
from folkmoot.engines.stream import Stream, needs_pairs, one_thread
from folkmoot.engines.tasks import example, in_precision

_MOST_STEPS = 8
_ENOUGH_S = 0.5
"""Seconds that one client's timed steps may take, where one step is shorter."""


class Exchange(NamedTuple):
    """What one task costs one client."""

    plan: Plan
    paired: bool
    """Whether no batch may have one row."""
    start_s: float
    """Seconds beside the steps: loading, starting, making the update."""
    step_s: float
    """Seconds a local step."""
    download_bytes: int
    upload_bytes: int
    carry_bytes: int
    """What a stream holds of a client at work: its models, gradient and optimizer."""
    activation_bytes: int
    """What one step keeps for its backward pass."""

    def client_s(self, rows: int) -> float:
        """Return the seconds that a client with so many examples takes."""
        return self.start_s + self.step_s * cut(rows, self.plan, self.paired).steps


class Probe:
    """The open engine. It does a few steps of whatever is asked, and remembers what they took."""

    name = "probe"
    exact = True
    streams = 1

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.exchanges: list[Exchange] = []
        self._stream = Stream(setting)

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Train the cohort for a few steps and return the sum."""
        template = task.aggregator.encode(state, example(task), 0)
        total = fold.zero(template)
        for update in self._updates(task, cohort, own, upload_bytes(template)):
            total = fold.add(total, task.aggregator.encode(state, update, 0))
        return Collected(total, {}, [], 0.0, dict.fromkeys(cohort.clients, upload_bytes(template)))

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield single updates of a few steps."""
        each_bytes = upload_bytes(example(task))
        yield from zip(cohort.clients, self._updates(task, cohort, own, each_bytes), strict=True)

    def close(self) -> None:
        """Hold nothing open."""

    def _updates(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree], each_bytes: int
    ) -> list[Update]:
        task = in_precision(task, self.setting)
        updates, starts, steps = [], [], []
        with one_thread():
            for client in cohort.clients:
                state = own.get(client)
                first_s, _ = self._timed(task, cohort, client, state, 1)
                more = max(1, min(_MOST_STEPS, int(_ENOUGH_S / max(first_s, 1e-6))))
                first_s, _ = self._timed(task, cohort, client, state, 1)
                all_s, update = self._timed(task, cohort, client, state, 1 + more)
                reason = fault(update, example(task))
                if reason:
                    raise ClientError(
                        f"Client {client!r} answers with an update that cannot be used: {reason}. "
                        "If numbers grow from step to step, lower the learning rate or clip the "
                        "gradients (clip_gradient=)."
                    )
                updates.append(update)
                steps.append(max(all_s - first_s, 0.0) / more)
                starts.append(max(first_s - steps[-1], 0.0))
            held = self._activations(task, cohort)
        self.exchanges.append(
            Exchange(
                task.work.plan,
                needs_pairs(task.work),
                statistics.median(starts),
                statistics.median(steps),
                trees.num_bytes(task.broadcast),
                each_bytes,
                _carry_bytes(task),
                held,
            )
        )
        return updates

    def _timed(
        self, task: Task, cohort: Cohort, client: ClientId, own: Tree | None, steps: int
    ) -> tuple[float, Update]:
        """Do some steps of a client's work; the update is in memory of its own."""
        begun = now()
        update, _ = self._stream.train(of_steps(task, steps), cohort, client, own)
        seconds = now() - begun
        return seconds, update._replace(
            value=trees.clone(update.value), counts=trees.clone(update.counts)
        )

    def _activations(self, task: Task, cohort: Cohort) -> int:
        with saved_for_backward() as saved:
            self._stream.train(of_steps(task, 1), cohort, cohort.clients[0], None)
        return sum(saved.values())


def of_steps(task: Task, steps: int) -> Task:
    """Return the task with so many local steps."""
    work = task.work
    return task._replace(work=work._replace(plan=work.plan._replace(epochs=None, steps=steps)))


def _carry_bytes(task: Task) -> int:
    own = task.work.own(task.broadcast) if task.work.own else {}
    carry = task.work.start(task.broadcast, own, as_tensor(0))
    gradient = trees.num_bytes(task.broadcast.get("params", {})) if task.work.train else 0
    return trees.num_bytes(carry) + gradient


@contextlib.contextmanager
def saved_for_backward() -> Iterator[dict[int, int]]:
    """Count what autograd keeps between forward and backward, without the parameters."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        source = tensor if tensor._base is None else tensor._base
        if not (source.is_leaf and source.requires_grad):
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved
