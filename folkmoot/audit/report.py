"""What an audit has found, as a table: what could be shown beside what was promised."""

import math
from dataclasses import dataclass
from typing import Any

from folkmoot.train.summary import plural


@dataclass(frozen=True, kw_only=True, repr=False)
class Audit:
    """A lower bound on epsilon beside the stated one. Print it."""

    name: str
    """What was audited."""
    method: str
    epsilon_lower: float
    """Not below this, with the stated confidence: shown by guesses that were correct."""
    epsilon_stated: float
    """What the audited run promises; infinite where it promises nothing."""
    delta: float
    confidence: float
    unit: str
    """Whose presence was guessed."""
    canaries: int
    """Whose presence was at stake."""
    guesses: int
    correct: int
    rounds: int
    clients: int
    """Others in the federation."""
    runs: int = 1
    """More where one canary is in half of them; else each is in the run by a fair coin."""

    @property
    def holds(self) -> bool:
        """Whether the promise was not refuted. That it is kept, no audit can show."""
        return self.epsilon_lower <= self.epsilon_stated

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain JSON; an infinite epsilon is None."""
        stated = self.epsilon_stated if math.isfinite(self.epsilon_stated) else None
        return {**vars(self), "epsilon_stated": stated, "holds": self.holds}

    def __str__(self) -> str:
        promised = math.isfinite(self.epsilon_stated)
        stated = f"{self.epsilon_stated:.3g} at delta {self.delta:g}" if promised else "nothing"
        rows = [
            ("epsilon, stated", stated),
            ("epsilon, at least", f"{self.epsilon_lower:.3g} at {self.confidence:.0%} confidence"),
            ("guesses", f"{self.correct:,} of {self.guesses:,} correct"),
            ("canaries", f"{plural(self.canaries, self.unit)}, {self._coins}"),
            ("run", f"{plural(self.rounds, 'round')}, {plural(self.clients, 'other client')}"),
            ("method", self.method),
        ]
        width = max(len(what) for what, _ in rows)
        lines = [f"Audit of {self.name}: {self._verdict(promised)}", ""]
        return "\n".join(lines + [f"  {what:<{width}}  {said}" for what, said in rows])

    @property
    def _coins(self) -> str:
        return f"in half of {self.runs:,} runs" if self.runs > 1 else "each in by a fair coin"

    def _verdict(self, promised: bool) -> str:
        if not promised:
            return "no privacy is promised."
        if self.holds:
            return "the promise is not refuted."
        return "the promise is broken."

    __repr__ = __str__
