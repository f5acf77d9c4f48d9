"""When a round begins, whom it waits for, and when it ends: the run's options about time.

Two settings of one loop. Synchronous: a cohort is asked, and the round closes with enough answers
or at its deadline; who is late is dropped. Buffered (`buffer=`): a number of devices is always at
work, and each `buffer` answers make a new model; who is late goes on, with an older model.

Bonawitz et al., "Towards Federated Learning at Scale", MLSys 2019, arXiv:1902.01046 (goal counts,
over-selection, deadlines, pace). Nguyen et al., AISTATS 2022, arXiv:2106.06639 (the buffer).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.engines.fleet import Fleet
from folkmoot.staleness import Staleness, as_staleness
from folkmoot.train.options import refuse_flags


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A run's options about time, as `run` takes them."""

    deadline_s: float = math.inf
    """Seconds after which a round closes; of a buffered run, after which an answer is given up."""
    over_select: float = 1.0
    """Devices asked for each answer that is waited for."""
    quorum: int | float = 1
    """Fewest answers with which a round has a result; a float is a share of those asked."""
    pace_s: float = 0.0
    """Least seconds from the beginning of one round to that of the next."""
    partial: bool = False
    """Whether a device that has no time for all steps sends what it has done by the deadline."""
    buffer: int | None = None
    """Answers that make a new model; None for rounds that begin and end together."""
    staleness: Staleness | None = None
    """How late answers count in a buffered run."""
    hides: bool = False
    """Whether nothing but noise may show who takes part: rounds last to their deadlines, and have a
    result whoever answers. Of private runs; no option."""

    @property
    def carries(self) -> bool:
        """Whether devices go on over the end of a round."""
        return self.buffer is not None

    @property
    def discounts(self) -> bool:
        """Whether some late answer counts for less than a fresh one."""
        rule = self.staleness
        if rule is None:
            return False
        return any(rule.weight(stale) != 1 for stale in range(min(rule.at_most, 1_000) + 1))

    def least(self, asked: int) -> int:
        """Return the fewest answers, of so many who were asked, that make a result."""
        if self.hides:
            return 0
        if isinstance(self.quorum, float):
            return max(1, math.ceil(self.quorum * asked - 1e-9))
        return self.quorum


ALWAYS = Policy()
"""Of a run whose clients always answer at once."""


TIMES = {"deadline_s", "over_select", "quorum", "pace_s", "partial", "buffer", "staleness"} | {
    "fleet",
    "compress_down",
}
"""Options of `run` about time and broadcasts."""


def policy_of(
    fleet: Any = None,
    deadline_s: float | None = None,
    over_select: float | None = None,
    quorum: int | float | None = None,
    pace_s: float | None = None,
    partial: bool = False,
    buffer: int | None = None,
    staleness: Staleness | Callable[[int], float] | None = None,
) -> Policy:
    """Return a run's policy; all arguments are as for `run`.

    Raises:
        SettingsError: If one is out of range, has no meaning beside another, or needs a fleet.
    """
    options = {
        "deadline_s": deadline_s,
        "over_select": over_select,
        "quorum": quorum,
        "pace_s": pace_s,
        "partial": partial or None,
        "buffer": buffer,
        "staleness": staleness,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if fleet is None and given:
        raise SettingsError(
            f"{next(iter(given))}= is about how long devices take, which is not known here. Say "
            "who they are: fleet=fm.fleets.phones(), or fleet=fm.Fleet(trace)."
        )
    if fleet is not None and not isinstance(fleet, Fleet):
        raise SettingsError(
            f"fleet must be a fm.Fleet, such as fm.fleets.phones(), but is {fleet!r}."
        )
    _refuse_values(given)
    if buffer is not None:
        beside = [option for option in ("over_select", "quorum", "partial") if option in given]
        if beside:
            raise SettingsError(
                f"{beside[0]}= is about rounds that end, but with buffer= devices go on over the "
                f"end of a round. Leave {beside[0]}= or buffer= out."
            )
        given["staleness"] = as_staleness(staleness)
    elif staleness is not None:
        raise SettingsError(
            "Without buffer= every answer is given to the model that was asked about, so nothing "
            "is stale. Leave staleness= out, or pass buffer=10."
        )
    if partial and deadline_s is None:
        raise SettingsError("partial=True is about work that a deadline cuts: pass deadline_s=.")
    return Policy(**given)


def _refuse_values(given: dict[str, Any]) -> None:
    if "deadline_s" in given:
        positive(deadline_s=given["deadline_s"])
    if "pace_s" in given:
        not_negative(pace_s=given["pace_s"])
    over_select = given.get("over_select", 1.0)
    if isinstance(over_select, bool) or not isinstance(over_select, int | float):
        raise SettingsError(f"over_select must be a number, but is {over_select!r}.")
    if not 1 <= over_select < math.inf:
        raise SettingsError(
            f"over_select must be at least 1, but is {over_select!r}: 1.3 asks 13 devices for each "
            "10 answers."
        )
    quorum = given.get("quorum", 1)
    whole = isinstance(quorum, int) and not isinstance(quorum, bool) and quorum >= 1
    if not whole and not (isinstance(quorum, float) and 0 < quorum <= 1):
        raise SettingsError(
            "quorum must be a whole number of answers, at least 1, or a share in (0, 1] of those "
            f"asked, but is {quorum!r}."
        )
    if isinstance(quorum, float) and quorum * over_select > 1 + 1e-9:
        raise SettingsError(
            f"quorum={quorum} asks for more answers than over_select={over_select} waits for: a "
            f"round closes with one answer of each {over_select} that were asked. Use a quorum of "
            f"at most {1 / over_select:.3g}."
        )
    buffer = given.get("buffer", 1)
    if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
        raise SettingsError(f"buffer must be a whole number of at least 1, but is {buffer!r}.")
    refuse_flags(partial=given.get("partial", True))
