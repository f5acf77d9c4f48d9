"""The compiled engine: several local steps as one compiled program, for long runs of small models.

A client's full batches are taken several at a time through one `torch.compile` graph; what is left
over runs as it is written. Compiling takes seconds, so it pays after a few hundred rounds. The
numbers agree with the sequential engine's within rounding, not bit for bit, and are equal among
any numbers of workers: the parent compiles, and workers inherit the program by fork.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Batch, LocalWork, Task
from folkmoot.core.engine import ClientId, Cohort, Collected, Engine, LeftOut, Opener, Setting
from folkmoot.core.errors import positive
from folkmoot.core.tree import Tree
from folkmoot.engines.fallback import DRAWN, UnfitError, cause
from folkmoot.engines.forked import Forked
from folkmoot.engines.held import Skipped
from folkmoot.engines.parallel import can_fork, num_cores
from folkmoot.engines.sequential import Sequential
from folkmoot.engines.stream import Stream, eagerly, learn_randomness, one_thread
from folkmoot.engines.tasks import in_precision

UNROLLED = 6
"""Steps of one compiled program; with one, the cost of entering it eats the gain."""


def compiled(workers: int | None = None, *, unrolled: int = UNROLLED) -> Opener:
    """Compile local steps, several at a time, and run them in one stream a core.

    Args:
        workers: Streams; None is one a core, or 1 where processes cannot be forked.
        unrolled: Steps of one program.

    Raises:
        SettingsError: When a task is asked whose step cannot be compiled.
    """
    positive(unrolled=unrolled)

    def open(setting: Setting) -> Engine:
        streams = (workers or num_cores()) if can_fork() else 1
        return Compiled(setting, streams, unrolled)

    return open


def refusal(work: LocalWork) -> str | None:
    """Say why a work's step is not compiled, or None."""
    if work.plan.poisson:
        return DRAWN
    objective: Any = work.objective
    model = getattr(objective, "model", None)
    if model is None:
        return "its objective is not a PyTorch module"
    if any(isinstance(layer, nn.RNNBase) for layer in model.modules()):
        return "recurrent layers run in a kernel of their own, which compiling only slows"
    state = objective.init()
    if state["buffers"] or state["counts"]:
        return "its layers keep statistics, which they write while they run"
    if not objective.replica().is_plain:
        return "it draws random numbers from the step's key"
    return None


def _refuse(work: LocalWork, reason: str | None) -> None:
    if reason:
        raise UnfitError(
            f"The step of work {work.name!r} cannot be compiled: {reason}. Use "
            "fm.engines.parallel()."
        )


def _unfit(work: LocalWork, error: Exception) -> UnfitError:
    return UnfitError(
        f"The step of work {work.name!r} cannot be compiled: {cause(error)}. Use "
        "fm.engines.parallel()."
    )


class Unrolled:
    """Takes several steps at a time, through one compiled program for each work and batch shape."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._programs: dict[Any, Any] = {}
        self._refused: dict[LocalWork, bool] = {}

    def __call__(
        self, work: LocalWork, sent: Tree, carry: Tree, steps: Iterable[Batch]
    ) -> Iterator[Tree]:
        """Yield a carry for each step, as `eagerly` does; within a program it is the last one."""
        if work not in self._refused:
            self._refused[work] = not work.train or refusal(work) is not None
        if self._refused[work]:
            yield from eagerly(work, sent, carry, steps)
            return
        for shape, alike in itertools.groupby(steps, key=_shape):
            while few := list(itertools.islice(alike, self._steps)):
                if len(few) < self._steps:
                    for carry in eagerly(work, sent, carry, few):  # noqa: B020
                        yield carry
                    break
                program = self._program(work, shape)
                try:
                    parts = [(batch.data, torch.as_tensor(batch.epoch)) for batch in few]
                    carry = program(sent, carry, parts, few[0].key)
                except torch._dynamo.exc.TorchDynamoException as error:
                    raise _unfit(work, error) from error
                yield from itertools.repeat(carry, len(few))

    def _program(self, work: LocalWork, shape: Any) -> Any:
        """Return the compiled steps of a work for one shape of batch."""
        if (work, shape) not in self._programs:

            def steps(sent: Tree, carry: Tree, parts: list[Any], key: Tensor) -> Tree:
                for data, epoch in parts:
                    # Nothing draws from the key: works that do are not compiled.
                    carry = work.step(work, sent, carry, Batch(data, None, key, epoch))
                return carry

            # Code of its own: torch keeps a code's programs together and refuses the ninth.
            steps.__code__ = steps.__code__.replace()
            self._programs[work, shape] = torch.compile(steps, fullgraph=True, dynamic=False)
        return self._programs[work, shape]


def _shape(batch: Batch) -> Any:
    return tuple((path, leaf.shape) for path, leaf in trees.items(batch.data))


class Compiled:
    """The open engine: the parallel one, whose streams take compiled steps."""

    exact = False

    def __init__(self, setting: Setting, workers: int, unrolled: int) -> None:
        self.setting = setting
        self.streams = workers
        self.name = f"compiled ({workers} {'processes' if workers > 1 else 'process'})"
        self._advance = Unrolled(unrolled)
        self._warm: set[LocalWork] = set()
        inner = Sequential if workers == 1 else Forked
        self._inner: Any = (
            Sequential(setting, self._advance)
            if inner is Sequential
            else Forked(setting, workers, self._advance)
        )

    def refuse(self, work: LocalWork) -> None:
        """Refuse, before anyone is asked, what only the plan must say."""
        _refuse(work, DRAWN if work.plan.poisson else None)

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Compile what is new, in this process, then ask the streams."""
        if task.work.train and task.work not in self._warm:
            self._compile(in_precision(task, self.setting), cohort)
            self._warm.add(task.work)
        collected: Collected = self._inner.ask(task, state, cohort, own)
        return collected

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield single updates."""
        yield from self._inner.stream(task, cohort, own)

    def close(self) -> None:
        """Close the streams."""
        self._inner.close()

    def _compile(self, task: Task, cohort: Cohort) -> None:
        """Train one client here, so that workers inherit the compiled program."""
        learn_randomness(self.setting, task, cohort)
        _refuse(task.work, refusal(task.work))
        from torch._inductor import config  # a second to import, and only needed here

        # No pool of compiling processes: none may be left behind.
        with one_thread(), config.patch(compile_threads=1):
            try:
                self._train_one(Stream(self.setting, self._advance), task, cohort)
                return
            except Exception as error:
                failure = error
            self._train_one(Stream(self.setting), task, cohort)
        # As it is written the step can be taken, so it was not the client.
        raise failure if isinstance(failure, UnfitError) else _unfit(task.work, failure)

    @staticmethod
    def _train_one(stream: Stream, task: Task, cohort: Cohort) -> None:
        """Train the first client that can be trained."""
        for client in cohort.clients:
            with contextlib.suppress(Skipped):
                stream.train(task, cohort, client, None)
                return
