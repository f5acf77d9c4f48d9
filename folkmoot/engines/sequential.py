"""The reference: one client after another, in this process and thread.

All other exact engines give these bits. `breakpoint()` works in client code, and its errors are the
client's own.
"""

from collections.abc import Iterator, Mapping, Sequence

from folkmoot.core import fold
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.engine import ClientId, Cohort, Collected, LeftOut, Opener, Setting
from folkmoot.core.tree import Tree
from folkmoot.engines.collect import merged, nothing
from folkmoot.engines.stream import Advance, Block, Stream, eagerly, one_thread
from folkmoot.engines.tasks import example, in_precision
from folkmoot.engines.watched import watched


def sequential() -> Opener:
    """Run clients one by one, with one thread of arithmetic: the reference for all engines."""
    return Sequential


class Sequential:
    """The open engine."""

    name = "sequential"
    exact = True
    streams = 1

    def __init__(self, setting: Setting, advance: Advance = eagerly) -> None:
        self.setting = setting
        self._stream = Stream(setting, advance)

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Train the cohort block by block and return the sum."""
        task = in_precision(task, self.setting)
        expected = example(task)
        template = task.aggregator.encode(state, expected, 0)
        collected = nothing(template)
        with one_thread():
            for clients in fold.blocks(fold.ascending(cohort.clients)):

                def train(clients: Sequence[ClientId] = clients) -> Block:
                    total = fold.zero(template)
                    return self._stream.block(task, state, cohort, clients, own, expected, total)

                block = watched(task, train)
                collected = merged(collected, block)
        return collected

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield one client's update after another."""
        task = in_precision(task, self.setting)
        expected = example(task)
        for client in fold.ascending(cohort.clients):

            def train(client: ClientId = client) -> Update | LeftOut:
                return self._stream.single(task, cohort, client, own.get(client), expected)

            with one_thread():
                found = watched(task, train) if task.work.train else train()
            yield client, found

    def close(self) -> None:
        """Hold nothing open."""
