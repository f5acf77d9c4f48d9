"""Where canaries sit: how many find room, under which ids, and what is claimed of who is drawn."""

import math
from typing import NamedTuple

import torch

from folkmoot.audit.inversion import updates
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.data import ClientData
from folkmoot.engines.tasks import example
from folkmoot.privacy.dp import DP
from folkmoot.privacy.events import CappedPoissonGaussian, FixedSizeGaussian, PoissonGaussian
from folkmoot.train.plan import asked_in_a_round
from folkmoot.train.private_clients import private_sampling
from folkmoot.train.sampling import Draw, Sampling

MOST = 1000


def refuse_unaudited(privacy: DP) -> None:
    """Refuse a promise that the audited run itself does not make."""
    if privacy.population is not None:
        raise SettingsError(
            f"privacy states a larger federation, of {privacy.population} clients, of which this "
            "run is a simulation: its own noise is smaller, and its guarantee is not the stated "
            "one. Audit the run without population= and cohort=."
        )


class Lot(NamedTuple):
    """What the accounting claims of how seats are drawn."""

    share: float | None
    """The chance of a seat, if nobody learns of the draw; None where nothing is claimed."""
    opposed: bool
    """Whether neighbours differ in what one client says, not in whether it is there."""
    others_known: bool = True
    """Whether the auditor may know of all others who was drawn, as privacy must bear where that
    tells nothing of a seat."""


NO_LOT = Lot(None, False)
"""Every round may ask anyone, and the auditor may know whom it has asked."""
SUMS = Lot(None, False, others_known=False)
"""As that, where others' updates are never seen by themselves."""


def lot_of(
    privacy: DP | None,
    sampling: Sampling | Draw | None,
    cohort: int | float | None,
    population: int,
) -> Lot:
    """Return what a promise claims of its cohorts."""
    if privacy is None or privacy.mechanism is not None:
        return NO_LOT
    if privacy.trust == "local":
        return Lot(None, True)
    drawn = private_sampling(privacy, sampling, cohort)
    event = None if drawn.event is None else drawn.event(1.0, population)
    if isinstance(event, FixedSizeGaussian):
        return Lot(event.cohort / event.population, True, others_known=False)
    if isinstance(event, CappedPoissonGaussian):
        return Lot(event.rate, False, others_known=False)
    if isinstance(event, PoissonGaussian):
        return Lot(event.rate, False)
    return NO_LOT


def largest_exchange(algorithm: Algorithm, population: int) -> Layout:
    """Return the layout of the largest update that a round asks for."""
    tasks = asked_in_a_round(algorithm, population)
    layouts = [Layout.of(example(task).value) for task, _ in tasks]
    return max(layouts, key=lambda layout: layout.size)


def number_of_canaries(asked: int | None, size: int, population: int, privacy: DP | None) -> int:
    """Return how many canaries there will be, or refuse the number that was asked for."""
    room = size if privacy is None else math.ceil(1 / privacy.delta) - 1 - population
    most = min(size, room)
    number = min(most, MOST) if asked is None else asked
    if isinstance(number, bool) or not isinstance(number, int) or not 2 <= number <= most:
        raise SettingsError(
            f"canaries must be a whole number from 2 to {most}, but is {number!r}: each needs a "
            f"coordinate of its own, of which the largest update has {size}, and delta must stay "
            f"below 1 / population, which leaves room for {room}."
        )
    return number


def free_ids(clients: ClientData, number: int) -> tuple[ClientId, ...]:
    """Return ids that no client has, behind all others."""
    last = clients.ids[-1]
    if isinstance(last, int):
        return tuple(range(last + 1, last + 1 + number))
    # A tilde stands behind all letters; the last id before it, in case that one begins so as well.
    stem = "~canary" if last < "~canary" else f"{last} canary"
    return tuple(f"{stem} {place:06d}" for place in range(number))


def clip_norm(privacy: DP, layout: Layout) -> float:
    """Return how long a canary's update is behind the clip."""
    if not isinstance(privacy.clip, Codec):
        return float(privacy.clip)
    bounds = Bounds(weight=1.0, clients=1, size=layout.size)
    state, _ = privacy.clip.init(bounds, layout)
    loud = torch.full((layout.size,), 1e6 / math.sqrt(layout.size))
    sent, _ = privacy.clip.decode(state, privacy.clip.encode(state, loud, 0), 0)
    return float(torch.linalg.vector_norm(sent))


def first_norm(algorithm: Algorithm, clients: ClientData) -> float:
    """Return the L2 norm of the first client's first update."""
    [update] = updates(algorithm, clients, [clients.ids[0]]).values()
    return float(trees.norm(update.value)) or 1.0
