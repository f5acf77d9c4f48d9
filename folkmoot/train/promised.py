"""What a run promises, as a program: its algorithm behind privacy and secure sums."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from folkmoot.aggregators.links import as_codec
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.data import ClientData
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure, as_secure
from folkmoot.train.compression import compressing
from folkmoot.train.environment import DATA_BYTES, FINGERPRINT
from folkmoot.train.guarantee import planned
from folkmoot.train.plan import Private
from folkmoot.train.private import private
from folkmoot.train.sampling import Draw, Sampling, as_sampling
from folkmoot.train.secure import secured


class Promised(NamedTuple):
    """An algorithm as it is run, and what that rests on."""

    algorithm: Algorithm
    sampling: Sampling
    plan: Private | None
    """Of privacy; None where none is promised."""
    sums: Secure | None
    """What is asked of secure sums; None where sums are plain."""
    client_tests: bool
    """Whether clients' own tests may be looked at."""
    facts: dict[str, Any]
    """What a result tells of it, as plain JSON."""

    def shown(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return a program's facts less what would tell of clients' data.

        A digest of what they hold lets anyone confirm a guess of it: it stays in the checkpoint.
        """
        hides = self.plan is not None or self.sums is not None
        told = (FINGERPRINT, DATA_BYTES) if hides else ()
        return {name: fact for name, fact in facts.items() if name not in told}


def promised(
    algorithm: Algorithm,
    clients: ClientData,
    rounds: int,
    cohort: int | float | None,
    sampling: Sampling | Draw | None,
    privacy: DP | None,
    secure: Secure | str | bool,
    compress: Codec | None = None,
    largest: Sequence[int] | None = None,
) -> Promised:
    """Put an algorithm behind what is promised of it.

    Args:
        algorithm, clients, rounds, cohort, sampling, privacy, secure, compress: As for `run`.
        largest: As for `private`.

    Raises:
        SettingsError: If the parts contradict each other, or something has no bound.
    """
    plan, sums, facts = None, as_secure(secure), dict[str, Any]()
    if privacy is not None:
        plan = private(privacy, algorithm, clients, rounds, cohort, sampling, sums, largest)
        algorithm, facts["privacy"] = plan.algorithm, planned(plan)
    drawn = plan.sampling if plan else as_sampling(sampling, cohort)
    if sums is not None:
        inside = plan is not None and plan.secure is not None
        number = len(clients)
        found = secured(sums, algorithm, number, drawn.expected(number), private=inside)
        algorithm, facts["secure"] = found.algorithm, found.facts
    if compress is not None:
        algorithm = compressing(algorithm, compress, privacy=privacy, secure=sums is not None)
        facts["compress"] = as_codec("compress", compress).name
    opened = privacy.client_tests if privacy is not None else sums is None
    return Promised(algorithm, drawn, plan, sums, opened, facts)
