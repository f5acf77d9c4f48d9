"""What has been spent, for good: an append-only file that refuses what would overspend.

A charge is on the disk before it is granted, so a kill at any instant can lose what nobody was
told, and never what was.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from folkmoot.core.errors import BudgetError, CheckpointError, SettingsError, positive
from folkmoot.privacy.accountants import epsilon as epsilon_of
from folkmoot.privacy.accountants import epsilon_bound, is_number, listed
from folkmoot.privacy.events import Charge, Event, adjacency, as_json, from_json
from folkmoot.privacy.journal import Journal

_ROUNDING = 1e-9
"""Share of a budget by which two ways to add up the same charges may differ."""


class Ledger:
    """The charges of one run, or of one data set over many runs; open until closed.

        with fm.privacy.Ledger("patients.jsonl", epsilon=10, delta=1e-5) as ledger:
            fm.run(..., privacy=fm.DP(epsilon=4, ledger=ledger))

    A file keeps the unit and the budget that it was begun with. Whoever opens it later may leave
    the budget out, or bring a smaller one, which then holds until it is closed.

    Args:
        path: The file, made where it is missing; None keeps it in memory.
        unit: Whose privacy is counted: "client" or "example".
        epsilon: The budget; None counts and refuses nothing, or takes the file's.
        delta: At which it is counted, in [0, 1); 0 is for pure events only.

    Raises:
        SettingsError: If the path is a folder or cannot be opened, or a file has another unit, or a
            smaller budget than is asked for.
        CheckpointError: If a line of it is damaged, or it is open elsewhere.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        unit: str = "client",
        epsilon: float | None = None,
        delta: float | None = None,
    ) -> None:
        if epsilon is not None:
            positive(epsilon=epsilon)
        if path is not None and not isinstance(path, str | os.PathLike):
            raise SettingsError(f"A ledger's path must be that of a file, but is {path!r}.")
        if delta is not None and not (is_number(delta) and 0 <= delta < 1):
            raise SettingsError(f"delta must be at least 0 and below 1, but is {delta!r}.")
        if unit not in ("client", "example"):
            raise SettingsError(f'unit must be "client" or "example", but is {unit!r}.')
        self.unit, self.budget, self.delta = unit, epsilon, delta
        self._charged: dict[str, Charge] = {}
        self._counted: dict[Event, int] = {}
        self._granted: dict[Event, int] = {}
        """What fits into the budget, all of it together."""
        self._journal = None if path is None else Journal(Path(path))
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        place = "in memory" if self._journal is None else repr(str(self._journal.path))
        budget = "no budget" if self.budget is None else f"a budget of epsilon {self.budget:g}"
        neighbours = self.adjacency or "nothing charged"
        return f"Ledger({place}, each {self.unit}, {budget}, {self._spent_words()}, {neighbours})"

    @property
    def charges(self) -> list[Charge]:
        """What was charged, equal events together."""
        return list(self._counted.items())

    @property
    def adjacency(self) -> str | None:
        """What neighbouring data sets differ in; None before the first charge."""
        return next((adjacency(event) for event in self._counted), None)

    @property
    def spent(self) -> float:
        """Epsilon of all charges, at the ledger's own delta."""
        return self.epsilon()

    @property
    def remaining(self) -> float:
        """What is left of the budget; infinite where there is none."""
        return math.inf if self.budget is None else max(0.0, self.budget - self.spent)

    def epsilon(self, delta: float | None = None) -> float:
        """Return what was spent, at this delta or the ledger's own.

        Raises:
            SettingsError: If there is no delta.
        """
        asked = self.delta if delta is None else delta
        if asked is None:
            raise SettingsError("This ledger has no delta of its own: call epsilon(delta=1e-5).")
        return epsilon_of(self.charges, asked)

    def reserve(self, charges: Iterable[Charge]) -> None:
        """Find out, once for many charges, whether they still fit: each is then granted at once.

        Nothing is written or set aside: a reservation saves the time of computing epsilon anew for
        each charge, and is forgotten when other charges do not fit beside it.

        Args:
            charges: What is to come.

        Raises:
            BudgetError: If they would overspend.
        """
        self._refuse_mixing(charges := listed(charges))
        wanted = _added(self._counted, charges)
        self._refuse_overspending(wanted)
        self._granted = wanted

    def charge(self, event: Event, *, key: Sequence[Any], times: int = 1) -> None:
        """Write down an event before it happens.

        Args:
            event: What is about to be released.
            key: Names the release, such as (run, round, exchange): the same one is paid for once.
                Whoever draws noise anew for it must give it another key.
            times: How often, such as a client's steps of one round; at least 1.

        Raises:
            BudgetError: If it would overspend; nothing is written, and nothing may be released.
            SettingsError: If another event was charged under the same key.
            InfrastructureError: If it cannot be written; nothing may be released.
        """
        name, wanted = json.dumps(list(key)), (event, times)
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise SettingsError(f"times must be a whole number of at least 1, but is {times!r}.")
        if name in self._charged:
            if self._charged[name] != wanted:
                raise SettingsError(
                    f"{name} was charged as {self._charged[name]}, and is now {wanted}: one "
                    "release is one event. Give each release a key of its own."
                )
            return
        self._refuse_mixing(listed([wanted]))
        self._grant(wanted)
        if self._journal is not None:
            self._journal.append({"key": json.loads(name), "times": times, **as_json(event)})
        self._note(name, wanted)

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._journal is not None:
            self._journal.close()

    def _spent_words(self) -> str:
        if self.delta is None:
            return "spent at no delta of its own"
        try:
            return f"{self.spent:.4g} spent at delta {self.delta:g}"
        except SettingsError as error:
            # Whoever prints a ledger wants to see the rest.
            return f"spent at delta {self.delta:g} is not known ({error})"

    def _note(self, name: str, charge: Charge) -> None:
        self._charged[name] = charge
        self._counted = _added(self._counted, [charge])

    def _grant(self, charge: Charge) -> None:
        """See to it that a charge fits, beside what was granted where that is possible."""
        event, times = charge
        if self._counted.get(event, 0) + times <= self._granted.get(event, 0):
            return
        ahead = {e: max(n, self._granted.get(e, 0)) for e, n in self._counted.items()}
        both = _added({**self._granted, **ahead, event: self._counted.get(event, 0)}, [charge])
        if not self._fits(both):
            both = _added(self._counted, [charge])
            self._refuse_overspending(both)
        self._granted = both

    def _fits(self, counted: Mapping[Event, int]) -> bool:
        if self.budget is None:
            return True
        assert self.delta is not None
        most = self.budget * (1 + _ROUNDING)
        # The bound takes microseconds, and is enough where the budget is far.
        quick = epsilon_bound(counted.items(), self.delta) <= most
        return quick or epsilon_of(counted.items(), self.delta) <= most

    def _refuse_overspending(self, counted: Mapping[Event, int]) -> None:
        if not self._fits(counted):
            wanted = epsilon_of(counted.items(), self.delta or 0.0)
            raise BudgetError(
                f"This would bring the epsilon of each {self.unit} to {wanted:.4g} at delta "
                f"{self.delta:g}, over the budget of {self.budget:g}, of which {self.spent:.4g} is "
                "spent. Nothing was released. Run fewer rounds, with more noise or smaller "
                "cohorts; what is spent cannot be had back."
            )

    def _refuse_mixing(self, charges: Sequence[Charge]) -> None:
        """Refuse events that have no epsilon in common with those before."""
        kinds = {adjacency(event) for event, _ in charges} | {self.adjacency or ""} - {""}
        if len(kinds) > 1:
            raise SettingsError(
                f"This ledger would hold events of {' and '.join(sorted(kinds))} neighbours, which "
                "have no common epsilon. Keep a ledger for each."
            )

    def _begin(self) -> None:
        """Read the file, or begin it; a ledger without one begins empty."""
        records = [] if self._journal is None else self._journal.records
        if records:
            self._read(records)
        if self.budget is not None and self.delta is None:
            raise SettingsError(
                f"A budget is an epsilon at a delta, but epsilon is {self.budget:g} and delta "
                "missing. Pass delta=, below 1 / population; 0 for pure events."
            )
        if self._journal is not None and not records:
            begin = {"unit": self.unit, "epsilon": self.budget, "delta": self.delta}
            self._journal.append({"ledger": 1, **begin})

    def _read(self, records: Sequence[dict[str, Any]]) -> None:
        assert self._journal is not None
        path, first = self._journal.path, records[0]
        try:
            unit, epsilon, delta = first["unit"], first["epsilon"], first["delta"]
            for record in records[1:]:
                name, times = json.dumps(record.pop("key")), record.pop("times")
                self._note(name, (from_json(record), times))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no ledger, or one of a later folkmoot: after {len(self._charged)} "
                f"charges comes what is none, {error!r}. Name a ledger's file, or a new one."
            ) from error
        if unit != self.unit:
            raise SettingsError(
                f'{path} counts the privacy of each {unit}. Open it with unit="{unit}", or keep '
                f"another ledger for each {self.unit}."
            )
        self._agree(path, epsilon, delta)

    def _agree(self, path: Path, epsilon: float | None, delta: float | None) -> None:
        """Adopt the file's budget; keep a stricter one, and refuse one that is not."""
        self.delta = delta if self.delta is None else self.delta
        if epsilon is None or delta is None or self.delta is None:
            return
        self.budget = epsilon if self.budget is None else self.budget
        if self.budget > epsilon or self.delta > delta:
            raise SettingsError(
                f"{path} was begun with a budget of epsilon {epsilon:g} at delta {delta:g}, which "
                f"cannot be raised to {self.budget:g} at {self.delta:g}. Leave epsilon= and delta= "
                "out, or make them smaller."
            )


def _added(counted: Mapping[Event, int], charges: Iterable[Charge]) -> dict[Event, int]:
    """Return counts with charges added."""
    found = dict(counted)
    for event, times in charges:
        found[event] = found.get(event, 0) + times
    return found
