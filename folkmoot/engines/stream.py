"""One stream of clients: the loop that every exact engine runs, here or in a worker.

A stream trains one client after another with one thread of arithmetic and folds its block. It keeps
an arena, so that a carry is copied into memory that is already there, and parameters stay bound to
the module.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folkmoot.aggregators.faults import differences, fault, holds, is_finite, misfit, not_finite
from folkmoot.aggregators.traffic import upload_bytes
from folkmoot.core import fold, rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Sum, Update
from folkmoot.core.algorithm import Batch, LocalWork, Seen, Task
from folkmoot.core.engine import ClientId, Cohort, LeftOut, Setting
from folkmoot.core.tree import Tree
from folkmoot.engines.batches import Cut, Draws, at_most, batches, cut, draw, rows
from folkmoot.engines.clock import now
from folkmoot.engines.held import Skipped, held
from folkmoot.engines.memory import places, refuse_written, versions
from folkmoot.local.diagnose import explain, where


class Block(NamedTuple):
    """What a stream brings back from one block of a cohort."""

    total: Sum
    own: dict[ClientId, Tree]
    left_out: list[LeftOut]
    client_s: float
    uploads: dict[ClientId, int]
    """Bytes in which each answer travelled that is in the sum."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Train with one thread of arithmetic: more threads give other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Advance = Callable[[LocalWork, Tree, Tree, Iterable[Batch]], Iterator[Tree]]
"""`advance(work, sent, carry, batches)` yields the carry after each step."""


def eagerly(work: LocalWork, sent: Tree, carry: Tree, steps: Iterable[Batch]) -> Iterator[Tree]:
    """Take one step after another, as they are written."""
    for batch in steps:
        carry = work.step(work, sent, carry, batch)
        yield carry


class Stream:
    """Trains clients one after another; not shared between threads."""

    def __init__(self, setting: Setting, advance: Advance = eagerly) -> None:
        self.setting = setting
        self.advance = advance
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
        look: bool = False,
    ) -> Block:
        """Train a block's clients in order and add what they encode into `total`, which is zero.

        A sum is finite only if all is finite that is in it. So updates are looked at one by one
        only where the sum is not: then the same work is done again, with a `look` at each.
        """
        keep: dict[ClientId, Tree] = {}
        left_out: list[LeftOut] = []
        client_s, uploads = 0.0, dict[ClientId, int]()
        encode_key = rng.derive(
            self.setting.seed, round=cohort.round, purpose=cohort.purpose("encode")
        )
        look = look or bool(state.codec)
        for client, ready in zip(clients, self._draw(task, cohort, clients), strict=True):
            begun = now()
            try:
                update, new_own = self.train(task, cohort, client, own.get(client), ready)
            except Skipped as skipped:
                left_out.append(LeftOut(client, cohort.round, str(skipped)))
                continue
            client_s += now() - begun
            reason = fault(update, expected) if look else misfit(update, expected)
            if reason is None:
                try:
                    encoded = task.aggregator.encode(
                        state, update, rng.of_client(encode_key, client)
                    )
                except Exception as error:
                    error.add_note(where(cohort, client, "encode"))
                    raise
                # What an encoder has changed, or a weight of 0 keeps out, the sum may not show.
                if not look and not (encoded.weight and holds(encoded.value, update.value)):
                    reason = not_finite(update.value)
            if reason is not None:
                left_out.append(LeftOut(client, cohort.round, reason))
                continue
            total = fold.add(total, encoded)
            uploads[client] = upload_bytes(encoded)
            if new_own:
                keep[client] = self._lasting(new_own)
        if look or is_finite(total.value):
            return Block(total, keep, left_out, client_s, uploads)
        for leaf in trees.leaves(total.value) + trees.leaves(total.counts):
            leaf.zero_()
        empty = Sum(total.value, 0.0, total.counts, 0)
        return self.block(task, state, cohort, clients, own, expected, empty, look=True)

    def single(
        self, task: Task, cohort: Cohort, client: ClientId, own: Tree | None, expected: Update
    ) -> Update | LeftOut:
        """Do one client's work; return its update, in memory of its own, or why it is left out."""
        try:
            update, _ = self.train(task, cohort, client, own)
        except Skipped as skipped:
            return LeftOut(client, cohort.round, str(skipped))
        reason = fault(update, expected)
        if reason:
            return LeftOut(client, cohort.round, reason)
        value, counts = trees.clone(update.value), trees.clone(update.counts)
        return Update(value, float(update.weight), counts, update.packed_bytes)

    def train(
        self,
        task: Task,
        cohort: Cohort,
        client: ClientId,
        own: Tree | None,
        ready: tuple[Cut, Draws] | None = None,
    ) -> tuple[Update, Tree]:
        """Do one client's work; errors come out as they are, noted with client, round and stage.

        The update may share memory with the arena: use it before the next client, or copy it.
        """
        work, sent = task.work, task.broadcast
        stage, steps, data = "load", 0, {}
        try:
            data = self._data(cohort, client)
            if ready is None or ready[0].examples != rows(data):
                ready = self._plan(task, cohort, client, rows(data))
            refuse_too_few(work, ready[0])
            stage = "start"
            if getattr(work.objective, "keeps", False):
                work.objective.renew()  # type: ignore[attr-defined]
            if own is None:
                own = work.own(sent) if work.own else {}
            before = versions(sent, own)
            carry = work.start(sent, own, ready[1].keys[0])
            if work.train:
                carry = self._private(work, carry, sent, own)
            stage = "step"
            for latest in self.advance(work, sent, carry, batches(data, *ready)):
                carry = latest
                steps += 1
            stage = "finish"
            done = work.finish(sent, carry, Seen(steps, ready[0].used))
            refuse_written(work, before, sent, own)
            return done
        except Skipped:
            raise
        except Exception as error:
            at = f"step {steps + 1}" if stage == "step" else stage
            error.add_note(where(cohort, client, at, self.setting.held_out))
            if data and stage == "step":
                error.add_note(explain(work.objective, data, error))
            raise

    def _data(self, cohort: Cohort, client: ClientId) -> Tree:
        if cohort.part == "held_out":
            return self.setting.held_out[int(client)]
        return held(self.setting.clients, client, cohort)

    def _draw(
        self, task: Task, cohort: Cohort, clients: Sequence[ClientId]
    ) -> Sequence[tuple[Cut, Draws] | None]:
        """Draw for a whole block at once, where its sizes are known without loading."""
        size_of = getattr(self.setting.clients, "size_of", None)
        found = [size_of(client) for client in clients] if size_of else []
        sizes = [size for size in found if size is not None]
        if cohort.part != "train" or len(sizes) < len(clients):
            return [None] * len(clients)
        base = rng.derive(
            self.setting.seed, round=cohort.round, purpose=cohort.purpose(task.work.name)
        )
        keys = [rng.of_client(base, client) for client in clients]
        whole = [cut(size, task.work.plan, needs_pairs(task.work)) for size in sizes]
        limits = map(cohort.steps.get, clients)
        cuts = [at_most(one, limit) for one, limit in zip(whole, limits, strict=True)]
        return list(zip(cuts, draw(keys, cuts), strict=True))

    def _plan(
        self, task: Task, cohort: Cohort, client: ClientId, examples: int
    ) -> tuple[Cut, Draws]:
        key = rng.derive(
            self.setting.seed,
            round=cohort.round,
            client=client,
            purpose=cohort.purpose(task.work.name),
        )
        whole = cut(examples, task.work.plan, needs_pairs(task.work))
        one = at_most(whole, cohort.steps.get(client))
        return one, draw([key], [one])[0]

    def _private(self, work: LocalWork, carry: Tree, sent: Tree, own: Tree) -> Tree:
        """Copy what a carry shares with the broadcast or the client's own state into the arena."""
        fresh = self._sent is not sent
        if fresh:
            self._sent, self._sent_memory = sent, places(sent)
        layout = _channels_last if getattr(work.objective, "channels_last", False) else torch.clone
        private: Tree = {}
        for name, part in carry.items():
            if type(part) is not dict:
                part = {"": part}
            is_sent = part is sent.get(name)
            # No step may write into what a client keeps, so that is not copied for it.
            if not part or name == "own" or not (is_sent or self._shares(part, own)):
                private[name] = carry[name]
                continue
            kept = self._arena.get(name)
            # Within one broadcast its own leaves cannot change shape.
            if kept is None or ((fresh or not is_sent) and differences(kept, part)):
                kept = self._arena[name] = trees.map(layout, part)
            else:
                trees.copy_(kept, part)
            private[name] = kept.get("", kept) if type(carry[name]) is not dict else kept
        return private

    def _lasting(self, own: Tree) -> Tree:
        """Copy what lies in memory that the next client will use, or in a part of a larger one."""
        arena = places(self._arena)

        def lasting(leaf: Tensor) -> Tensor:
            memory = leaf.untyped_storage()
            whole = memory.nbytes() == leaf.numel() * leaf.element_size()
            return leaf if whole and memory.data_ptr() not in arena else leaf.clone()

        return trees.map(lasting, own)

    def _shares(self, part: Tree, own: Tree) -> bool:
        memory = places(part)
        return not memory.isdisjoint(self._sent_memory) or not memory.isdisjoint(places(own))


def learn_randomness(setting: Setting, task: Task, cohort: Cohort) -> None:
    """Train one client for one ordinary step, if nobody has yet: it shows what the model draws."""
    objective: Any = task.work.objective
    if getattr(objective, "model", None) is None or objective.replica().is_random is not None:
        return
    work = task.work._replace(plan=task.work.plan._replace(epochs=None, steps=1))
    stream = Stream(setting)
    with one_thread(), suppress(Skipped):
        stream.train(task._replace(work=work), cohort, cohort.clients[0], None)


def _channels_last(leaf: Tensor) -> Tensor:
    """Copy a leaf; filters of convolutions get their channels last."""
    images = leaf.dim() == 4
    return leaf.clone(memory_format=torch.channels_last if images else torch.preserve_format)


def needs_pairs(work: LocalWork) -> bool:
    """Tell whether a batch of one row has no meaning for a work's model."""
    name = "needs_pairs" if work.train else "judges_pairs"
    return bool(getattr(work.objective, name, False))


def refuse_too_few(work: LocalWork, cut: Cut) -> None:
    """Leave out a client whose examples cannot make a batch."""
    if not cut.examples:
        raise Skipped("it has no examples")
    if not cut.sizes:
        raise Skipped(
            f"it has {cut.examples} examples, fewer than the batch size {work.plan.batch_size}"
        )
    if 1 in cut.sizes and needs_pairs(work):
        raise Skipped(
            "a batch of one row has no batch statistics, which this model's normalisation layers "
            "need"
        )
