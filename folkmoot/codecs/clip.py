"""Clip: bound how far one client can move the sum.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
arXiv:1710.06963, section 3. The bound must hold in float32 as it is added, not only on paper: a
scale computed in float32 leaves the unit ball in most cases (by 1e-6), so the norm is taken in
float64 and the scale guarded by 2^-20.
"""

import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError, positive
from folkmoot.core.tree import Tree

GUARD = 1 / (1 + 2.0**-20)
_ORDINARY = 2.0**100


def clip(norm: float) -> Codec:
    """Scale each client's update into the unit ball; undo the scale on the server.

    After this stage one client's vector has an L2 norm of at most 1, whatever the client sends, so
    later stages need no bound of their own: `l2` of the bounds becomes 1. Updates shorter than
    `norm` keep their direction and length.

    Args:
        norm: Largest L2 norm that passes unchanged, over all leaves together. In units of the
            parameters, greater than 0.

    Returns:
        A linear codec: a clipped sum decodes to the sum of the clipped updates.

    Raises:
        SettingsError: If `norm` is not a positive, finite number between 2^-100 and 2^100. At
            `init`: if noise stands in front.

    Source: McMahan et al., ICLR 2018, arXiv:1710.06963, section 3.
    """
    positive_norm(norm=norm)
    name = f"clip({norm:g})"

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        return {}, bounds._replace(l2=1.0)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return into_ball(vector, length_of(vector), norm, out=vector)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total * (norm / GUARD), state

    return Codec(name, init, encode, decode)


def positive_norm(**norms: float) -> None:
    """Refuse, by name and value, what no float32 vector can be scaled to."""
    positive(**norms)
    for name, value in norms.items():
        if not 1 / _ORDINARY < value < _ORDINARY:
            raise SettingsError(f"{name} must lie between 2^-100 and 2^100, but is {value!r}.")


def length_of(vector: Tensor) -> float:
    """Return the L2 norm of a float32 vector, taken in float64; NaN or infinite where it is."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def into_ball(
    vector: Tensor, length: float, norm: float, radius: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Return a vector scaled by radius / norm, shorter where it would be longer than the radius.

    Args:
        vector: float32; whatever it holds, what comes back is in the ball.
        length: Its norm, from `length_of`.
        norm: Largest length that keeps its proportion to others.
        radius: Of the ball, at most 1; a guard of 2^-20 keeps rounding inside.
        out: Where to write it; None for memory of its own.
    """
    if is_ordinary(length):
        return torch.mul(vector, GUARD * radius / max(length, norm), out=out)
    fine = in_range(vector)
    return torch.mul(fine, GUARD * radius / max(length_of(fine), norm), out=out).float()


def is_ordinary(length: float) -> bool:
    """Tell whether one over a length is a scale that float32 holds in full precision."""
    return length < _ORDINARY


def in_range(vector: Tensor) -> Tensor:
    """Return any float32 vector in float64 and finite: what overflowed is as long as it can be."""
    return vector.nan_to_num(nan=0.0).double()
