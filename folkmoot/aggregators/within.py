"""Stages of a user's own, held to what they say of themselves."""

import torch
from torch import Tensor

from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree

_GUARD = 1 / (1 + 2.0**-20)


def within(codec: Codec) -> Codec:
    """Return a codec whose vectors are no longer than it states, whatever it does to them.

    Noise is made for the bound that reaches it. A stage between clip and noise that lengthens what
    it is given, and does not say so, would be hidden by too little; here it is cut.

    Args:
        codec: Whose encoded vectors are floating.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        state, after = codec.init(bounds, layout)
        return {"stage": state, "l2": torch.tensor(after.l2, dtype=torch.float64)}, after

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        found, most = codec.encode(state["stage"], vector, key), float(state["l2"])
        if not found.is_floating_point():
            raise SettingsError(
                f"{codec.name} makes whole numbers between clip and noise, which privacy= does "
                "itself, with noise that fits them. Leave it out of the rule."
            )
        length = float(torch.linalg.vector_norm(found, dtype=torch.float64))
        if length <= most:
            return found
        fine = found.double().nan_to_num(nan=0.0)
        length = float(torch.linalg.vector_norm(fine))
        return (fine * (_GUARD * min(1.0, most / length) if length else 1.0)).float()

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        decoded, following = codec.decode(state["stage"], total, key)
        return decoded, {**state, "stage": following}

    return Codec(codec.name, init, encode, decode)
