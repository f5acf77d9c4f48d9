"""How a lossy stage is built: a client packs, the server unpacks, and then there is a vector again.

Such a stage has nothing to undo behind the sum, for it is undone client by client in front of it.
"""

from collections.abc import Callable

from torch import Tensor

from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree


def lossy(
    name: str,
    init: Callable[[Bounds, Layout], tuple[Tree, Bounds]],
    pack: Callable[[Tree, Tensor, int], Tree],
    unpack: Callable[[Tree, Tree, int], Tensor],
) -> Codec:
    """Build a stage that is undone client by client, before anything is added.

    Args:
        name: Of the stage, for errors and reports.
        init: From the bounds of what reaches the stage to its state and the bounds behind it.
        pack: From a vector, (size,), to what travels; the leaf "vector" is there in any case, and a
            next stage may pack it further.
        unpack: From what travels to the vector that is added, (size,), float32.
    """

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return unpack(state, pack(state, vector, key), key)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total, state

    return Codec(name, init, encode, decode, pack, unpack, linear=False)
