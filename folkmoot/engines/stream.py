"""One stream of clients: the loop that every exact engine runs, here or in a worker.

A stream trains one client after another with one thread of arithmetic and folds its block. It keeps an arena, so that
a carry is copied into memory that is already there, and parameters stay bound to the module.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from folkmoot.core import fold, rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Sum, Update
from folkmoot.core.algorithm import LocalWork, Seen, Task
from folkmoot.core.engine import ClientId, Cohort, LeftOut, Setting
from folkmoot.core.tree import Tree
from folkmoot.engines import batches as cut
from folkmoot.engines.clock import now
from folkmoot.local.diagnose import explain


class Block(NamedTuple):
    """What a stream brings back from one block of a cohort."""

    total: Sum
    own: dict[ClientId, Tree]
    left_out: list[LeftOut]
    client_s: float


class Skipped(Exception):
    """A client that cannot take part, for a reason that is no fault of the program."""


@contextmanager
def one_thread():
    """Train with one thread of arithmetic: more threads give other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_precision(task: Task, setting: Setting) -> Task:
    """Return the task with gradients in the setting's precision."""
    if not task.work.train or setting.precision == "float32":
        return task
    objective = task.work.objective.with_precision(setting.precision)
    return task._replace(work=task.work._replace(objective=objective))


def example(task: Task) -> Update:
    """Return an update of the leaves that a task asks for: local work of no step."""
    own = task.work.own(task.broadcast) if task.work.own else {}
    carry = task.work.start(task.broadcast, own, rng.as_tensor(0))
    update, _ = task.work.finish(task.broadcast, carry, Seen(1, 1))
    return update


class Stream:
    """Trains clients one after another; not shared between threads."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._arena: dict[str, Any] = {}
        self._sent: Tree | None = None
        self._sent_memory: set[int] = set()

    def block(
        self,
        task: Task,
        state: State,
        cohort: Cohort,
        clients: Sequence[ClientId],
        own: Mapping[ClientId, Tree],
        expected: Update,
        total: Sum,
    ) -> Block:
        """Train a block's clients in order and add what they encode to `total`, which is written into."""
        block = Block(total, {}, [], 0.0)
        client_s = 0.0
        for client, order in zip(clients, self._first_orders(task, cohort, clients), strict=True):
            begun = now()
            try:
                update, new_own = self.train(task, cohort, client, own.get(client), order)
            except Skipped as skipped:
                block.left_out.append(LeftOut(client, cohort.round, str(skipped)))
                continue
            client_s += now() - begun
            reason = fold.fault(update, expected)
            if reason is None:
                key = self._key(cohort, client, "encode")
                total = fold.add(total, task.aggregator.encode(state, update, key))
            else:
                block.left_out.append(LeftOut(client, cohort.round, reason))
                continue
            if new_own:
                block.own[client] = trees.clone(new_own)
        return block._replace(total=total, client_s=client_s)

    def single(
        self, task: Task, cohort: Cohort, client: ClientId, own: Tree | None, expected: Update
    ) -> Update | LeftOut:
        """Do one client's work and return its update, in memory of its own, or why it is left out."""
        try:
            update, _ = self.train(task, cohort, client, own)
        except Skipped as skipped:
            return LeftOut(client, cohort.round, str(skipped))
        reason = fold.fault(update, expected)
        if reason:
            return LeftOut(client, cohort.round, reason)
        value, counts = trees.clone(update.value), trees.clone(update.counts)
        return Update(value, float(update.weight), counts)

    def train(
        self, task: Task, cohort: Cohort, client: ClientId, own: Tree | None, order: Any = None
    ) -> tuple[Update, Tree]:
        """Do one client's work; errors come out as they are, with client, round and stage as a note.

        The update may share memory with the arena: use it before the next client, or copy it.
        """
        work, sent = task.work, task.broadcast
        stage, data = "load", {}
        try:
            data = self._data(cohort, client)
            sizes = self._sizes(work, data)
            key = self._key(cohort, client, work.name)
            stage = "start"
            if own is None:
                own = work.own(sent) if work.own else {}
            carry = work.start(sent, own, rng.as_tensor(key))
            if work.train:
                carry = self._private(carry, sent, own)
            steps = 0
            for batch in cut.batches(data, sizes, work.plan, key, order):
                stage = "step"
                carry = work.step(work, sent, carry, batch)
                steps += 1
            stage = "finish"
            return work.finish(sent, carry, Seen(steps, cut.used(work.plan, sizes)))
        except Skipped:
            raise
        except Exception as error:
            where = f"step {steps + 1}" if stage == "step" else stage
            error.add_note(f"In client {client!r}, round {cohort.round}, stage {where}.")
            if data and stage == "step":
                error.add_note(explain(work.objective, data, error))
            raise

    def _data(self, cohort: Cohort, client: ClientId) -> Tree:
        if cohort.part == "held_out":
            return self.setting.held_out[int(client)]
        data = getattr(self.setting.clients[client], cohort.part)
        if data is None:
            raise Skipped(f"it has no {cohort.part} examples")
        return data

    def _sizes(self, work: LocalWork, data: Tree) -> list[int]:
        """Return one epoch's batch sizes, or say why this client cannot be trained."""
        examples = cut.rows(data)
        needs_pairs = work.train and bool(getattr(work.objective, "needs_pairs", False))
        if not examples:
            raise Skipped("it has no examples")
        if needs_pairs and (examples == 1 or work.plan.batch_size == 1):
            raise Skipped(
                "a batch of one row has no batch statistics, which this model's normalisation layers need"
            )
        sizes = cut.cuts(examples, work.plan, needs_pairs)
        if not sizes:
            raise Skipped(f"it has {examples} examples, fewer than the batch size {work.plan.batch_size}")
        return sizes

    def _key(self, cohort: Cohort, client: ClientId, purpose: str) -> int:
        return rng.derive(self.setting.seed, round=cohort.round, client=client, purpose=purpose)

    def _first_orders(self, task: Task, cohort: Cohort, clients: Sequence[ClientId]) -> list[Any]:
        """Shuffle a whole block at once where the sizes are known without loading."""
        plan = task.work.plan
        known = getattr(self.setting.clients, "size_of", None)
        if not plan.shuffle or known is None or cohort.part != "train" or len(clients) == 1:
            return [None] * len(clients)
        sizes = [known(client) for client in clients]
        if any(size is None for size in sizes):
            return [None] * len(clients)
        keys = [self._key(cohort, client, task.work.name) for client in clients]
        return list(rng.orders(keys, sizes, 0))

    def _private(self, carry: Tree, sent: Tree, own: Tree) -> Tree:
        """Copy what a carry shares with the broadcast or the client's own state into the arena."""
        if self._sent is not sent:
            self._sent = sent
            self._sent_memory = _memory(sent)
        shared = self._sent_memory | _memory(own) if own else self._sent_memory
        private: Tree = {}
        for key, part in carry.items():
            tree = part if isinstance(part, dict) else {"": part}
            if _memory(tree).isdisjoint(shared):
                private[key] = part
                continue
            kept = self._arena.get(key)
            if kept is None or trees.differences(kept, tree):
                kept = self._arena[key] = trees.clone(tree)
            else:
                trees.copy_(kept, tree)
            private[key] = kept if isinstance(part, dict) else kept[""]
        return private


def _memory(tree: Tree) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in trees.leaves(tree)}
