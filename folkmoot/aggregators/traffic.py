"""What travels of an update, and how many bytes that takes.

Bytes are those of packed leaves: a real connection adds a few for its frames, and none of them
depends on what was learnt.
"""

from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.codec import Codec
from folkmoot.core.tree import Tree

_WEIGHT_BYTES = 8


def travelled(codec: Codec, state: Tree, vector: Tensor, key: int) -> tuple[Tensor, int | None]:
    """Return what arrives of a client's vector, ready to be added, and the bytes that it took.

    Args:
        codec: How the vector travels; an encoded one as it is where the codec does not pack.
        state: The codec's.
        vector: float32, (size,); it may be written into.
        key: The client's, of this round.

    Returns:
        The vector, and None for the bytes of its own numbers.
    """
    if codec.pack is None or codec.unpack is None:
        return codec.encode(state, vector, key), None
    message = codec.pack(state, vector, key)
    return codec.unpack(state, message, key), trees.num_bytes(message)


def upload_bytes(encoded: Update) -> int:
    """Return the bytes in which one client's encoded update, counts and weight travel."""
    packed = encoded.packed_bytes
    value = trees.num_bytes(encoded.value) if packed is None else packed
    return value + trees.num_bytes(encoded.counts) + _WEIGHT_BYTES
