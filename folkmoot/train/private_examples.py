"""Hiding examples: each client trains by DP-SGD, so that what it sends hides each of its examples.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133, at each client
of any algorithm whose steps take gradients only. The guarantee is each client's own, for the rounds
in which it may take part; it gains nothing from others not knowing when that was. One noise serves
all, made for the client whose examples it costs most. That need not be the smallest one: with 11
examples and batches of 10 a client takes two steps at a rate of 10 / 11, with 10 one step at 1.
"""

import functools
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from folkmoot.core.algorithm import Algorithm, LocalWork, Task
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data.examples import count
from folkmoot.local.dpsgd import charges, dpsgd
from folkmoot.privacy.accountants import epsilon, epsilon_bound
from folkmoot.privacy.calibrate import refuse_delta
from folkmoot.privacy.dp import DP
from folkmoot.privacy.events import Charge, adjacency
from folkmoot.train.plan import Private, asked_in_a_round, solved
from folkmoot.train.sampling import Draw, Sampling, as_sampling
from folkmoot.train.shielded import with_works


def of_examples(
    dp: DP,
    algorithm: Algorithm,
    clients: Mapping[ClientId, Any],
    rounds: int | None,
    cohort: int | float | None,
    sampling: Sampling | Draw | None,
) -> Private:
    """Plan a run in which each example of each client is hidden.

    Args:
        dp: The promise.
        algorithm: What is done; its works become private ones.
        clients: Everyone who may be asked, with their examples, whose numbers are public.
        rounds: Rounds of the run; None where the noise is given and rounds are driven by hand.
        cohort, sampling: As for `run`.

    Raises:
        SettingsError: If the clip is no number, or a work cannot be private.
    """
    if not isinstance(dp.clip, int | float):
        raise SettingsError(
            f"With unit='example' gradients are clipped by a number, but clip is {dp.clip.name}."
        )
    sizes = {found for client in clients if (found := _rows(clients, client))}
    if not sizes:
        raise SettingsError("No client has examples, so there is nothing to hide.")
    refuse_delta(dp.delta, min(sizes))
    drawn = as_sampling(sampling, cohort)
    asked = asked_in_a_round(algorithm, len(clients))
    works = [task.work for task, _ in asked if task.work.train]
    if len(works) < len(asked):
        raise SettingsError(
            f"{algorithm.name}() also asks clients for what is no gradient, which example-level "
            "privacy does not cover. Use fm.fedavg(work), or another algorithm that only trains."
        )

    def private(noise_multiplier: float, work: LocalWork) -> LocalWork:
        return dpsgd(
            work,
            clip=float(dp.clip),
            noise_multiplier=noise_multiplier,
            simulation=dp.simulation,
        )

    def of_round(noise_multiplier: float, rows: int) -> list[Charge]:
        return [
            charge for work in works for charge in charges(private(noise_multiplier, work), rows, 1)
        ]

    def charges_of(rows: int, noise_multiplier: float) -> list[Charge]:
        paid = of_round(noise_multiplier, rows)
        return [(event, times * (rounds or 1)) for event, times in paid]

    rows, noise = _hardest(_rivals(sizes, functools.partial(of_round, 1.0)), charges_of, dp, rounds)
    paid = of_round(noise, rows)

    def price(exchange: int, task: Task, stated: float) -> Charge:
        (found,) = charges(task.work, rows)
        if found != paid[exchange]:
            raise SettingsError(
                f"{algorithm.name}() asks for {found[1]} steps, {found[0]}, but its first round "
                f"asked for {paid[exchange][1]}, {paid[exchange][0]}; noise was made for these. "
                "Under unit='example' every round must ask for the work of the first one."
            )
        return found

    # What clients have sent is released; when asked again after a crash, they draw again.
    attempt = secrets.token_hex(4)
    params: Tree = algorithm.objective.init()["params"]
    size = works[0].plan.batch_size or rows
    return Private(
        dp=dp,
        algorithm=with_works(algorithm, functools.partial(private, noise)),
        sampling=drawn,
        noise_multiplier=noise,
        charges=charges_of(rows, noise),
        price=price,
        key=lambda round, exchange: (round, exchange, attempt),
        exchanges=len(works),
        lot=f"poisson batches, {min(size, rows)} of {rows} examples a step at the client with the "
        "highest cost",
        adjacency=adjacency(paid[0][0]),
        population=rows,
        cohort=min(size, rows),
        expected=min(size, rows),
        size=sum(leaf.numel() for leaf in params.values()),
    )


def _rivals(sizes: Iterable[int], of_round: Callable[[int], list[Charge]]) -> list[int]:
    """Return the sizes that may cost most: of those with as many steps, the one of highest rate."""
    least: dict[tuple[int, ...], int] = {}
    for rows in sorted(sizes):
        least.setdefault(tuple(times for _, times in of_round(rows)), rows)
    return list(least.values())


def _hardest(
    rivals: list[int],
    charges_of: Callable[[int, float], list[Charge]],
    dp: DP,
    rounds: int | None,
) -> tuple[int, float]:
    """Return the size of client that costs most, and the noise with which it keeps to the budget.

    Noise is solved for one of them, then for whoever costs more at that noise, until nobody does.
    """
    found = min(rivals)
    noise = solved(dp, functools.partial(charges_of, found), rounds)
    while True:
        spent = {rows: epsilon_bound(charges_of(rows, noise), dp.delta) for rows in rivals}
        worst, most = found, epsilon(charges_of(found, noise), dp.delta)
        for rows in sorted(rivals, key=spent.__getitem__, reverse=True):
            # A quick bound below what another costs for sure needs no closer look.
            if spent[rows] <= most:
                break
            exact = epsilon(charges_of(rows, noise), dp.delta)
            if exact > most:
                worst, most = rows, exact
        if worst == found or dp.epsilon is None or most <= dp.epsilon:
            return worst, noise
        found = worst
        noise = max(noise, solved(dp, functools.partial(charges_of, found), rounds))


def _rows(clients: Mapping[ClientId, Any], client: ClientId) -> int:
    """Return how many examples a client trains on, without loading where that is known."""
    known = getattr(clients, "size_of", None)
    found = known(client) if known else None
    return count(clients[client].train) if found is None else int(found)
