"""Codecs: reversible stages between a client's update and the sum, walked backwards by the server.

A codec maps one flat float32 vector to one vector that may be added. Law, held for every codec:
`decode(sum(encode(x_i)))` equals `sum(x_i)` within the codec's stated error. Each stage is told by
`Bounds` what is known of the vectors that reach it, and says what is known of those that leave it,
so nobody types a clip norm twice.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
        ends = [0, *itertools.accumulate(leaf.numel() for leaf in leaves)]
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
    pack: Callable[[Tree, Tensor, int], Tree] | None = None
    """How one client's vector travels, as leaves whose bytes are counted; the next stage may pack
    the leaf "vector" further. None where what `encode` returns travels."""
    unpack: Callable[[Tree, Tree, int], Tensor] | None = None
    """What arrives of `pack`'s leaves, client by client: `encode`'s result, bit for bit."""
    linear: bool = True
    """Whether what travels may be added, as a secure sum needs."""
    own: "Codec | None" = None
    """This stage with random numbers of each client's own in place of shared ones."""


def public(state: Tree) -> Tree:
    """Return what clients may see of a codec's state: all but what stands under "server"."""
    inner = {key: public(part) if isinstance(part, dict) else part for key, part in state.items()}
    return {key: part for key, part in inner.items() if key != "server"}


def chain(*codecs: Codec) -> Codec:
    """Join stages: encode left to right, decode right to left; linear if every stage is.

    The empty chain passes vectors through. The last lossy stage packs what those right in front of
    it have packed, by random numbers of each client's own. What stands behind is done where a
    client's vector has arrived.
    """
    end = max((at for at, codec in enumerate(codecs, 1) if codec.pack), default=0)
    begin = end
    while begin and (codecs[begin - 1].own or codecs[begin - 1].pack):
        begin -= 1
    packing: Any = {f"{at}": codecs[at].own or codecs[at] for at in range(begin, end)}
    stages = {f"{at}": codec for at, codec in enumerate(codecs)} | packing
    places = list(stages)

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        state: Tree = {}
        for place, codec in stages.items():
            if place not in packing or place == places[begin]:
                size, reaching = bounds.size, torch.zeros(bounds.size)
            state[place], bounds = codec.init(bounds, layout)
            if place in packing:
                reaching = packing[place].pack(state[place], reaching, 0)["vector"]
                bounds = bounds._replace(size=size if place == places[end - 1] else len(reaching))
        return state, bounds

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return unpack(state, pack(state, vector, key), key)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        following: Tree = dict(state)
        for place in reversed(places):
            total, following[place] = stages[place].decode(state[place], total, key)
        return total, following

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        message: Tree = {"vector": through(places[:begin], state, vector, key)}
        for place in packing:
            found = packing[place].pack(state[place], message["vector"], key)
            message |= {"vector": found.pop("vector"), place: found}
        return message

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        vector = message["vector"]
        for place in reversed(packing):
            vector = packing[place].unpack(state[place], {**message[place], "vector": vector}, key)
        return through(places[end:], state, vector, key)

    def through(part: list[str], state: Tree, vector: Tensor, key: int) -> Tensor:
        for place in part:
            vector = stages[place].encode(state[place], vector, key)
        return vector

    name = f"chain({', '.join(codec.name for codec in codecs)})"
    found = Codec(name, init, encode, decode, linear=all(codec.linear for codec in codecs))
    return found._replace(pack=pack, unpack=unpack) if end else found
