"""Statistics with noise: what the worker tells of its rows whatever `min_rows` says.

Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private Data Analysis", TCC
2006, with Laplace noise on whole numbers instead of real ones: rows are rounded to a grid before
they are added, so neither the sum nor the noise has low bits that tell of a row (docs/noise.md).

Neighbours are tables of as many rows, which is public, that differ in one row, replaced by any
other. The guarantee is of each statistic and of all of them together: whoever also fetches sums
without noise has those beside it.
"""

import itertools
import math
import secrets
from typing import Any

import torch
from torch import Tensor

from folkmoot.codecs.discrete_laplace import discrete_laplace
from folkmoot.codecs.entropy import system
from folkmoot.core.errors import BudgetError
from folkmoot.privacy.events import Pure
from folkmoot.privacy.ledger import Ledger
from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.labels import Kind
from folkmoot.remote.objects import Held

_STEPS = 1 << 20
"""Steps of the grid between the least and the largest value of a row."""


def released(kind: Any, held: Held, options: Any, ledger: Ledger | None) -> Tensor:
    """Return a statistic of rows with noise, charged to the ledger before it is drawn.

    Args:
        kind: "mean", "count" or "histogram".
        held: Rows; each entry of them must follow from one row and public values alone.
        options: Of "mean": [low, high, epsilon]; of "count": [epsilon]; of "histogram": [epsilon,
            edges...].
        ledger: The owner's; None where she gives no such statistics.

    Returns:
        float64: (columns...) of a mean, [] of a count, (edges - 1,) of a histogram.

    Raises:
        Refused: If the worker gives none, or it is none of rows.
        BudgetError: If it would overspend; nothing was drawn.
    """
    numbers = _numbers(options)
    if held.label.kind is not Kind.ROWS or not held.label.pure or not held.tensor.dim():
        raise Refused(
            f"Noise for one row hides one row of rows alone, but this object is {held.label}"
            f"{' that others have entered' if held.label.kind is Kind.ROWS else ''}. Ask it of "
            "the data, or of what was computed from each row by itself."
        )
    if ledger is None:
        raise Refused("This worker gives no statistics with noise: its policy has no epsilon=.")
    x = held.tensor.detach()
    if kind == "mean" and len(numbers) == 3:
        low, high, epsilon = numbers
        return _mean(x, low, high, epsilon, ledger)
    if kind == "count" and len(numbers) == 1 and x.dim() == 1:
        _charge(ledger, numbers[0])
        return _noisy(x.bool().sum(), 1, numbers[0])
    if kind == "histogram" and len(numbers) >= 3 and x.dim() == 1:
        return _histogram(x, numbers[0], numbers[1:], ledger)
    raise RemoteError("A mean takes rows, a count and a histogram take one number a row.")


def _mean(x: Tensor, low: float, high: float, epsilon: float, ledger: Ledger) -> Tensor:
    # What overflows is no number, and would count for any.
    if not 0 < high - low < math.inf:
        raise RemoteError(
            f"low must be below high, by a finite number, but they are {low:g} and {high:g}."
        )
    if not len(x):
        raise RemoteError("There are no rows to take a mean of.")
    size = x[0].numel()
    _charge(ledger, epsilon)
    share = (x.double().nan_to_num(low, high, low).clamp(low, high) - low) / (high - low)
    steps = (share * _STEPS).round().clamp(0, _STEPS).long().sum(0)
    # One row moves each column by at most all steps.
    noisy = _noisy(steps, _STEPS * size, epsilon)
    return low + (high - low) * noisy / _STEPS / len(x)


def _histogram(x: Tensor, epsilon: float, edges: list[float], ledger: Ledger) -> Tensor:
    if any(a >= b for a, b in itertools.pairwise(edges)):
        raise RemoteError("The edges of a histogram must rise.")
    _charge(ledger, epsilon)
    place = torch.bucketize(x.double(), torch.tensor(edges, dtype=torch.float64), right=True) - 1
    inside = (place >= 0) & (place < len(edges) - 1) & ~x.double().isnan()
    counts = torch.bincount(place[inside], minlength=len(edges) - 1)
    # A row that is replaced leaves one bin and enters another.
    return _noisy(counts, 2, epsilon)


def _noisy(sums: Tensor, moved: int, epsilon: float) -> Tensor:
    noise = discrete_laplace(max(sums.numel(), 1), moved / epsilon, system())
    return (sums + torch.from_numpy(noise).reshape(sums.shape)).double()


def _charge(ledger: Ledger, epsilon: float) -> None:
    if not 0 < epsilon < math.inf:
        raise RemoteError(f"epsilon must be a finite number above 0, but is {epsilon!r}.")
    try:
        # Noise is drawn anew each time, so each time is a release of its own.
        ledger.charge(Pure(epsilon), key=("statistic", secrets.token_hex(8)))
    except BudgetError as error:
        raise BudgetError(
            f"A statistic of epsilon {epsilon:g} would overspend: {ledger.spent:g} of "
            f"{ledger.budget:g} is spent. Nothing was released; ask for more noise, by a smaller "
            "epsilon."
        ) from error


def _numbers(options: Any) -> list[float]:
    plain = type(options) is list and all(type(one) in (int, float) for one in options)
    if not plain or len(options) > 1000 or not all(math.isfinite(one) for one in options):
        raise RemoteError("A statistic is asked with finite numbers.")
    return [float(one) for one in options]
