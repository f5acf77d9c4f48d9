"""A sketch of the graph that gradients flow through at a worker: results that lead back to leaves.

It tells whose `.grad` there is after a `backward()`, which `optimizer.step()` asks before anything
is sent. It holds no pointer, so objects between loss and leaves may be let go at any time.
"""

import weakref
from typing import Any


class Leaf:
    """Where gradients arrive."""

    __slots__ = ("pointer",)

    def __init__(self, pointer: Any) -> None:
        self.pointer = weakref.ref(pointer)


class Node:
    """A result through which they flow."""

    __slots__ = ("sources",)

    def __init__(self, sources: "list[Leaf | Node]") -> None:
        self.sources = sources


def leaves_of(node: Leaf | Node, *, cut: bool) -> list[Leaf]:
    """Return the leaves below a node; with `cut`, forget the way, as torch forgets its graph."""
    found: list[Leaf] = []
    seen: set[int] = set()
    waiting: list[Leaf | Node] = [node]
    while waiting:
        at = waiting.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        if isinstance(at, Leaf):
            found.append(at)
        else:
            waiting += at.sources
            if cut:
                at.sources = []
    return found
