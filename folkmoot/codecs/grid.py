"""The grid under a private sum: updates are rounded to whole steps and added as integers.

Noise in floating point gives away through its low bits what it should hide (Mironov, CCS 2012,
"On Significance of the Least Significant Bits for Differential Privacy"); a sum of integers and
integer noise has none. Rounding to the nearest of d coordinates moves a vector by at most
sqrt(d) / 2 steps, so one client's part is that much longer: a step is chosen from public numbers
such that it is at most 2^-8 of the bound, and 2^-10 of the noise. Both are in the bounds returned.
"""

import math

import torch
from torch import Tensor

from folkmoot.core.codec import Bounds
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree

_GROWTH = 2.0**-8
_GROWTH_WITHOUT_NOISE = 2.0**-20
_STEPS_A_DEVIATION = 2.0**10
_MOST_EXPONENT = 40
_INT32, _INT64 = 2.0**31, 2.0**62
# In [2^23, 2^24) float32 has whole numbers only: adding this rounds, and leaves them in the bits.
_ROUNDING = torch.tensor(1.5 * 2.0**23, dtype=torch.float32)
_ROUNDING_MOST = 2.0**22
_ROUNDING_BITS = 0x4B400000


def gridded(
    name: str, bounds: Bounds, deviation: float, *, own: float = 0.0, norm: float = 2
) -> tuple[Tree, Bounds]:
    """Choose a grid for the vectors that reach a stage, from what is public of them.

    Args:
        name: Of the stage, for errors.
        bounds: Of the vectors; `l2` may be the bound of another norm, see `norm`.
        deviation: Standard deviation of the noise that is to come, in units of the bound; 0 for
            none, which makes the grid fine.
        own: Largest coordinate of noise that each vector brings with it, in units of the bound.
        norm: 2, or 1 where `l2` bounds the sum of absolute values.

    Returns:
        A public state, {"steps": a unit's steps, a power of two, in the dtype of the sum;
        "reach": the longest rounded vector, in steps, float64}, and the bounds behind the grid.

    Raises:
        SettingsError: If a vector or its weight has no bound, noise stands in front already, or no
            integer holds the sum.
    """
    refuse_unbounded(name, bounds)
    growth = _GROWTH if deviation else _GROWTH_WITHOUT_NOISE
    # Half a step in each coordinate, in the norm of all.
    moved = 0.5 * max(bounds.size, 1) ** (1 / norm)
    least = math.ceil(math.log2(moved / (growth * bounds.l2)))
    wanted = math.ceil(math.log2(_STEPS_A_DEVIATION / (deviation * bounds.l2))) if deviation else 0
    largest = bounds.clients * bounds.l2 * (1 + growth) * (1 + own)
    fits = math.floor(math.log2(_INT64 / largest))
    if least > fits:
        raise SettingsError(
            f"{name} adds integers, and {bounds.clients} vectors of {bounds.size} coordinates of "
            f"up to {bounds.l2:g} each, on a grid fine enough for them, do not fit into 64 bits. "
            "Fewer clients, or shorter vectors, are needed."
        )
    exponent = max(least, min(wanted, fits, _MOST_EXPONENT), 0)
    steps = 2**exponent
    dtype = torch.int32 if largest * steps < _INT32 else torch.int64
    state = {
        "steps": torch.tensor(steps, dtype=dtype),
        "reach": torch.tensor(bounds.l2 * steps + moved, dtype=torch.float64),
    }
    return state, bounds._replace(l2=bounds.l2 + moved / steps)


def refuse_unbounded(name: str, bounds: Bounds) -> None:
    """Refuse noise that could not hide one client, in one sentence with the cure."""
    if not math.isfinite(bounds.l2):
        raise SettingsError(
            f"{name} hides one client's part of a sum, but nothing bounds that part. Put a clip in "
            f"front of it: fm.chain(fm.codecs.clip(1.0), fm.codecs.{name})."
        )
    if bounds.weight != 1:
        raise SettingsError(
            f"{name} hides one client's part of a sum, but here a client may count up to "
            f"{bounds.weight:g} times. Use a rule in which all count the same: "
            "fm.aggregators.uniform_mean(..., divisor=expected cohort)."
        )
    refuse_noisy(name, bounds)


def refuse_noisy(name: str, bounds: Bounds) -> None:
    """Refuse a stage that stands behind noise and would change what the noise was made for."""
    if bounds.noise:
        raise SettingsError(
            f"{name} stands behind a stage that adds noise, whose deviation would then be another "
            "than is accounted for. Put noise last."
        )


def rounded(state: Tree, vector: Tensor) -> Tensor:
    """Return a vector in whole steps, each to the nearest, (size,), int32 or int64; it is written
    into."""
    steps, dtype = float(state["steps"]), state["steps"].dtype
    if float(state["reach"]) <= _ROUNDING_MOST:
        # Exact: a product by a power of two, and one sum that rounds half to even.
        bits = torch.add(_ROUNDING, vector, alpha=steps, out=vector).view(torch.int32)
        return bits.sub_(_ROUNDING_BITS).to(dtype)
    return (vector * steps).round_().to(dtype)


def in_units(state: Tree, steps: Tensor) -> Tensor:
    """Return whole steps as float32 numbers in units of the vectors."""
    return steps.float().mul_(1 / float(state["steps"]))
