"""How the stages of an exchange are laid out in its first round, and gone on from in the next."""

import math

import torch

from folkmoot.core.aggregator import State
from folkmoot.core.algorithm import Task
from folkmoot.core.engine import Cohort
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.engines.tasks import example

_MANY = 4
"""Expected cohorts that a private sum has room for, whoever is there in the first round."""


def laid_out(task: Task, cohort: Cohort, kept: Tree | None, answers: int | None = None) -> State:
    """Return the state that this exchange's codecs begin with, or go on from.

    Args:
        task: What is asked.
        cohort: Of whom.
        kept: From the exchange's last round, by `remembered`.
        answers: Clients that the sum may hold; None is those of the cohort.

    Raises:
        SettingsError: If they were laid out for other vectors, or for fewer clients.
    """
    # What is public of a private sum must not tell how many have come.
    divisor = task.aggregator.divisor
    present = len(cohort.clients) if answers is None else answers
    if divisor is None:
        # Cohorts that are drawn by lot vary; beyond 8 deviations a round would have to end.
        likely = cohort.expected + 8 * math.sqrt(cohort.expected)
        known = max(cohort.population, cohort.expected)
        most = max(present, min(known, likely))
    else:
        most = max(cohort.population, _MANY * divisor)
    state = task.aggregator.init(example(task), math.ceil(most))
    if kept is None or not state.codec:
        return state
    size, clients = kept["laid_out"].tolist()
    # Whole numbers have room for so many; others add up whoever comes.
    whole = state.bounds.noise or state.bounds.largest < math.inf
    grown = bool(whole) and present > clients
    if state.layout.size != size:
        raise SettingsError(
            f"Exchange {cohort.exchange + 1} of round {cohort.round} sends {state.layout.size} "
            f"numbers, but its stages were laid out for {size}. An exchange must send as many in "
            "every round: ask for something else as an exchange of its own, after the others."
        )
    if grown:
        raise SettingsError(
            f"Round {cohort.round} brings {present} clients, but by the first round's "
            f"the sums have room for {clients}. Begin with a round of the largest cohort."
        )
    return state._replace(codec=kept["codec"], bounds=state.bounds._replace(clients=clients))


def remembered(state: State, codec: Tree) -> Tree:
    """Return what is kept of an exchange's codecs: their state, and for what it was laid out."""
    if not codec:
        return codec
    laid_out = torch.tensor([state.layout.size, state.bounds.clients])
    return {"codec": codec, "laid_out": laid_out}
