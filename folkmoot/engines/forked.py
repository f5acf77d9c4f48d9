"""Workers as forked processes: one stream a core; data, model and sums shared with the parent.

A worker inherits clients, works and closures by fork, so nothing is pickled: classes of a notebook
cell work. It is forked anew when a task is asked that it has not inherited. When client code raises
or calls `breakpoint()`, the worker only says so: the parent does that block again by itself, with
the same bits, and the error or the debugger is where the user can see it.
"""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple

from folkmoot.aggregators.faults import differences
from folkmoot.core import fold
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.engine import ClientId, Cohort, Collected, LeftOut, Setting
from folkmoot.core.errors import InfrastructureError
from folkmoot.core.tree import Tree
from folkmoot.engines.collect import merged, nothing
from folkmoot.engines.shared import receive, send, shared_like
from folkmoot.engines.stream import Advance, Block, Stream, eagerly, one_thread
from folkmoot.engines.tasks import example, in_precision
from folkmoot.engines.watched import watched
from folkmoot.engines.worker import Known, block_of, end_with, part_of, serve, singles

_KNOWN_TASKS = 8
_MOST_HELD = 2
"""Blocks a worker holds: the one it trains and, until few are left, the next, so as not to wait."""
_SLOTS_BYTES = 256 << 20
"""Memory that the sums of waiting blocks may take, where more than workers + 2 would."""
_MOST_NAMES = 500
"""Clients of a message that surely fits into a connection while nobody reads there."""

Busy = list[list[tuple[int, int]]]
"""For each worker the blocks that it holds, in order: which of the cohort's, and its slot."""


class Worker(NamedTuple):
    """One child process."""

    pid: int
    connection: Connection


class Forked:
    """The open engine."""

    exact = True

    def __init__(self, setting: Setting, workers: int, advance: Advance = eagerly) -> None:
        self.setting = setting
        self.streams = workers
        self.name = f"parallel ({workers} processes)"
        self._known: list[Known] = []
        self._workers: list[Worker] = []
        self._forked_by = threading.current_thread()
        self._stream = Stream(setting, advance)

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Hand out blocks, and merge the sums in the cohort's order as they come back."""
        task = in_precision(task, self.setting)
        place = self._place(task, state)
        template = self._known[place].template
        collected = nothing(template)
        for block in self._blocks(place, state, cohort, own):
            collected = merged(collected, block)
        return collected

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield single updates, made in parallel."""
        task = in_precision(task, self.setting)
        yield from self._blocks(self._place(task, None), None, cohort, own)

    def close(self) -> None:
        """Kill the workers, also in the middle of their work, and wait for them.

        None may wait to be told: whatever else was forked here meanwhile (another engine's workers,
        a loader's) holds a copy of their connections, which then stay open.
        """
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.connection.close()
        for worker in self._workers:
            os.waitpid(worker.pid, 0)
        self._workers = []

    def _place(self, task: Task, state: State | None) -> int:
        """Return the place of a task that workers know; fork them anew for one that they don't."""
        places = [at for at, known in enumerate(self._known) if _serves(known, task, state)]
        if places:
            place = places[0]
            trees.copy_(self._known[place].task.broadcast, task.broadcast)
        else:
            self.close()
            expected = example(task)
            template = task.aggregator.encode(state, expected, 0) if state else expected
            total = fold.zero(template)
            slots = [
                shared_like({"value": total.value, "counts": total.counts})
                for _ in range(_num_slots(self.streams, template))
            ]
            shared = task._replace(broadcast=shared_like(task.broadcast))
            trees.copy_(shared.broadcast, task.broadcast)
            fresh = Known(shared, state, expected, template, slots)
            self._known = [*self._known[1 - _KNOWN_TASKS :], fresh]
            place = len(self._known) - 1
        if not self._forked_by.is_alive():
            # Linux ends a worker with the thread that has forked it.
            self.close()
        if not self._workers:
            self._forked_by = threading.current_thread()
        while len(self._workers) < self.streams:
            self._workers.append(self._fork())
        return place

    def _fork(self) -> Worker:
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        with warnings.catch_warnings():
            # Python warns where other threads run; none of ours hold a lock that a worker takes.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            theirs.close()
            return Worker(pid, ours)
        end_with(parent)
        ours.close()
        for worker in self._workers:
            worker.connection.close()
        serve(theirs, self._stream, self._known)

    def _blocks(
        self, known_at: int, state: State | None, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[Any]:
        """Yield finished blocks in the cohort's order: sums, or single updates without a state."""
        known = self._known[known_at]
        todo = fold.blocks(fold.ascending(cohort.clients))
        header: dict[str, Any] = {"task": known_at}
        if state:
            # Bounds tell of the cohort's size, which a Poisson draw changes in every round.
            header["bounds"] = list(state.bounds)
        codec = state.codec if state else {}
        free_slots = list(range(len(known.slots)))
        busy: Busy = [[] for _ in self._workers]
        done: dict[int, tuple[int, dict[str, Any], Tree]] = {}
        left = list(range(len(todo)))
        efforts = [self._effort(clients, cohort.part) for clients in todo]
        try:
            for index, clients in enumerate(todo):
                while index not in done:
                    while left and free_slots:
                        # As many as there are slots may wait for the first, so the longest begins.
                        place = max(left[: len(free_slots)], key=efforts.__getitem__)
                        more = codec or own or cohort.absent
                        short = not more and len(todo[place]) <= _MOST_NAMES
                        ahead = short and len(left) > _MOST_HELD * self.streams
                        worker = _free(busy, ahead)
                        if worker is None:
                            break
                        left.remove(place)
                        slot = free_slots.pop()
                        busy[worker].append((place, slot))
                        asked = list(todo[place])
                        message = {**header, **part_of(cohort, asked), "slot": slot}
                        self._hand_out(worker, message, codec, own)
                    for worker, answer, tree in self._answers(busy, todo):
                        finished, slot = busy[worker].pop(0)
                        done[finished] = (slot, answer, tree)
                slot, answer, tree = done.pop(index)
                if answer["failed"]:
                    # The same block again, here: the same bits, and the error is the client's own.
                    yield from self._again(known, state, cohort, clients, own)
                elif state is None:
                    yield from singles(answer, tree, clients, cohort.round)
                else:
                    yield block_of(answer, tree, known.slots[slot], clients, cohort.round)
                free_slots.append(slot)
        finally:
            if any(busy):
                self.close()

    def _effort(self, clients: Sequence[ClientId], part: str) -> tuple[int, int]:
        """Return what orders blocks by their work: clients, and of a single one its examples."""
        size_of = getattr(self.setting.clients, "size_of", None)
        if size_of is None or part != "train" or len(clients) > 1:
            return len(clients), 0
        return 1, size_of(clients[0]) or 0

    def _hand_out(
        self, worker: int, message: dict[str, Any], codec: Tree, own: Mapping[ClientId, Tree]
    ) -> None:
        clients = message["clients"]
        private = {f"{at}": own[client] for at, client in enumerate(clients) if client in own}
        # To whom nothing can be sent, nothing will come from: `_answers` sees what it died of.
        with contextlib.suppress(OSError):
            send(self._workers[worker].connection, message, {"codec": codec, "own": private})

    def _answers(
        self, busy: Busy, todo: list[Sequence[ClientId]]
    ) -> Iterator[tuple[int, dict[str, Any], Tree]]:
        """Wait until at least one busy worker has answered."""
        waiting = {self._workers[at].connection: at for at, held in enumerate(busy) if held}
        for connection in wait(list(waiting)):
            worker = waiting[connection]  # type: ignore[index]
            try:
                answer, tree = receive(connection)  # type: ignore[arg-type]
            except (EOFError, OSError) as error:
                raise self._lost(worker, todo[busy[worker][0][0]]) from error
            yield worker, answer, tree

    def _lost(self, worker: int, clients: Sequence[ClientId]) -> InfrastructureError:
        pid = self._workers[worker].pid
        _, status = os.waitpid(pid, 0)
        self._workers = [other for other in self._workers if other.pid != pid]
        if os.WIFSIGNALED(status):
            why = f"was ended by signal {os.WTERMSIG(status)}"
        else:
            why = f"ended with status {os.WEXITSTATUS(status)}"
        first, last = clients[0], clients[-1]
        return InfrastructureError(
            f"Worker process {pid} {why} while it trained clients {first!r} to {last!r}. Signal 9 "
            "mostly means that memory ran out: use fewer workers, or resume from the checkpoint."
        )

    def _again(
        self,
        known: Known,
        state: State | None,
        cohort: Cohort,
        clients: Sequence[ClientId],
        own: Mapping[ClientId, Tree],
    ) -> Iterator[Any]:
        """Do one block in this process."""
        task, expected = known.task, known.expected

        if state is None:
            for client in clients:

                def single(client: ClientId = client) -> Update | LeftOut:
                    return self._stream.single(task, cohort, client, own.get(client), expected)

                with one_thread():
                    found = watched(task, single)
                yield client, found
            return
        ready = state

        def block() -> Block:
            total = fold.zero(known.template)
            return self._stream.block(task, ready, cohort, clients, own, expected, total)

        with one_thread():
            done = watched(task, block)
        yield done


def _num_slots(streams: int, template: Update) -> int:
    """Return how many sums may wait for their turn.

    Many let long blocks begin first, so that all workers end together; few keep a large model's
    memory small.
    """
    affordable = _SLOTS_BYTES // max(1, trees.num_bytes(template.value))
    return min(max(affordable, streams + 2), 4 * streams + 2)


def _free(busy: Busy, ahead: bool) -> int | None:
    """Return the worker with the least to do, if it may be given more.

    Another block beside the one that it trains is given only where that may lie `ahead`.
    """
    worker = min(range(len(busy)), key=lambda at: len(busy[at]))
    return worker if len(busy[worker]) < (_MOST_HELD if ahead else 1) else None


def _serves(known: Known, task: Task, state: State | None) -> bool:
    """Tell whether workers that have inherited `known` can do a task."""
    if known.task.work != task.work or known.task.aggregator != task.aggregator:
        return False
    if (known.state is None) != (state is None):
        return False
    if state and known.state and known.state.layout != state.layout:
        return False
    return not differences(known.task.broadcast, task.broadcast)
