"""The vectorized engine: many clients in one `torch.func.vmap`, for small models.

A small model's step is mostly dispatch, which many clients can share. Clients of a chunk are sorted
by their number of steps, and those that are done drop off the end. Short batches are padded with
rows of weight 0; models whose layers mix rows or keep statistics, and losses that are a scalar, are
never padded: clients are grouped by the true size of their batch instead. The numbers agree with
the sequential engine's within rounding, not bit for bit.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import nn

from folkmoot.aggregators.traffic import upload_bytes
from folkmoot.core import fold, rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import LocalWork, Task
from folkmoot.core.engine import ClientId, Cohort, Collected, LeftOut, Opener, Setting
from folkmoot.core.errors import positive
from folkmoot.core.tree import Tree
from folkmoot.engines.chunk import add_rows, gather, row, sound, train_together
from folkmoot.engines.clock import now
from folkmoot.engines.collect import nothing
from folkmoot.engines.fallback import DRAWN, UnfitError, cause
from folkmoot.engines.padding import may_pad
from folkmoot.engines.sequential import Sequential
from folkmoot.engines.stream import learn_randomness, one_thread
from folkmoot.engines.tasks import example, in_precision

MOST_PARAMETERS = 10_000
"""Largest model for which vectorizing pays on a CPU."""
_CHUNK_PARAMETERS = 500_000
_MOST_CLIENTS = 1_000
_TRIED = 10


def vectorized(chunk: int | None = None) -> Opener:
    """Train many clients at once in one mapped program, padded and masked.

    Args:
        chunk: Clients at once; None is 500,000 over the number of parameters, at most 1,000: larger
            stacks leave the cache.

    Raises:
        SettingsError: If `chunk` is below 1; and, when a task is asked, for a model that cannot be
            mapped.
    """
    if chunk is not None:
        positive(chunk=chunk)

    def open(setting: Setting) -> Vectorized:
        return Vectorized(setting, chunk)

    return open


def refusal(work: LocalWork) -> str | None:
    """Say why a work cannot be vectorized, or None."""
    if work.plan.poisson:
        return DRAWN
    objective: Any = work.objective
    model = getattr(objective, "model", None)
    if model is None:
        return "its objective is not a PyTorch module"
    for layer in model.modules():
        if isinstance(layer, nn.RNNBase):
            return "recurrent layers have no batching rule, so they would run one by one"
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            if layer.max_norm is not None:
                return "an embedding with max_norm writes into its weights in each forward pass"
            if layer.sparse:
                return "an embedding with sparse=True has gradients that cannot be stacked"
    if objective.replica().is_opaque:
        return "it draws random numbers inside a kernel, where the step's key does not reach"
    return None


def _refuse(work: LocalWork, reason: str | None) -> None:
    if reason:
        raise UnfitError(
            f"The model of work {work.name!r} cannot be vectorized: {reason}. Use "
            "fm.engines.parallel()."
        )


def maps(setting: Setting, task: Task) -> bool:
    """Tell whether a step of a client can be mapped, each operation by a rule of its own."""
    work = task.work._replace(plan=task.work.plan._replace(epochs=None, steps=1))
    task = task._replace(work=work)
    engine = Vectorized(setting, 1)
    with warnings.catch_warnings():
        # An operation without a rule runs client by client, which is slower than the streams.
        warnings.filterwarnings("error", "There is a performance drop")
        try:
            state = task.aggregator.init(example(task), 1)
            for client in islice(setting.clients, _TRIED):
                cohort = Cohort(0, (client,), len(setting.clients), 1)
                if engine.ask(task, state, cohort, {}).total.count:
                    break
        except Exception:
            # If it is a mistake of the user's, the other engine says so, by client.
            return False
    return True


class Vectorized:
    """The open engine; evaluation and single updates run one client after another."""

    exact = False
    streams = 1

    def __init__(self, setting: Setting, chunk: int | None) -> None:
        self.setting = setting
        self.name = "vectorized"
        self._chunk = chunk
        self._single = Sequential(setting)
        self._pads: dict[LocalWork, bool] = {}

    def refuse(self, work: LocalWork) -> None:
        """Refuse, before anyone is asked, what only the plan must say."""
        _refuse(work, DRAWN if work.plan.poisson else None)

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Train the cohort chunk by chunk and return the sum."""
        if not task.work.train:
            return self._single.ask(task, state, cohort, own)
        task = in_precision(task, self.setting)
        learn_randomness(self.setting, task, cohort)
        _refuse(task.work, refusal(task.work))
        expected = example(task)
        collected = nothing(task.aggregator.encode(state, expected, 0))
        clients = fold.ascending(cohort.clients)
        with one_thread():
            size = self._size(task)
            for begin in range(0, len(clients), size):
                chunk = clients[begin : begin + size]
                collected = self._add(collected, task, state, cohort, chunk, own, expected)
        return collected

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Yield one client's update after another."""
        return self._single.stream(task, cohort, own)

    def close(self) -> None:
        """Hold nothing open."""

    def _size(self, task: Task) -> int:
        params = sum(leaf.numel() for leaf in trees.leaves(task.work.objective.init()["params"]))
        return self._chunk or max(1, min(_MOST_CLIENTS, _CHUNK_PARAMETERS // max(params, 1)))

    def _add(
        self,
        collected: Collected,
        task: Task,
        state: State,
        cohort: Cohort,
        clients: Sequence[ClientId],
        own: Mapping[ClientId, Tree],
        expected: Update,
    ) -> Collected:
        """Add the updates of one chunk; if it fails, train its clients again, one by one."""
        try:
            return self._together(collected, task, state, cohort, clients, own, expected)
        except Exception as error:
            failure = error
        self._single.ask(task, state, cohort._replace(clients=tuple(clients)), own)
        raise UnfitError(
            f"The model of work {task.work.name!r} cannot be vectorized, though each client can be "
            f"trained by itself: {cause(failure)}. Use fm.engines.parallel()."
        ) from failure

    def _together(
        self,
        collected: Collected,
        task: Task,
        state: State,
        cohort: Cohort,
        clients: Sequence[ClientId],
        own: Mapping[ClientId, Tree],
        expected: Update,
    ) -> Collected:
        """Train one chunk together and add its updates, ascending by client."""
        begun = now()
        chunk, left_out = gather(self.setting, task, cohort, clients)
        if not chunk.clients:
            return collected._replace(left_out=collected.left_out + left_out)
        if task.work not in self._pads:
            self._pads[task.work] = may_pad(task, chunk.data)
        updates, states = train_together(task, chunk, own, self._pads[task.work])
        client_s = now() - begun
        good, faulty = sound(updates, expected)
        left_out += [LeftOut(chunk.clients[at], cohort.round, why) for at, why in faulty.items()]
        total, uploads = collected.total, collected.uploads
        if state.codec:
            encode_key = rng.derive(
                self.setting.seed, round=cohort.round, purpose=cohort.purpose("encode")
            )
            for at in sorted(good, key=lambda at: chunk.clients[at]):
                key = rng.of_client(encode_key, chunk.clients[at])
                one = task.aggregator.encode(state, row(updates, at), key)
                total = fold.add(total, one)
                uploads[chunk.clients[at]] = upload_bytes(one)
        else:
            encoded = task.aggregator.encode(state, updates, 0)
            total = add_rows(total, encoded, good, len(chunk.clients))
            each_bytes = upload_bytes(expected)
            uploads.update({chunk.clients[at]: each_bytes for at in good})
        kept = {
            chunk.clients[at]: trees.map(lambda leaf, at=at: leaf[at].clone(), states)
            for at in (good if states else [])
        }
        return Collected(
            total,
            {**collected.own, **kept},
            collected.left_out + left_out,
            collected.client_s + client_s,
            uploads,
        )
