"""What a session holds at a worker: tensors with their labels, and what they take of its memory.

Tensors may share memory, as views do. What is written through one is then in the others as well, so
labels follow the memory. And a result that gradients can flow through keeps others alive, which
nobody holds any more: their bytes count as long as anything of that graph is held.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.labels import PUBLIC, TANGLED, Label, is_blend, joined
from folkmoot.remote.outlines import Outline, of
from folkmoot.remote.policy import Policy

Sort = int
_SORTS: dict[Any, Sort] = {}
_MOST_SORTS = 100_000
_next_sort = itertools.count()


def sort_of(outline: Outline, label: Label) -> Sort:
    """Return one number for a shape, a dtype, and a label but for which rows it is of."""
    key = (outline, label.kind, label.rows, label.pure, label.share)
    found = _SORTS.get(key)
    if found is None:
        if len(_SORTS) >= _MOST_SORTS:
            # Numbers are never given twice, so what was judged by one of before holds.
            _SORTS.clear()
        found = _SORTS[key] = next(_next_sort)
    return found


class Graph:
    """Results that gradients flow through together."""

    __slots__ = ("into", "members", "num_bytes")

    def __init__(self) -> None:
        self.into: Graph | None = None
        self.num_bytes = self.members = 0


class Held:
    """One object."""

    __slots__ = ("grad_label", "graph", "label", "memory", "num_bytes", "outline", "sort", "tensor")

    def __init__(self, tensor: Tensor, label: Label, outline: Outline, sort: Sort) -> None:
        self.tensor, self.label, self.outline = tensor, label, outline
        self.sort = sort
        """What operators judge of it, as one thing that is quickly compared."""
        self.graph: Graph | None = None
        self.grad_label = PUBLIC
        """Of what stands in its `.grad`."""
        self.num_bytes = outline.num_bytes
        self.memory = memory_of(tensor)

    def relabel(self, label: Label) -> None:
        """Give it another label."""
        if label != self.label:
            self.label, self.sort = label, sort_of(self.outline, label)


def memory_of(tensor: Tensor | None) -> int:
    """Return what tells tensors apart that share no memory; 0 where there is none."""
    # Nothing here makes sparse ones; a label must not be lost, should one come about.
    if tensor is None or tensor.layout is not torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()


def helds_of(values: Iterable[Any]) -> Iterator[Held]:
    """Yield every object among arguments, also in lists, tuples and dicts of them."""
    for value in values:
        kind = type(value)
        if kind is Held:
            yield value
        elif kind is list or kind is tuple:
            yield from helds_of(value)
        elif kind is dict:
            yield from helds_of(value.values())


class Objects:
    """The objects of one session, by number; within what the policy allows."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._held: dict[int, Held] = {}
        self._sharing: dict[int, list[Held]] = {}
        self._leaves: dict[int, Held] = {}
        """By their identity here."""
        self._graded: dict[int, Held] = {}
        """What has something in its `.grad`, a leaf or not, by its identity."""
        self._grads: dict[int, list[Held]] = {}
        """By the memory of gradients, which torch lets several share: whose they are."""
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def find(self, number: int) -> Held:
        """Return an object.

        Raises:
            RemoteError: If this session has none of that number.
        """
        held = self._held.get(number)
        if held is None:
            raise RemoteError(
                f"there is no object {number} in this session: it was never made (as when an "
                "operation before it failed), was released, or belongs to another session."
            )
        return held

    def refuse_more(self, num_bytes: int, count: int = 1) -> None:
        """Refuse results before they are made, where they would not fit.

        Raises:
            Refused: If bytes or objects would be too many.
        """
        most = self._policy.max_bytes
        if self.num_bytes + num_bytes > most:
            raise Refused(
                f"what it makes, {num_bytes:,} bytes, would not fit: this session holds "
                f"{self.num_bytes:,} of {most:,} bytes. Let go of what is not needed (a list of "
                "losses keeps each one's graph: append loss.item()), or use smaller batches."
            )
        if len(self._held) + count > self._policy.max_objects:
            raise Refused(
                f"this session holds {len(self._held):,} objects, and may hold "
                f"{self._policy.max_objects:,}. Let go of those that are not needed."
            )

    def put(
        self,
        number: int,
        tensor: Tensor,
        label: Label,
        args: Iterable[Held] = (),
        outline: Outline | None = None,
        sort: Sort | None = None,
    ) -> Held:
        """Keep a result of `args` under a number; outline and sort where they are known already.

        Raises:
            RemoteError: If the number is taken.
        """
        if number in self._held:
            raise RemoteError(f"there is an object {number} already; a number names one object.")
        outline = outline or of(tensor)
        sort = sort_of(outline, label) if sort is None else sort
        held = self._held[number] = Held(tensor, label, outline, sort)
        self.num_bytes += held.num_bytes
        self._into_graph(held, args)
        if held.memory:
            self._sharing.setdefault(held.memory, []).append(held)
        if tensor.requires_grad:
            self.note_leaf(held)
        return held

    def note_leaf(self, held: Held) -> None:
        """Remember whether gradients arrive at an object."""
        if held.tensor.requires_grad and held.tensor.is_leaf:
            self._leaves[id(held)] = held
        else:
            self._leaves.pop(id(held), None)

    def free(self, numbers: Iterable[int]) -> None:
        """Let go of objects; one that is not there is none to let go of."""
        for number in numbers:
            held = self._held.pop(number, None)
            if held is not None:
                self._let_go(held)

    def _let_go(self, held: Held) -> None:
        self._leaves.pop(id(held), None)
        self._forget_grad(held)
        if held.memory:
            sharing = self._sharing[held.memory]
            sharing.remove(held)
            if sharing:
                self._inherit(sharing[0], held)
            else:
                del self._sharing[held.memory]
        graph = _root(held.graph)
        if graph is None:
            self.num_bytes -= held.num_bytes
            return
        graph.members -= 1
        if not graph.members:
            self.num_bytes -= graph.num_bytes

    def _inherit(self, heir: Held, held: Held) -> None:
        """Count for a part what it keeps alive of the whole that is let go."""
        whole = min(held.num_bytes, held.tensor.untyped_storage().nbytes())
        more = max(0, whole - heir.num_bytes)
        heir.num_bytes += more
        self.num_bytes += more
        if graph := _root(heir.graph):
            graph.num_bytes += more

    def written(self, held: Held, label: Label, args: Iterable[Held]) -> None:
        """Note that an object was written: its label, and those of all that share its memory."""
        if held.graph is not None:
            # The graph keeps what stood there before, or what was made on the way.
            held.graph = self._merged((held, *args))
            held.graph.num_bytes += held.num_bytes
            self.num_bytes += held.num_bytes
        else:
            self._into_graph(held, args)
        for other in self._sharing.get(held.memory, ()):
            if other is not held:
                other.relabel(joined((other.label, label)))
        held.relabel(label)
        for leaf in self._grads.get(held.memory, ()):
            leaf.grad_label = joined((leaf.grad_label, label))

    def _into_graph(self, held: Held, args: Iterable[Held]) -> None:
        if held.tensor.grad_fn is not None:
            held.graph = self._merged(args)
            held.graph.num_bytes += held.num_bytes
            held.graph.members += 1

    def _merged(self, args: Iterable[Held]) -> Graph:
        """Return the one graph of the arguments' graphs; a new one where none has any."""
        found: Graph | None = None
        for held in args:
            graph = _root(held.graph)
            if graph is None or graph is found:
                continue
            if found is None:
                found = graph
            else:
                found.num_bytes += graph.num_bytes
                found.members += graph.members
                graph.into = found
        return found or Graph()

    def flowed(self, label: Label) -> None:
        """Note that gradients of an object with that label have come to the leaves."""
        for leaf in self._leaves.values():
            if leaf.tensor.grad is not None:
                leaf.grad_label = joined((leaf.grad_label, label, leaf.label))
                self._graded[id(leaf)] = leaf
        # torch may have put other memory there. What no gradient came to keeps its own.
        self._grads = {}
        for leaf in self._graded.values():
            memory = memory_of(leaf.tensor.grad)
            self._grads.setdefault(memory, []).append(leaf)
            for other in self._sharing.get(memory, ()):
                other.relabel(joined((other.label, leaf.grad_label)))

    def put_grad(self, number: int, leaf: Held) -> None:
        """Keep what stands in an object's `.grad` under a number.

        Raises:
            RemoteError: If nothing does.
        """
        grad = leaf.tensor.grad if leaf.tensor.is_leaf else None
        if grad is None:
            raise RemoteError("no gradient has come to it.")
        self.refuse_more(leaf.num_bytes)
        # Another tensor of the same memory: what is known of an object stands in one place.
        self.put(number, grad.detach(), leaf.grad_label, (), leaf.outline)

    def set_grad(self, leaf: Held, value: Held | None) -> None:
        """Let something else stand in an object's `.grad`, or nothing."""
        if value is None:
            self._forget_grad(leaf)
            leaf.tensor.grad, leaf.grad_label = None, PUBLIC
            return
        if value.outline != leaf.outline or not leaf.tensor.is_leaf:
            raise RemoteError("a gradient has the shape and dtype of its parameter.")
        # A copy: backward adds to it in place, and it may be the worker's data.
        grad = value.tensor.detach().clone()
        self._forget_grad(leaf)
        leaf.tensor.grad = grad
        leaf.grad_label = value.label if is_blend(value.label) else TANGLED
        self._graded[id(leaf)] = leaf
        self._grads.setdefault(memory_of(grad), []).append(leaf)

    def _forget_grad(self, held: Held) -> None:
        """Note that nobody can ask for its gradient, whose memory may soon be another's."""
        if self._graded.pop(id(held), None) is not None:
            memory = memory_of(held.tensor.grad)
            self._grads[memory].remove(held)
            if not self._grads[memory]:
                del self._grads[memory]


def _root(graph: Graph | None) -> Graph | None:
    while graph is not None and graph.into is not None:
        graph = graph.into
    return graph
