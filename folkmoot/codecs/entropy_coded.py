"""Entropy coding: bytes in which some values are frequent become fewer, and can be read back.

Huffman's code for single bytes and runs of equal ones, as DEFLATE has them (RFC 1951), by the
library zlib that comes with Python. Rounded numbers hardly depend on their neighbours, so looking
for repeated strings costs most of the time and makes the code longer: these two strategies,
whichever comes out shorter, beat zlib's levels and those of zstd on nearly all codes.
"""

import zlib

import torch
from torch import Tensor

from folkmoot.codecs.lossy import lossy
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.core.tree import Tree

_STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
_LEVEL, _MEMORY = 1, 9
_DTYPES = (
    torch.float32,
    torch.uint8,
    torch.bfloat16,
    torch.float16,
    torch.int16,
    torch.int32,
    torch.int64,
)
_CODED = 128
"""Added to the first byte, which else names the dtype, where what follows is coded."""


def entropy_coded() -> Codec:
    """Code what the stages in front have packed in as few bytes as their frequencies allow.

    Exact: nothing is lost. It pays behind `qsgd`, `ternary`, and `quantize` of vectors that are far
    from flat; codes of `eden` have 1 to 6 % to gain, and float32 numbers less. Lengths differ from
    client to client and tell a little of what is in there. One byte beside the code; what would
    grow is sent as it is. Scales, signs and places beside the vector are not coded.

    What this does to the bounds: nothing.

    Returns:
        A codec whose packed form cannot be added, to stand behind one that packs.

    Raises:
        SettingsError: At `pack`: if it stands behind another one, whose lengths vary.
        ClientError: At `unpack`: if bytes are no code, or are one of more numbers than were packed.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        return {"size": torch.tensor(bounds.size)}, bounds

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        if len(vector) != int(state["size"]):
            raise SettingsError(
                "entropy_coded() stands behind another one, whose codes vary in length and have "
                "nothing left to gain. Leave one of them out."
            )
        dtype = _DTYPES.index(vector.dtype)
        plain = vector.contiguous().view(torch.uint8).numpy()
        coded = min((_deflated(plain.data, one) for one in _STRATEGIES), key=len)
        if len(coded) < len(plain):
            found = bytes([dtype + _CODED]) + coded
        else:
            found = bytes([dtype]) + plain.tobytes()
        return {"vector": torch.frombuffer(bytearray(found), dtype=torch.uint8)}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        data = message["vector"].numpy().tobytes()
        first, size = data[0] if data else 255, int(state["size"])
        if first % _CODED >= len(_DTYPES):
            raise ClientError("What arrived was not packed by entropy_coded().")
        dtype = _DTYPES[first % _CODED]
        most = size * dtype.itemsize
        plain = _inflated(data[1:], most) if first >= _CODED else data[1:]
        if len(plain) != most:
            raise ClientError(f"entropy_coded() waits for {most} bytes, but {len(plain)} arrived.")
        if not most:
            return torch.zeros(0, dtype=dtype)
        return torch.frombuffer(bytearray(plain), dtype=dtype)

    return lossy("entropy_coded", init, pack, unpack, codes=True)


def _deflated(data: memoryview, strategy: int) -> bytes:
    coder = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, _MEMORY, strategy)
    return coder.compress(data) + coder.flush()


def _inflated(data: bytes, most: int) -> bytes:
    """Read a code of at most so many bytes: a few could ask for more memory than there is."""
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = reader.decompress(data, most + 1)
    except zlib.error as error:
        raise ClientError(f"What arrived is no code of entropy_coded(): {error}.") from error
    if not reader.eof:
        raise ClientError(f"entropy_coded() waits for {most} bytes, but a code of more arrived.")
    return found
