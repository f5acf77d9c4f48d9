"""Canaries that are examples: strange rows among a client's own, each there by a fair coin.

For promises whose unit is one example. A stranger has noise for inputs and a label of somebody
else, so its gradient points where no other does (Nasr et al., "Tight Auditing of Differentially
Private Machine Learning", USENIX Security 2023, arXiv:2302.07956, use such examples in their
white-box audits). Its score is how far all rounds together have moved the model against its
gradient, taken at each round's broadcast.

What is seen is the aggregate of all clients. A client's own updates would show more: give one
client to audit what its uploads promise. Bounds are looser than those for clients, whose canaries
are updates. Numbers of examples, which are public, follow the coins.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folkmoot.audit.drowned import drowned
from folkmoot.audit.one_run import guess, refuse_shares
from folkmoot.audit.report import Audit
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregate
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Task
from folkmoot.core.engine import Opener
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data import ClientData, as_clients
from folkmoot.privacy.dp import DP
from folkmoot.train.driven import driven
from folkmoot.train.run import run
from folkmoot.train.sampling import Draw, Sampling

_HOSTED = 10
"""So many strangers a client, where nobody says how many there are."""
_MOST = 200
_RIDGE = 1.0
_TINY = 1e-30

Numbers = NDArray[np.float64]


class Hosted(NamedTuple):
    """Strangers among a federation's examples."""

    rows: Tree
    """Leaves (canaries, ...)."""
    hosts: NDArray[np.int64]
    """(canaries,), the place of each one's client."""
    coins: NDArray[np.bool_]


def audit_examples(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    privacy: DP | None = None,
    stated: float = math.inf,
    canaries: int | None = None,
    delta: float = 1e-5,
    confidence: float = 0.95,
    seed: int = 0,
    engine: Opener | None = None,
) -> Audit:
    """Run once with strange examples at the clients, and bound the epsilon of one example.

    Args:
        algorithm, clients, rounds, cohort, sampling, privacy, engine: As for `fm.run`.
        stated: What the run promises at `delta` for an example, where there is no `privacy` that
            says so: for works that `fm.local.dpsgd` has made, by `fm.local.charges`.
        canaries: Strangers, each there by a fair coin; None is 10 a client, 200 at most.
        delta: For the bound where there is no `privacy`; else the promise's own.
        confidence: How sure the bound is.
        seed: Of strangers and coins, and the run's.

    Returns:
        The report: print it.
    """
    refuse_shares(delta=delta, confidence=confidence)
    federation = as_clients(clients)
    if privacy is not None:
        delta, privacy = privacy.delta, dataclasses.replace(privacy, ledger=None)
    number = min(_MOST, _HOSTED * len(federation)) if canaries is None else canaries
    if isinstance(number, bool) or not isinstance(number, int) or number < 2:
        raise SettingsError(f"canaries must be a whole number of at least 2, but is {number!r}.")
    hosted = strangers(federation, number, seed)
    seen: list[Numbers] = []
    with drowned():
        result = run(
            followed(algorithm, hosted.rows, seen),
            with_strangers(federation, hosted),
            rounds=rounds,
            cohort=cohort,
            sampling=sampling,
            privacy=privacy,
            seed=seed,
            engine=engine,
            evaluate_every=rounds,
            client_tests=False,
            progress=False,
        )
    found = guess(np.sum(seen, axis=0), hosted.coins, delta, confidence)
    return Audit(
        name=algorithm.name,
        method="one run (Steinke et al. 2023)",
        epsilon_lower=found.epsilon,
        epsilon_stated=float(result.privacy.epsilon) if result.privacy else stated,
        delta=delta,
        confidence=confidence,
        unit="example",
        canaries=number,
        guesses=found.guesses,
        correct=found.correct,
        rounds=rounds,
        clients=len(federation),
    )


def strangers(clients: ClientData, number: int, seed: int) -> Hosted:
    """Make strange examples, dealt to clients in turns, each there by a fair coin."""
    draw = rng.generator(rng.derive(seed, purpose="strangers"))
    like = clients[clients.ids[0]].train
    rows = {name: _strange(name, leaf, number, draw) for name, leaf in like.items()}
    hosts = np.arange(number) % len(clients)
    return Hosted(rows, hosts, draw.random(number) < 0.5)


def _strange(name: str, leaf: Any, number: int, draw: np.random.Generator) -> Any:
    """Return noise as wide as a leaf of numbers, or a mixture of what stands in a leaf of codes."""
    if isinstance(leaf, dict):
        return {inner: _strange(inner, part, number, draw) for inner, part in leaf.items()}
    shape = (number, *leaf.shape[1:])
    if leaf.is_floating_point() and name != "y":
        noise = torch.from_numpy(draw.standard_normal(shape)).to(leaf.dtype)
        return noise * leaf.std() + leaf.mean()
    places = torch.from_numpy(draw.integers(leaf.numel(), size=shape))
    return leaf.reshape(-1)[places]


def with_strangers(clients: ClientData, hosted: Hosted) -> ClientData:
    """Return the federation in which those strangers whose coins say so are among the examples."""
    places = {client: place for place, client in enumerate(clients.ids)}

    def train(client: int | str) -> Tree:
        here = hosted.coins & (hosted.hosts == places[client])
        chosen = torch.from_numpy(np.flatnonzero(here))
        more = trees.map(lambda leaf: leaf[chosen], hosted.rows)
        return trees.map(lambda *both: torch.cat(both), clients[client].train, more)

    return ClientData(list(clients.ids), train, name=f"{clients.name} with strangers")


def followed(algorithm: Algorithm, rows: Tree, seen: list[Numbers]) -> Algorithm:
    """Return an algorithm that notes how far each aggregate moves the model against each row."""

    def hear(task: Task, answer: Aggregate) -> None:
        delta = answer.value.get("params", {})
        # Rounds are also driven without clients, to see what they ask: all is 0 then.
        if delta and any(bool(leaf.any()) for leaf in delta.values()):
            seen.append(_against(task, rows, delta))

    return driven(algorithm, hear=hear)


def _against(task: Task, rows: Tree, delta: Tree) -> Numbers:
    """Return how much of a delta each row explains, (rows,): a ridge regression on gradients.

    Gradients of several rows share directions, such as the last bias; the inner product alone would
    give each row what the others have done.
    """
    moved = torch.cat([leaf.reshape(-1).double() for leaf in delta.values()])
    flat = [
        torch.cat([gradient[name].reshape(-1).double() for name in delta])
        for gradient in _gradients(task.work, task.broadcast, rows)
    ]
    against = torch.stack([-one / one.norm().clamp(min=_TINY) for one in flat])
    shared = against @ against.T + _RIDGE * torch.eye(len(flat), dtype=torch.float64)
    found: Numbers = torch.linalg.solve(shared, against @ moved).numpy()
    return found


def _gradients(work: LocalWork, sent: Tree, rows: Tree) -> Sequence[Tree]:
    """Return the gradient of each row by itself, at what is broadcast."""
    # Of a private objective the model inside: an attacker computes without noise.
    objective = getattr(work.objective, "plain", work.objective)
    count = len(trees.leaves(rows)[0])
    found = []
    for row in range(count):
        one: Tree = trees.map(lambda leaf, row=row: leaf[row : row + 1].clone(), rows)
        batch = Batch(one, None, rng.as_tensor(0), 0)
        buffers, counts = trees.clone(sent["buffers"]), trees.clone(sent["counts"])
        gradient, _ = objective.grad(sent["params"], buffers, counts, batch)
        found.append(trees.map(Tensor.clone, gradient))
    return found
