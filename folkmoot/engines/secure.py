"""Secure sums over any engine: single updates are never seen, and too small a sum is not opened.

In a simulation whoever runs the program could see everything; what the engine shows is what a
server would see. By default it adds encoded updates modulo a power of two, which gives the bits of
the protocol; asked for the protocol, it plays all its parties.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from folkmoot.core import tree as trees
from folkmoot.core import wire
from folkmoot.core.aggregator import EACH, State, Sum, Update
from folkmoot.core.algorithm import LocalWork, Task
from folkmoot.core.engine import ClientId, Cohort, Collected, Engine, LeftOut, Opener, Setting
from folkmoot.core.errors import ClientError, QuorumError, VisibilityError
from folkmoot.core.tree import Tree
from folkmoot.engines.tasks import example
from folkmoot.secagg.primitives import refuse_absent
from folkmoot.secagg.recording import begin_record
from folkmoot.secagg.secure import Secure
from folkmoot.secagg.terms import SMALLEST_COHORT, Terms
from folkmoot.secagg.together import together

_WORDS = {torch.int16: np.uint16, torch.int32: np.uint32, torch.int64: np.uint64}


def secure_sums(opener: Opener, secure: Secure) -> Opener:
    """Return an engine in which what clients train is only ever seen as a secure sum.

    Args:
        opener: Of the engine in which clients run; the protocol asks them one after another.
        secure: What is asked of the sums.
    """

    if secure.protocol:
        refuse_absent()

    def opened(setting: Setting) -> "SecureSums":
        return SecureSums(opener(setting), secure, setting.seed)

    return opened


class SecureSums:
    """An engine around another one."""

    def __init__(self, inner: Engine, secure: Secure, seed: int) -> None:
        self.inner, self.secure = inner, secure
        self.name, self.exact, self.streams = inner.name, inner.exact, inner.streams
        self.run = hashlib.sha256(f"folkmoot run {seed}".encode()).digest()

    def ask(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Bring back the sum over those who answered, if they are enough.

        Raises:
            QuorumError: If they are too few; nothing was opened.
        """
        if cohort.part != "train":
            return self.inner.ask(task, state, cohort, own)
        if task.aggregator.sees is EACH:
            raise unseen(task)
        if len(cohort.clients) < SMALLEST_COHORT:
            raise QuorumError(
                f"Round {cohort.round} asked {len(cohort.clients)} clients, and a secure sum of "
                f"fewer than {SMALLEST_COHORT} would hide nobody. Ask for a larger cohort."
            )
        if self.secure.protocol:
            return self._by_protocol(task, state, cohort, own)
        quorum = self.secure.terms(cohort.clients, []).quorum
        collected = self.inner.ask(task, state, cohort, own)
        # An engine that nobody named may have given way to another one.
        self.name = self.inner.name
        if collected.total.count < quorum:
            raise QuorumError(
                f"Round {cohort.round} has {collected.total.count} answers of "
                f"{len(cohort.clients)} clients, but its secure sum opens with {quorum} or more, "
                f"so nothing was opened.{_first_of(collected.left_out)}"
            )
        return collected

    def stream(
        self, task: Task, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Iterator[tuple[ClientId, Update | LeftOut]]:
        """Show single updates, where they are no training."""
        if cohort.part == "train":
            raise unseen(task)
        yield from self.inner.stream(task, cohort, own)

    def _terms(self, task: Task, cohort: Cohort, template: Tree) -> Terms:
        """Return what the parties of one sum agree on."""
        return self.secure.terms(
            cohort.clients,
            [(leaf.numel(), 8 * leaf.element_size()) for leaf in trees.leaves(template)],
            run=self.run,
            round=cohort.round,
            exchange=cohort.exchange,
            model=hashlib.sha256(wire.to_bytes(task.broadcast)).digest(),
        )

    def refuse(self, work: LocalWork) -> None:
        """Refuse what the inner engine refuses of a work before anyone is asked."""
        refuse = getattr(self.inner, "refuse", None)
        if refuse is not None:
            refuse(work)

    def close(self) -> None:
        """Close the inner engine."""
        self.inner.close()

    def _by_protocol(
        self, task: Task, state: State, cohort: Cohort, own: Mapping[ClientId, Tree]
    ) -> Collected:
        """Play all parties: each client trains when its masked vector is due."""
        template = task.aggregator.encode(state, example(task), 0).value
        agreed = self._terms(task, cohort, template)
        found: dict[ClientId, Collected] = {}
        failed: list[ClientError] = []

        def trained(client: ClientId) -> list[np.ndarray[Any, Any]]:
            try:
                alone = self.inner.ask(task, state, cohort._replace(clients=(client,)), own)
            except ClientError as error:
                # What client code raises ends a run, here as in plain sums.
                failed.append(error)
                raise
            found[client] = alone
            if not alone.total.count:
                raise ClientError(alone.left_out[0].reason)
            found[client] = alone._replace(total=Sum({}, 0.0, {}, 1))
            leaves = trees.leaves(alone.total.value)
            return [leaf.contiguous().numpy().view(_WORDS[leaf.dtype]) for leaf in leaves]

        parts = {client: functools.partial(trained, client) for client in cohort.clients}
        try:
            opened = together(agreed, parts, record=begin_record(agreed))
        finally:
            if failed:
                raise failed[0]
        dtypes = [leaf.dtype for leaf in trees.leaves(template)]
        sums = [
            torch.from_numpy(words.view(f"int{8 * words.itemsize}")).to(dtype)
            for words, dtype in zip(opened.vectors, dtypes, strict=True)
        ]
        count = len(opened.survivors)
        return Collected(
            Sum(trees.like(template, sums), float(count), {}, count),
            {c: kept for one in found.values() for c, kept in one.own.items()},
            [left for one in found.values() for left in one.left_out],
            sum(one.client_s for one in found.values()),
            {c: size for one in found.values() for c, size in one.uploads.items()},
        )


def _first_of(left_out: list[LeftOut]) -> str:
    return f" Client {left_out[0].client!r}: {left_out[0].reason}." if left_out else ""


def unseen(task: Task) -> VisibilityError:
    """Return why a rule that looks at single updates cannot have them."""
    return VisibilityError(
        f"{task.aggregator.name}() looks at single updates, which a secure sum hides. Use "
        "aggregator=fm.aggregators.uniform_mean(), or leave secure= out."
    )
