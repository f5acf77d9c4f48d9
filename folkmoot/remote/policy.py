"""What the owner of data lets a user do at her worker."""

from dataclasses import dataclass
from pathlib import Path

from folkmoot.core.errors import SettingsError, not_negative, positive


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The owner's rules; the worker keeps them, whatever a user's program says."""

    min_rows: int | None = 32
    """Private rows behind any value that is fetched, at least; None lets nothing that private rows
    have entered leave, but statistics with noise and what the owner approves."""
    epsilon: float | None = None
    """Budget of statistics with noise, of each row; None gives none of them."""
    delta: float = 0.0
    """At which that budget is counted; statistics here cost none of it."""
    ledger: str | Path | None = None
    """File that keeps what was spent, over restarts; None keeps it in memory."""
    max_bytes: int = 1 << 30
    """Memory of one session."""
    max_objects: int = 100_000
    """Objects of one session."""
    max_message_bytes: int = 256 << 20
    """Length of one message."""
    max_operations: int = 10_000
    """Operations of one message."""
    max_sessions: int = 100
    """Sessions at a time."""

    def __post_init__(self) -> None:
        if self.min_rows is not None and (type(self.min_rows) is not int or self.min_rows < 1):
            raise SettingsError(
                f"min_rows must be a whole number of at least 1, or None, but is {self.min_rows!r}."
            )
        if self.epsilon is not None:
            positive(epsilon=self.epsilon)
        not_negative(delta=self.delta)
        positive(
            max_bytes=self.max_bytes,
            max_objects=self.max_objects,
            max_message_bytes=self.max_message_bytes,
            max_operations=self.max_operations,
            max_sessions=self.max_sessions,
        )
