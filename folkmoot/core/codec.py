"""Codecs: reversible stages between a client's update and the sum, walked backwards by the server.

A codec maps one flat float32 vector to one vector that may be added. Law, held for every codec:
`decode(sum(encode(x_i)))` equals `sum(x_i)` within the codec's stated error. Each stage is told by
`Bounds` what is known of the vectors that reach it, and says what is known of those that leave it,
so nobody types a clip norm twice.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.tree import Path, Tree


class Bounds(NamedTuple):
    """What is known, in public, of the vectors at one point of the chain."""

    l2: float = math.inf
    """Largest L2 norm of one client's vector."""
    weight: float = math.inf
    """Largest weight with which one vector enters the sum; 1 in a uniform mean."""
    clients: int = 1
    """Most vectors that one sum may hold."""
    size: int = 0
    """Coordinates of a vector."""
    noise: float = 0.0
    """Standard deviation of the noise in the sum, in units of `l2`; 0 without a noise stage."""
    expected: float = 1.0
    """Vectors that a sum holds on average: what it is divided by, whoever answers."""
    largest: float = math.inf
    """Largest absolute coordinate that is to be expected, where it is smaller than `l2`."""


class Layout(NamedTuple):
    """Where each floating leaf of an update's value stands in the flat vector."""

    paths: tuple[Path, ...]
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    offsets: tuple[int, ...]
    size: int
    empty: tuple[Path, ...] = ()
    """Dicts without leaves, such as the buffers of a model that has none."""

    @classmethod
    def of(cls, value: Tree) -> "Layout":
        """Describe a value whose leaves are all floating."""
        paths, leaves = [path for path, _ in trees.items(value)], trees.leaves(value)
        ends = [0]
        for leaf in leaves:
            ends.append(ends[-1] + leaf.numel())
        return cls(
            tuple(paths),
            tuple(leaf.shape for leaf in leaves),
            tuple(leaf.dtype for leaf in leaves),
            tuple(ends[:-1]),
            ends[-1],
            tuple(trees.empties(value)),
        )

    def pack(self, value: Tree) -> Tensor:
        """Copy a value into one flat float32 vector, (size,)."""
        found = dict(trees.items(value))
        flat = [found[path].reshape(-1).float() for path in self.paths]
        return torch.cat(flat) if flat else torch.zeros(0)

    def unpack(self, vector: Tensor) -> Tree:
        """Return a value whose leaves are views of a flat vector, or copies in another dtype."""
        counts = [shape.numel() for shape in self.shapes]
        parts = zip(self.paths, self.shapes, self.dtypes, torch.split(vector, counts), strict=True)
        leaves = ((path, part.view(shape).to(dtype)) for path, shape, dtype, part in parts)
        return trees.build(leaves, self.empty)


class Codec(NamedTuple):
    """One stage. Its state is kept by the server and sent with the task, but for the part under
    "server", which is nobody else's: noise of the past gives away what it hides."""

    name: str
    init: Callable[[Bounds, Layout], tuple[Tree, Bounds]]
    """Refuse impossible bounds; return the first state and what holds behind this stage."""
    encode: Callable[[Tree, Tensor, int], Tensor]
    """`encode(state, vector, key)`, on the client: a vector that may be added; in place, if so."""
    decode: Callable[[Tree, Tensor, int], tuple[Tensor, Tree]]
    """`decode(state, total, key)`, on the server: the decoded sum and the next round's state."""
    pack: Callable[[Tree, Tensor], bytes]
    """One client's encoded vector as it goes over the wire."""
    unpack: Callable[[Tree, bytes], Tensor]
    """Read `pack`'s bytes back, exactly."""
    linear: bool = True
    """Whether packed forms may themselves be added, as a secure sum needs."""


def public(state: Tree) -> Tree:
    """Return what clients may see of a codec's state: all but what stands under "server"."""
    inner = {key: public(part) if isinstance(part, dict) else part for key, part in state.items()}
    return {key: part for key, part in inner.items() if key != "server"}


def raw_bytes(state: Tree, vector: Tensor) -> bytes:
    """Pack a vector as the bytes of its float32 numbers."""
    return vector.contiguous().numpy().tobytes()


def raw_vector(state: Tree, data: bytes) -> Tensor:
    """Read back what `raw_bytes` has written."""
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def chain(*codecs: Codec) -> Codec:
    """Join stages: encode left to right, decode right to left.

    The empty chain passes vectors through. The last stage decides the form on the wire; the chain
    is linear if every stage is.
    """
    stages = {f"{index}": codec for index, codec in enumerate(codecs)}

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        state: Tree = {}
        for index, codec in stages.items():
            state[index], bounds = codec.init(bounds, layout)
        return state, bounds

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        for index, codec in stages.items():
            vector = codec.encode(state[index], vector, key)
        return vector

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        following: Tree = dict(state)
        for index, codec in reversed(stages.items()):
            total, following[index] = codec.decode(state[index], total, key)
        return total, following

    last_index, last = next(reversed(stages.items()), ("", _PASS))
    names = ", ".join(codec.name for codec in codecs)
    linear = all(codec.linear for codec in codecs)
    return Codec(
        f"chain({names})",
        init,
        encode,
        decode,
        lambda state, vector: last.pack(state.get(last_index, {}), vector),
        lambda state, data: last.unpack(state.get(last_index, {}), data),
        linear,
    )


_PASS = Codec(
    "pass", lambda b, _: ({}, b), lambda s, v, k: v, lambda s, t, k: (t, s), raw_bytes, raw_vector
)
