"""Statistics with noise, as users ask for them; `statistics` draws them at the worker.

Each is charged to the owner's budget before it is drawn, and refused when that is spent. Neighbours
are tables of as many rows that differ in one row, replaced by any other.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from folkmoot.core.errors import SettingsError
from folkmoot.remote.pointer import Pointer


def private_mean(x: Tensor, low: float, high: float, *, epsilon: float) -> Tensor:
    """Return the mean over rows, with noise that hides each row.

    Args:
        x: A pointer to rows, (rows, ...).
        low: Numbers below it count as it; a bound that is known without looking at the data.
        high: Likewise above it. The noise grows with high - low.
        epsilon: Of this release, for all columns together; above 0.

    Returns:
        (...), float64; noise of about sqrt(2) (high - low) columns / (epsilon rows) in each.

    Raises:
        BudgetError: If the owner's budget does not allow it; nothing was released.
        Refused: If she gives no such statistics, or x is none of rows.
    """
    return _asked("mean", x, [low, high, epsilon])


def private_count(x: Tensor, *, epsilon: float) -> Tensor:
    """Return for how many rows x is true, with noise of about sqrt(2) / epsilon.

    Args, Raises: As for `private_mean`; x: (rows,).

    Returns:
        [], float64, a whole number; it may be below 0.
    """
    return _asked("count", x, [epsilon])


def private_histogram(x: Tensor, edges: Sequence[float], *, epsilon: float) -> Tensor:
    """Return how many rows lie from each edge to the next, with noise of about 2.8 / epsilon.

    Args:
        x: A pointer to rows, (rows,).
        edges: Rising numbers that are known without looking at the data; rows outside of all are
            not counted, nor is one at the last edge.
        epsilon: Of all counts together; above 0.

    Returns:
        (edges - 1,), float64.

    Raises: As for `private_mean`.
    """
    return _asked("histogram", x, [epsilon, *edges])


def _asked(kind: str, x: Any, options: list[Any]) -> Tensor:
    if not isinstance(x, Pointer):
        raise SettingsError(
            f"A statistic with noise is of a pointer to a worker's rows, not of {type(x).__name__}."
        )
    numbers = [float(one) for one in options]
    if not all(map(math.isfinite, numbers)):
        raise SettingsError(f"Bounds, edges and epsilon must be finite, but are {options}.")
    _, arrays = x.outbox.ask(["statistic", kind, x.ticket.plain, numbers])
    return arrays["0"]
