"""Whom a synchronous round asks, of the devices that are there.

Chai et al., "TiFL: A Tier-based Federated Learning System", HPDC 2020, arXiv:2001.09249: devices
are ranked by how long they take and cut into tiers, and each round asks one tier alone, so that
nobody waits for devices of another speed. Tiers take part by lot, in proportion to those who are
there, so that every device is asked alike.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from folkmoot.core import rng
from folkmoot.core.engine import ClientId
from folkmoot.train.policy import Policy
from folkmoot.train.sampling import Sampling, draw_cohort
from folkmoot.train.timeline import Draw


def drawn(
    sampling: Sampling,
    ids: Sequence[ClientId],
    policy: Policy,
    lot: int,
    *,
    everyone: bool,
    expected_s: Callable[[], np.ndarray],
) -> Draw:
    """Return how cohorts are drawn of devices that are there.

    Args:
        sampling: How many are wanted, or who.
        ids: The population.
        policy: How many are asked for each answer.
        lot: What the draws are made from.
        everyone: Whether the sampling draws among all, of whom those that are not there are not
            asked; else as many as it wants on average are drawn among those who are there.
        expected_s: How long each device takes that nothing disturbs, (population,).
    """
    if everyone:
        places = Places(ids)

        def among_all(there: np.ndarray, round: int) -> np.ndarray:
            cohort = draw_cohort(sampling, ids, round, lot)
            chosen = np.array(places.of(cohort.clients), dtype=np.int64)
            return chosen[there[chosen]]

        return among_all
    wanted = round(sampling.expected(len(ids)) * policy.over_select)
    tiers = _tiers(expected_s(), sampling.tiers) if sampling.tiers > 1 else None

    def among_present(there: np.ndarray, round: int) -> np.ndarray:
        generator = rng.generator(rng.derive(lot, round=round, purpose="cohort"))
        present = np.flatnonzero(there)
        if tiers is not None and len(present):
            tier = tiers[present[generator.integers(len(present))]]
            present = present[tiers[present] == tier]
        chosen = generator.choice(present, min(wanted, len(present)), replace=False)
        return np.sort(chosen)

    return among_present


def _tiers(expected_s: np.ndarray, number: int) -> np.ndarray:
    """Return each device's tier, of as many devices each, the fastest first."""
    ranks = np.argsort(np.argsort(expected_s, kind="stable"), kind="stable")
    tiers: np.ndarray = ranks * number // max(len(ranks), 1)
    return tiers


class Places:
    """From ids to their places in a population."""

    def __init__(self, ids: Sequence[ClientId]) -> None:
        self._ids = ids
        self._known = {} if isinstance(ids, range) else {c: at for at, c in enumerate(ids)}

    def of(self, clients: Iterable[ClientId]) -> list[int]:
        """Return the place of each client."""
        if isinstance(self._ids, range):
            return [self._ids.index(client) for client in clients]  # type: ignore[arg-type]
        return [self._known[client] for client in clients]


NOWHERE = Places(range(0))
