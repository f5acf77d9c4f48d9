"""A rule in front of which updates are compressed: what travels is smaller, the rule is the same.

A codec that packs is undone where a client's vector arrives, so that any rule may follow, also one
that looks at single updates, or clips and noises. A linear one that makes vectors shorter, such as
a sketch, stands around the rule instead: short vectors are added, and their mean is decoded.

Single numbers, such as a loss, and statistics of layers travel as they are: they are few, and a
variance that is rounded may become negative.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from folkmoot.aggregators.traffic import travelled
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator, State, Update
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Path, Tree

_LINK = "link"
"""Where the compressing codec's state stands, beside those of the rule's own stages."""


def compressed(aggregator: Aggregator, codec: Codec) -> Aggregator:
    """Build a rule to which updates travel compressed.

    Args:
        aggregator: Any rule.
        codec: One that packs, or a linear one, which must not change what the mean means.

    Returns:
        A rule of the same name, whose encoded updates know the bytes in which they travelled.
    """
    return _around(aggregator, codec) if codec.pack is None else _before(aggregator, codec)


def large(value: Tree) -> tuple[Tensor, dict[Path, Tensor]]:
    """Return what a codec compresses of a value: its large leaves, as one flat float32 vector.

    Returns:
        The vector, (size,), in memory of its own; and the leaves that it holds, by path.
    """
    leaves = {path: leaf for path, leaf in trees.items(value) if _is_large(path, leaf)}
    flat = [leaf.reshape(-1).float() for leaf in leaves.values()]
    return (torch.cat(flat) if flat else torch.zeros(0)), leaves


def put_back(value: Tree, leaves: dict[Path, Tensor], vector: Tensor) -> Tree:
    """Return a value whose large leaves hold the numbers of a vector, in their own dtypes."""
    parts = torch.split(vector, [leaf.numel() for leaf in leaves.values()])
    new = {
        path: part.view(leaf.shape).to(leaf.dtype)
        for (path, leaf), part in zip(leaves.items(), parts, strict=True)
    }
    found = ((path, new.get(path, leaf)) for path, leaf in trees.items(value))
    return trees.build(found, trees.empties(value))


def rest_bytes(value: Tree) -> int:
    """Return the bytes of the leaves that travel as they are."""
    small = [leaf for path, leaf in trees.items(value) if not _is_large(path, leaf)]
    return sum(leaf.numel() * leaf.element_size() for leaf in small)


def _is_large(path: Path, leaf: Tensor) -> bool:
    return leaf.dim() > 0 and leaf.is_floating_point() and "buffers" not in path


def _before(aggregator: Aggregator, codec: Codec) -> Aggregator:
    """Let updates arrive, each by itself, before the rule encodes them."""

    def init(example: Update, clients: int) -> State:
        state = aggregator.init(example, clients)
        vector, _ = large(example.value)
        link, _ = codec.init(Bounds(clients=clients, size=len(vector)), state.layout)
        return _with_link(state, state.codec, link)

    def encode(state: State, update: Update, key: int) -> Update:
        vector, leaves = large(update.value)
        arrived, packed_bytes = travelled(codec, state.codec[_LINK], vector, key)
        value = put_back(update.value, leaves, arrived)
        encoded = aggregator.encode(_own(state), update._replace(value=value), key)
        return encoded._replace(packed_bytes=(packed_bytes or 0) + rest_bytes(update.value))

    def decode(state: State, answers: Any, key: int) -> tuple[Tree, Tree, State]:
        value, counts, following = aggregator.decode(_own(state), answers, key)
        return value, counts, _with_link(following, following.codec, state.codec[_LINK])

    return aggregator._replace(init=init, encode=encode, decode=decode, bounded=None, fielded=None)


def _around(aggregator: Aggregator, codec: Codec) -> Aggregator:
    """Let the rule combine encoded vectors, and decode what comes of them."""

    def init(example: Update, clients: int) -> State:
        vector, _ = large(example.value)
        layout = Layout.of(example.value)
        link, _ = codec.init(Bounds(clients=clients, size=len(vector)), layout)
        short = codec.encode(link, vector, 0)
        state = aggregator.init(example._replace(value=_short(example.value, short)), clients)
        kept = {"codec": link, "size": torch.tensor(len(short))}
        return _with_link(state._replace(layout=layout), state.codec, kept)

    def encode(state: State, update: Update, key: int) -> Update:
        vector, _ = large(update.value)
        short = codec.encode(state.codec[_LINK]["codec"], vector, key)
        shorter = update._replace(value=_short(update.value, short))
        return aggregator.encode(inner(state), shorter, key)

    def decode(state: State, answers: Any, key: int) -> tuple[Tree, Tree, State]:
        found, counts, following = aggregator.decode(inner(state), answers, key)
        kept = state.codec[_LINK]
        vector, link = codec.decode(kept["codec"], found["vector"], key)
        like, rest = _zeros(state.layout), dict(trees.items(found["rest"]))
        # A dict may hold large leaves and single numbers.
        leaves = [(path, rest.get(path, leaf)) for path, leaf in trees.items(like)]
        value = put_back(trees.build(leaves, trees.empties(like)), large(like)[1], vector)
        after = state._replace(bounds=following.bounds)
        return value, counts, _with_link(after, following.codec, {**kept, "codec": link})

    def inner(state: State) -> State:
        """Return the rule's own state, which is laid out for short vectors."""
        layout = _shorter(state.layout, int(state.codec[_LINK]["size"]))
        return _own(state)._replace(layout=layout)

    return aggregator._replace(init=init, encode=encode, decode=decode, bounded=None, fielded=None)


def _short(value: Tree, vector: Tensor) -> Tree:
    """Return a value whose large leaves are one short vector."""
    rest = [(path, leaf) for path, leaf in trees.items(value) if not _is_large(path, leaf)]
    return {"vector": vector, "rest": trees.build(rest)}


@functools.lru_cache
def _zeros(layout: Layout) -> Tree:
    """Return zeros where a layout has leaves, which nobody may write to."""
    return layout.unpack(torch.zeros(layout.size))


@functools.lru_cache
def _shorter(layout: Layout, size: int) -> Layout:
    """Return the layout of values whose large leaves are one vector of a size."""
    return Layout.of(_short(_zeros(layout), torch.zeros(size)))


def _with_link(state: State, stages: Tree, link: Tree) -> State:
    return state._replace(codec={**stages, _LINK: link})


def _own(state: State) -> State:
    """Return the state of the rule itself."""
    return state._replace(codec={key: part for key, part in state.codec.items() if key != _LINK})
