"""From a promise to a program, whoever is to be hidden."""

import warnings
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from folkmoot.core.algorithm import Algorithm
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure
from folkmoot.train.plan import Private
from folkmoot.train.private_clients import of_clients
from folkmoot.train.private_examples import of_examples
from folkmoot.train.sampling import Draw, Sampling


def private(
    dp: DP,
    algorithm: Algorithm,
    clients: Sized | Mapping[Any, Any],
    rounds: int | None = None,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    secure: Secure | None = None,
    largest: Sequence[int] | None = None,
) -> Private:
    """Plan a run with differential privacy, and warn where noise will drown what is learnt.

    Args:
        dp: The promise.
        algorithm: What is done.
        clients: Everyone who may be asked; with their examples, where these are hidden.
        rounds: Rounds of the run; None where the noise is given and rounds are driven by hand.
        cohort, sampling: As for `run`.
        secure: What is asked of secure sums, where there are some.
        largest: In a buffered run, in how many of the first rounds any one client has taken part at
            most, for each round.

    Raises:
        SettingsError: If the parts contradict each other, or something has no bound.
    """
    if not isinstance(dp, DP):
        raise SettingsError(
            f"privacy must be a budget, such as fm.DP(epsilon=8, delta=1e-5), but is {dp!r}."
        )
    if dp.unit == "client":
        plan = of_clients(dp, algorithm, clients, rounds, cohort, sampling, secure, largest)
    elif isinstance(clients, Mapping):
        plan = of_examples(dp, algorithm, clients, rounds, cohort, sampling)
    else:
        raise SettingsError(
            "unit='example' needs the clients' examples beforehand, to know how many each has. Use "
            "fm.run(...), or fm.local.dpsgd(work, ...) in a process by hand."
        )
    if plan.noise_to_signal > 1:
        who = "clients" if dp.unit == "client" else "examples"
        warnings.warn(
            f"The noise of a round will be {plan.noise_to_signal:.2g} times as long as the longest "
            f"mean that {plan.cohort:g} {who} can have, over {plan.size} numbers, and may drown "
            f"it. Ask for {'a larger cohort' if dp.unit == 'client' else 'larger batches'}, train "
            "a smaller model, or spend a larger epsilon; a simulation may state the larger "
            "federation that it stands for: DP(population=..., cohort=...).",
            stacklevel=3,
        )
    return plan
