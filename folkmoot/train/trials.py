"""Trials before a run: one step of a client of each kind, two rows of the test set, a short round.

Whatever the user's model or loss raises here becomes a sentence of the report, so errors of every
kind are caught.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, Batch
from folkmoot.core.engine import ClientId, Cohort, Setting
from folkmoot.core.fold import ascending
from folkmoot.core.rng import as_tensor
from folkmoot.core.tree import Tree
from folkmoot.engines.batches import cut
from folkmoot.engines.clock import now
from folkmoot.engines.stream import Stream, in_precision, one_thread
from folkmoot.local.diagnose import explain
from folkmoot.train.census import Fault, Held, Signature, named, spelled
from folkmoot.train.check_report import Cost
from folkmoot.train.evaluation import MOST_CLIENTS, model_of
from folkmoot.train.loop import first_snapshot, run_round
from folkmoot.train.probe import Probe, of_steps

_MOST_KINDS = 8
_MOST_PROBED = 3
_ROWS = 2


def try_clients(
    algorithm: Algorithm, setting: Setting, held: Sequence[Held]
) -> tuple[list[Held], list[Fault], list[Fault]]:
    """Do one step of a client of each kind of leaves.

    Returns:
        Clients that can be trained, of the leaves that most have; problems; warnings.
    """
    task = in_precision(next(algorithm.round(first_snapshot(algorithm).state)), setting)
    plan, needs_pairs = task.work.plan, bool(getattr(task.work.objective, "needs_pairs", False))
    fit = [client for client in held if _takes_part(client, task.work.plan, needs_pairs)]
    problems, cautions = [], _left_out(held, fit, plan.batch_size)
    kinds: dict[Signature, list[Held]] = {}
    for client in fit:
        kinds.setdefault(client.signature, []).append(client)
    ordered = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    most = ordered[0][0] if ordered else ()
    usable: list[Held] = []
    for leaves, clients in ordered[:_MOST_KINDS]:
        first = clients[0].id
        others = f" and {len(clients) - 1:,} others" if len(clients) > 1 else ""
        unlike = (
            f"Client {first!r}{others}: the leaves are {spelled(leaves)}, but those of most "
            f"clients are {spelled(most)}."
        )
        why = _step(algorithm, setting, first)
        if why and leaves != most:
            problems.append(Fault("leaves", f"{unlike} {why}"))
        elif why:
            problems.append(Fault("training", f"Client {first!r}{others} cannot be trained. {why}"))
        elif leaves != most:
            cautions.append(Fault("leaves", f"{unlike} The model takes both."))
        else:
            usable = clients
    return usable, problems, cautions


def _takes_part(client: Held, plan: Any, needs_pairs: bool) -> bool:
    alone = needs_pairs and 1 in (client.rows, plan.batch_size)
    return bool(cut(client.rows, plan, needs_pairs).sizes) and not alone


def _left_out(held: Sequence[Held], fit: Sequence[Held], batch_size: int | None) -> list[Fault]:
    if len(fit) == len(held):
        return []
    fitting = {client.id for client in fit}
    left = [client for client in held if client.id not in fitting]
    shown = ", ".join(f"{client.id!r} with {client.rows}" for client in left[:3])
    more = ", ..." if len(left) > 3 else ""
    return [
        Fault(
            "left out",
            f"{len(left)} of {len(held)} clients have too few examples for a batch ({shown}{more}) "
            f"and are left out of every round. Lower batch_size={batch_size}, or keep a short last "
            "batch.",
        )
    ]


def _step(algorithm: Algorithm, setting: Setting, client: ClientId) -> str | None:
    """Do one step of one client's work and return what it raises, as sentences."""
    task = in_precision(next(algorithm.round(first_snapshot(algorithm).state)), setting)
    try:
        with one_thread():
            Stream(setting).train(
                of_steps(task, 1), Cohort(0, (), len(setting.clients), 1), client, None
            )
    except Exception as error:  # the user's own code
        return _told(error)
    return None


def _told(error: Exception) -> str:
    """Write an error with the notes that say what to do, but not those that say where it was."""
    notes = [note for note in getattr(error, "__notes__", []) if not note.startswith("In client")]
    return " ".join([f"{named(error)}." if not str(error).endswith(".") else named(error), *notes])


def try_held_out(algorithm: Algorithm, held_out: Tree | None) -> list[Fault]:
    """Measure two rows of the test set."""
    if held_out is None:
        return []
    state = first_snapshot(algorithm).state
    rows = Batch(trees.map(lambda leaf: leaf[:_ROWS], held_out), None, as_tensor(0), 0)
    try:
        algorithm.objective.measure(state["params"], state["buffers"], state["counts"], rows)
    except Exception as error:  # the user's own code
        why = explain(algorithm.objective, held_out, error)
        return [Fault("test", f"The test set cannot be judged. {named(error)}. {why}")]
    return []


def cost_of(
    algorithm: Algorithm,
    setting: Setting,
    held: Sequence[Held],
    usable: Sequence[Held],
    *,
    expected: float,
    rounds: int,
    evaluations: int,
    streams: int,
    client_tests: bool,
) -> tuple[Cost | None, list[Fault]]:
    """Put one round of a few clients and steps through the algorithm, and scale what it took.

    Args:
        algorithm: What would be run.
        setting: Clients, test set and precision.
        held: What clients hold, whose sizes stand for the population's.
        usable: Clients that can be trained.
        expected: Clients asked in a round.
        rounds, evaluations: How many of them there would be.
        streams: Clients that are trained at the same time.
        client_tests: Whether the model is judged on clients' own tests.
    """
    middle = sorted(usable, key=lambda client: client.rows)
    begin = max(0, (len(middle) - _MOST_PROBED) // 2)
    probed = ascending(client.id for client in middle[begin : begin + _MOST_PROBED])
    probe = Probe(setting)
    cohort = Cohort(1, probed, len(setting.clients), len(probed))
    snapshot = first_snapshot(algorithm)
    try:
        run_round(algorithm, snapshot, probe, cohort, setting.seed)
        judge_s = _judge_s(algorithm, setting, held, snapshot.state, client_tests)
    except Exception as error:  # the user's own code, or an update that cannot be used
        return None, [
            Fault(
                "training",
                f"A round of clients {', '.join(map(repr, probed))} fails. {_told(error)}",
            )
        ]
    exchanges = probe.exchanges
    client_s = statistics.fmean(
        sum(exchange.client_s(client.rows) for exchange in exchanges) for client in held
    )
    round_s = expected * client_s / max(1.0, min(streams, expected))
    largest = max(exchanges, key=lambda exchange: exchange.carry_bytes + exchange.activation_bytes)
    moved = max(
        exchange.download_bytes + (streams + 2) * exchange.upload_bytes for exchange in exchanges
    )
    cost = Cost(
        probed=probed,
        streams=streams,
        round_s=round_s,
        evaluation_s=judge_s / streams,
        total_s=rounds * round_s + evaluations * judge_s / streams,
        download_bytes=round(expected * sum(exchange.download_bytes for exchange in exchanges)),
        upload_bytes=round(expected * sum(exchange.upload_bytes for exchange in exchanges)),
        model_bytes=trees.num_bytes(model_of(snapshot.state)),
        server_bytes=trees.num_bytes(snapshot.state) + moved,
        stream_bytes=largest.carry_bytes
        + largest.activation_bytes
        + max(client.payload_bytes for client in held),
    )
    return cost, []


def _judge_s(
    algorithm: Algorithm, setting: Setting, held: Sequence[Held], state: Tree, client_tests: bool
) -> float:
    """Return about how long one stream takes to judge the model once."""

    def measured_s(rows: Tree) -> float:
        batch, best = Batch(rows, None, as_tensor(0), 0), float("inf")
        for _ in range(2):
            begun = now()
            algorithm.objective.measure(state["params"], state["buffers"], state["counts"], batch)
            best = min(best, now() - begun)
        return best

    with one_thread():
        seconds = (
            len(setting.held_out) * measured_s(setting.held_out[0]) if setting.held_out else 0.0
        )
        tested = [client for client in held if client.test_rows] if client_tests else []
        if tested:
            middle = sorted(tested, key=lambda client: client.test_rows)[len(tested) // 2]
            share = len(tested) / len(held)
            number = min(share * len(setting.clients), MOST_CLIENTS)
            seconds += number * measured_s(setting.clients[middle.id].test)
    return seconds
