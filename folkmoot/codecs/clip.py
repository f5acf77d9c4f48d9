"""Clip: bound how far one client can move the sum.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
arXiv:1710.06963, section 3. The bound must hold in float32 as it is added, not only on paper: a
scale computed in float32 leaves the unit ball in most cases (by 1e-6), so the norm is taken in
float64 and the scale guarded by 2^-20.
"""

import torch
from torch import Tensor

from folkmoot.core.codec import Bounds, Codec, Layout, raw_bytes, raw_vector
from folkmoot.core.errors import positive
from folkmoot.core.tree import Tree

_GUARD = 1 / (1 + 2.0**-20)


def clip(norm: float) -> Codec:
    """Scale each client's update into the unit ball; undo the scale on the server.

    After this stage one client's vector has an L2 norm of at most 1, whatever the client sends, so
    later stages need no bound of their own. Updates shorter than `norm` keep their direction and
    length.

    Args:
        norm: Largest L2 norm that passes unchanged, over all leaves together. In units of the
            parameters, greater than 0.

    Returns:
        A linear codec: a clipped sum decodes to the sum of the clipped updates.

    Raises:
        SettingsError: If `norm` is not a positive, finite number.

    Source: McMahan et al., ICLR 2018, arXiv:1710.06963, section 3.
    """
    positive(norm=norm)

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        return {}, bounds._replace(l2=1.0)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        length = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
        return vector * (_GUARD / max(length, norm))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total * (norm / _GUARD), state

    return Codec(f"clip({norm:g})", init, encode, decode, raw_bytes, raw_vector)
