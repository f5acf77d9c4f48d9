"""What can go wrong, as types that a caller may want to catch.

FolkmootError
├── SettingsError (ValueError)      the program asks for something impossible      exit code 2
│   └── VisibilityError             a rule must see each update, the engine shows only sums
├── DataError (ValueError)          a client's data cannot be used                 exit code 2
├── ClientError                     one client's work failed: bad model, loss, update   exit code 3
├── RoundError                      a round has no usable answer                   exit code 4
│   ├── QuorumError, SecureError    too few clients answered; one broke a secure sum's rule
│   ├── BudgetError                 a release would overspend its privacy budget
│   └── DivergenceError             no client's update is finite
└── InfrastructureError             the machine failed, not the program            exit code 5
    └── CheckpointError             a stored run cannot be read
"""

import difflib
from collections.abc import Iterable
from numbers import Real


class FolkmootError(Exception):
    """Everything that folkmoot raises on purpose."""

    exit_code = 3


class SettingsError(FolkmootError, ValueError):
    """What was asked is impossible or contradicts itself; nothing has been run."""

    exit_code = 2


class VisibilityError(SettingsError):
    """A rule must see single updates where only their sum may be seen."""


class DataError(FolkmootError, ValueError):
    """A client's examples, or a data set, cannot be used as they are."""

    exit_code = 2


class ClientError(FolkmootError):
    """One client's work cannot be used; the message names client, round and leaf."""


class RoundError(FolkmootError):
    """A round ended without an aggregate; the model is as it was before the round."""

    exit_code = 4


class QuorumError(RoundError):
    """Fewer clients answered than the round needs."""


class SecureError(RoundError):
    """A party broke a rule of secure aggregation; who noticed shows nothing more in this round."""


class BudgetError(RoundError):
    """A release would cost more privacy than is left; nobody has been asked for it."""


class DivergenceError(RoundError):
    """Every update of a round holds a NaN or an infinity."""


class InfrastructureError(FolkmootError):
    """A process, a disk or a connection failed."""

    exit_code = 5


class CheckpointError(InfrastructureError):
    """A stored run cannot be read."""


def did_you_mean(word: str, known: Iterable[str], *, listed: bool = True) -> str:
    """Return " Did you mean 'x'?" for a near miss, else what is known, sorted, if `listed`."""
    near = difflib.get_close_matches(word, names := sorted(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(names)}." * listed


def positive(**values: float) -> None:
    """Refuse, by name and value, what is not a finite number above 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
            raise SettingsError(f"{name} must be a finite number above 0, but is {value!r}.")


def not_negative(**values: float) -> None:
    """Refuse, by name and value, what is not a finite number of at least 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
            raise SettingsError(f"{name} must be a finite number of at least 0, but is {value!r}.")
