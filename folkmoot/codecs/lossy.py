"""How a lossy stage is built: a client packs, the server unpacks, and then there is a vector again.

Such a stage has nothing to undo behind the sum, for it is undone client by client in front of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree


def lossy(
    name: str,
    init: Callable[[Bounds, Layout], tuple[Tree, Bounds]],
    pack: Callable[[Tree, Tensor, int], Tree],
    unpack: Callable[[Tree, Tree, int], Tensor],
    *,
    codes: bool = False,
) -> Codec:
    """Build a stage that is undone client by client, before anything is added.

    Args:
        name: Of the stage, for errors and reports.
        init: From the bounds of what reaches the stage to its state and the bounds behind it.
        pack: From a vector, (size,), to what travels; the leaf "vector" is there in any case, and a
            next stage may pack it further.
        unpack: From what travels to the vector that is added, (size,), float32.
        codes: Whether it also packs what another stage has made of the numbers.

    Raises:
        SettingsError: At `init` of a chain: if it stands behind a stage that leaves no numbers.
    """

    def packed(state: Tree, vector: Tensor, key: int) -> Tree:
        if not codes and vector.dtype != torch.float32:
            raise SettingsError(
                f"{name} packs numbers, but a stage in front of it has made codes of them, of "
                f"{vector.dtype}. Put {name} in front of that stage; behind codes only "
                "entropy_coded() can stand."
            )
        return pack(state, vector, key)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return unpack(state, packed(state, vector, key), key)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total, state

    return Codec(name, init, encode, decode, packed, unpack, linear=False)
