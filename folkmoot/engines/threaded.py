"""Workers as threads, each with a replica of the module: where processes cannot be forked.

Torch's kernels release the interpreter's lock, so heavy models run as fast as in processes; small
ones wait for the lock. A model that draws from the process's one generator would mix its streams,
so it is refused.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from folkmoot.core import fold
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.engine import ClientId, Cohort, Collected, LeftOut, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.engines.collect import merged, nothing
from folkmoot.engines.stream import Stream
from folkmoot.engines.tasks import example, in_precision
from folkmoot.local.dropout import generator_state, has_moved

_MIXED = (
    "While clients were trained in threads, torch's one generator was drawn from, and threads mix "
    "such numbers. It was dropout inside a kernel (an LSTM, fused attention), the model's own "
    "torch.rand, or a client's loader. Let loaders draw from a torch.Generator of their own; for "
    "such a model use engine=fm.engines.sequential(), or processes."
)


class Threaded:
    """The open engine."""

    exact = True

    def __init__(self, setting: Setting, workers: int) -> None:
        self.setting = setting
        self.streams = workers
        self.name = f"parallel ({workers} threads)"
        self._pool = ThreadPoolExecutor(
            workers, "folkmoot", initializer=lambda: torch.set_num_threads(1)
        )
        self._local = threading.local()

    def _stream(self) -> Stream:
        if not hasattr(self._local, "stream"):
            self._local.stream = Stream(self.setting)
        return self._local.stream

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Hand out blocks to threads and merge their sums in the cohort's order."""
        task = in_precision(task, self.setting)
        expected = example(task)
        template = task.aggregator.encode(state, expected, 0)

        def block(clients: Any) -> Any:
            stream = self._stream()
            zero = fold.zero(template)
            done = stream.block(task, state, cohort, clients, own, expected, zero)
            self._check(task)
            return done

        collected = nothing(template)
        for done in self._in_order(block, fold.blocks(fold.ascending(cohort.clients))):
            collected = merged(collected, done)
        return collected

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield single updates, made in parallel."""
        task = in_precision(task, self.setting)
        expected = example(task)

        def single(client: ClientId) -> tuple[ClientId, Update | LeftOut]:
            mine = own.get(client)
            found = self._stream().single(task, cohort, client, mine, expected)
            self._check(task)
            return client, found

        yield from self._in_order(single, fold.ascending(cohort.clients))

    def _in_order(self, function: Any, inputs: Any) -> Iterator[Any]:
        """Yield results in the order of the inputs.

        At most workers + 2 are under way or waiting, and none any more at the end, however it
        comes.
        """
        waiting: list[Future[Any]] = []
        before = generator_state()
        try:
            for item in inputs:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) == self.streams + 2:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            # What is under way cannot be cancelled; what was cancelled may never tell of it.
            wait([future for future in waiting if not future.cancel()])
            drawn = has_moved(before)
            torch.default_generator.set_state(before)
        if drawn:
            raise SettingsError(_MIXED)

    def _check(self, task: Task) -> None:
        replica = getattr(task.work.objective, "replica", None)
        if replica and replica().is_opaque:
            raise SettingsError(_MIXED)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=True, cancel_futures=True)
