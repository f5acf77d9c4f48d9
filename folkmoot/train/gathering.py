"""How an exchange is put to an engine, and what comes back of it.

In a buffered run answers are relative to different models: those who were given the same one are
asked together, and each such part enters the sum by the weight of its staleness. The divisor is
that of answers which all count whole, as FedBuff has it (Nguyen et al., AISTATS 2022,
arXiv:2106.06639, algorithm 1): late answers make steps shorter, never longer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from folkmoot.aggregators.measured import SQUARES
from folkmoot.aggregators.traffic import upload_bytes
from folkmoot.core import fold, rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, State, Sum, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.codec import public
from folkmoot.core.engine import ClientId, Cohort, Collected, Engine, LeftOut
from folkmoot.core.errors import DivergenceError
from folkmoot.core.tree import Tree
from folkmoot.engines.tasks import example

DISCOUNT = "discount"
"""The leaf of a stage's state that says how much a stale answer counts, where noise is made for
answers that count whole: it must be applied in front of the noise's grid."""


class Part(NamedTuple):
    """Clients of one exchange that were given the same model."""

    cohort: Cohort
    """Its round is the one in which they were asked: their random numbers are of it."""
    base: int | None = None
    """Rounds that the model had seen which they were given; None for the present one."""
    discount: float = 1.0


def gathered(
    engine: Engine,
    task: Task,
    state: State,
    parts: Sequence[Part],
    own: Mapping[ClientId, Tree],
    bases: Tree,
    seed: int,
) -> tuple[Collected, Any]:
    """Ask all parts of an exchange.

    Args:
        engine: Where clients run.
        task: What is asked, about the present model.
        state: The aggregator's.
        parts: Who is asked, by the model that they were given.
        own: Private states of clients.
        bases: What was broadcast in earlier rounds, by the rounds that it had seen.
        seed: The run's.

    Returns:
        What came back, and what the aggregator decodes: a sum, or each encoded update.
    """
    whole: tuple[Collected, Any] | None = None
    for part in parts:
        given = task if part.base is None else task._replace(broadcast=bases[f"{part.base}"])
        found = _ask(engine, given, state, part, own, seed)
        whole = found if whole is None else _merged(whole, found)
    assert whole is not None
    return whole


def _ask(
    engine: Engine,
    task: Task,
    state: State,
    part: Part,
    own: Mapping[ClientId, Tree],
    seed: int,
) -> tuple[Collected, Any]:
    if task.aggregator.sees is EACH:
        return _ask_each(engine, task, state, part, own, seed)
    shown = state._replace(codec=public(state.codec))
    inside = discounted(shown.codec, part.discount)
    collected = engine.ask(
        task, shown if inside is None else shown._replace(codec=inside), part.cohort, own
    )
    if part.discount != 1 and inside is None:
        value = trees.scale(part.discount, collected.total.value)
        if SQUARES in value:
            value[SQUARES] = part.discount * value[SQUARES]
        collected = collected._replace(total=collected.total._replace(value=value))
    return collected, collected.total


def _ask_each(
    engine: Engine,
    task: Task,
    state: State,
    part: Part,
    own: Mapping[ClientId, Tree],
    seed: int,
) -> tuple[Collected, list[Update]]:
    updates: list[Update] = []
    left_out: list[LeftOut] = []
    uploads: dict[ClientId, int] = {}
    cohort = part.cohort
    base = rng.derive(seed, round=cohort.round, purpose=cohort.purpose("encode"))
    for client, found in engine.stream(task, cohort, own):
        if isinstance(found, LeftOut):
            left_out.append(found)
            continue
        if part.discount != 1:
            found = found._replace(value=trees.scale(part.discount, found.value))
        updates.append(task.aggregator.encode(state, found, rng.of_client(base, client)))
        uploads[client] = upload_bytes(updates[-1])
    encoded = task.aggregator.encode(state, example(task), 0)
    total = fold.zero(encoded)._replace(count=len(updates))
    return Collected(total, {}, left_out, 0.0, uploads), updates


def _merged(whole: tuple[Collected, Any], part: tuple[Collected, Any]) -> tuple[Collected, Any]:
    (collected, answers), (more, others) = whole, part
    total = fold.merge(collected.total, more.total)
    together = Collected(
        total,
        {**collected.own, **more.own},
        collected.left_out + more.left_out,
        collected.client_s + more.client_s,
        {**collected.uploads, **more.uploads},
    )
    return together, total if isinstance(answers, Sum) else answers + others


def discounted(codec: Tree, discount: float) -> Tree | None:
    """Return a codec's state whose stages discount by themselves; None where none does."""
    found, new = False, dict(codec)
    for key, part in codec.items():
        if key == DISCOUNT:
            found, new[key] = True, torch.tensor(discount, dtype=torch.float64)
        elif isinstance(part, dict):
            inner = discounted(part, discount)
            if inner is not None:
                found, new[key] = True, inner
    return new if found else None


def too_few(cohort: Cohort, collected: Collected, least: int) -> str:
    """Say why a round has fewer usable answers than it needs.

    Raises:
        DivergenceError: If that is because no update is finite, which ends the run.
    """
    left_out, count = collected.left_out, collected.total.count
    if count:
        more = f"; client {left_out[0].client!r}: {left_out[0].reason}" if left_out else ""
        return (
            f"Round {cohort.round} has {count} usable answers of {len(cohort.clients)} clients, "
            f"and its quorum is {least}{more}."
        )
    if not left_out:
        return f"Round {cohort.round} asked {len(cohort.clients)} clients and none answered."
    first = left_out[0]
    bad = [left for left in left_out if "NaN or infinite" in left.reason]
    if bad:
        raise DivergenceError(
            f"Training diverged in round {cohort.round}: the update of each of the {len(bad)} "
            f"clients that trained is not finite; client {bad[0].client!r}: {bad[0].reason}. Lower "
            "the learning rate, or clip the gradients (clip_gradient=)."
        )
    return (
        f"Round {cohort.round} has no usable answer of {len(cohort.clients)} clients; client "
        f"{first.client!r}: {first.reason}."
    )
