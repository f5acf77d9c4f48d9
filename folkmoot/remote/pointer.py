"""Pointers: tensors that live at a worker. A pointer knows shape and dtype, and no numbers.

It is a `torch.Tensor` by class, made over a meta tensor, so that modules hold it as a parameter and
optimizers step it. Every call on it is written down for the worker instead of being computed
and sent with others (`outbox`); what follows from the shape alone is answered here. Autograd runs
at the worker; only a sketch of its graph is kept here.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from folkmoot.remote import outlines
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.fetched import Fetched
from folkmoot.remote.messages import plain
from folkmoot.remote.operators import KEYWORDS, NAMES, OPERATORS
from folkmoot.remote.outbox import Outbox, Ticket
from folkmoot.remote.outlines import Outline
from folkmoot.remote.sketch import Leaf, Node, leaves_of
from folkmoot.remote.translations import translated

_MOST_ITERATED = 1024


class Pointer(Fetched, Tensor):
    """A tensor at a worker; made by `Worker.send`, by a worker's data, and by calls on others."""

    node: Leaf | Node | None
    came: bool
    """Whether a gradient has come to it."""
    _arrived: "Pointer | None"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = NAMES.get(func)
        if name is not None:
            return recorded(name, args, kwargs or {})
        if func in _OUTWARD:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return translated(func, args, kwargs or {})

    @property
    def worker(self) -> str:
        """Name of the worker where it lives."""
        return self.outbox.worker

    def __iter__(self) -> Iterator[Any]:
        if not self.dim():
            raise TypeError("A pointer to a single number cannot be iterated over.")
        if len(self) > _MOST_ITERATED:
            raise RemoteError(
                f"A loop over each of {len(self):,} entries would be as many operations at worker "
                f"{self.worker!r}, where {_MOST_ITERATED:,} are allowed. Compute on whole tensors, "
                "or loop over slices."
            )
        return (self[place] for place in range(len(self)))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        dtype = str(self.outline.dtype).removeprefix("torch.")
        return f"Pointer({self.worker}:{self.ticket.number}, {list(self.outline.shape)}, {dtype})"

    def __deepcopy__(self, memo: Any) -> Any:
        with torch.no_grad():
            copied = self.clone()
        memo[id(self)] = copied
        if isinstance(self.node, Leaf):
            copied.requires_grad_()
            copied.__dict__["_is_param"] = self.__dict__.get("_is_param", False)
        return copied

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise RemoteError(
            f"A pointer to worker {self.worker!r} means nothing in a file. Save what get() brings."
        )

    def backward(
        self,
        gradient: "Pointer | None" = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Let gradients flow back, at the worker, to every leaf's `.grad`."""
        if create_graph or inputs is not None:
            raise RemoteError("A worker's backward() takes neither create_graph nor inputs.")
        if self.node is None:
            raise RuntimeError("backward() needs a result of something with requires_grad=True.")
        if gradient is None and self.numel() != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        start = None if gradient is None else of_one(self.outbox, gradient).ticket.plain
        self.outbox.add("backward", [], (self.ticket.plain, start, bool(retain_graph)))
        for leaf in leaves_of(self.node, cut=not retain_graph):
            pointer = leaf.pointer()
            if pointer is not None:
                pointer.came, pointer._arrived = True, None

    def to(self, *given: Any, **options: Any) -> "Pointer":
        """Return it in another dtype; it cannot go to a device."""
        for one in (*given, *options.values()):
            if isinstance(one, torch.dtype):
                return recorded("to", (self, one), {})
            if isinstance(one, str | torch.device) and torch.device(one) != self.device:
                raise RemoteError(
                    f"A tensor of worker {self.worker!r} cannot go to {one}: where it is computed "
                    "is the worker's matter. Leave the call out, or get() what may leave."
                )
        return self

    def cpu(self, *given: Any, **options: Any) -> "Pointer":
        """Refuse, as `to` does."""
        return self.to("cpu")

    def cuda(self, *given: Any, **options: Any) -> "Pointer":
        """Refuse, as `to` does."""
        return self.to("cuda")

    @property  # type: ignore[override]
    def grad(self) -> "Pointer | None":
        """The gradient that has come, a pointer as well; None where none has."""
        if self.came and self._arrived is None:
            ticket = self.outbox.ticket()
            self.outbox.add_to_list("grad", [ticket], self.ticket.plain)
            self._arrived = made(self.outbox, ticket, self.outline)
        return self._arrived

    @grad.setter
    def grad(self, value: "Pointer | None") -> None:
        if value is not None:
            given = of_one(self.outbox, value).ticket.plain
            self.outbox.add("set_grad", [], (self.ticket.plain, given))
        elif self.came:
            self.outbox.add_to_list("no_grad", [], self.ticket.plain)
        self.came, self._arrived = value is not None, None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it, or through it."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> "Pointer":
        """Let gradients arrive here, or no longer."""
        if isinstance(self.node, Node) or not self.outline.dtype.is_floating_point:
            raise RuntimeError("Only floats that nothing was computed into can begin a gradient.")
        if bool(requires_grad) != self.requires_grad:
            self.outbox.add("requires_grad", [], (self.ticket.plain, bool(requires_grad)))
            self.node = Leaf(self) if requires_grad else None
        return self

    @property
    def is_leaf(self) -> bool:  # type: ignore[override]
        """Whether nothing that wants gradients was computed into it."""
        return not isinstance(self.node, Node)

    @property
    def grad_fn(self) -> Any:  # type: ignore[override]
        """Something where gradients flow through it, as torch's programs ask; None at leaves."""
        return self.node if isinstance(self.node, Node) else None

    @property
    def retains_grad(self) -> bool:  # type: ignore[override]
        """False: only leaves keep gradients."""
        return False

    @property
    def data(self) -> Any:
        """The same numbers, outside of any gradient."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> NoReturn:
        raise RemoteError("A pointer's data cannot be exchanged; copy_() writes into it.")


def made(
    outbox: Outbox, ticket: Ticket, outline: Outline, node: Leaf | Node | None = None
) -> Pointer:
    """Return a pointer to an object."""
    pointer: Pointer = Tensor._make_subclass(Pointer, outlines.meta(outline))
    pointer.outbox, pointer.ticket, pointer.outline, pointer.node = outbox, ticket, outline, node
    pointer.came, pointer._arrived = False, None
    return pointer


def of_one(outbox: Outbox, value: Any) -> Pointer:
    """Return a tensor that an operation is given, if it lives where the others do.

    Raises:
        RemoteError: If it lives elsewhere.
    """
    if type(value) is not Pointer:
        raise RemoteError(
            f"A tensor of this process meets one of worker {outbox.worker!r}: {_shown(value)}. "
            "Send it there first: worker.send(tensor)."
        )
    if value.outbox is not outbox:
        raise RemoteError(
            f"A tensor of worker {value.worker!r} meets one of worker {outbox.worker!r}, or of "
            "another session there. What may leave goes by way of here: get() it, and send it on."
        )
    return value


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"shape {list(value.shape)}, {str(value.dtype).removeprefix('torch.')}"


def recorded(name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """Write a call down for the worker, and return pointers to what it will give."""
    if kwargs.get("out") is not None:
        return kwargs["out"].copy_(recorded(name, args, {**kwargs, "out": None}))
    operator = OPERATORS[name]
    found: list[Any] = []
    # How memory is laid out is the worker's matter.
    kwargs = {k: one for k, one in kwargs.items() if one is not None and k != "memory_format"}
    if not kwargs.keys() <= KEYWORDS:
        raise RemoteError(
            f"A worker's {name} takes no {min(kwargs.keys() - KEYWORDS)}=. Known keywords: "
            f"{', '.join(sorted(KEYWORDS))}."
        )
    refs = [_sent(one, found) for one in args]
    named = {key: _sent(one, found) for key, one in kwargs.items()}
    outbox = next(one.outbox for one in found if type(one) is Pointer)
    for one in found:
        of_one(outbox, one)
    outcome = outlines.outcome(operator, args, kwargs)
    grad = torch.is_grad_enabled()
    sources = [one.node for one in found if one.node is not None] if grad else []
    if 0 in operator.writes:
        target = args[0]
        if sources and not isinstance(target.node, Leaf):
            target.node = Node(sources)
        outbox.add(name, [], refs, named, grad)
        return target
    tickets = [outbox.ticket() for _ in outcome.outlines]
    results = [
        made(outbox, ticket, outline, Node(sources) if sources and flows else None)
        for ticket, outline, flows in zip(
            tickets, outcome.outlines, outcome.differentiable, strict=True
        )
    ]
    outbox.add(name, tickets, refs, named, grad)
    return results[0] if outcome.form is None else outcome.form(results)


def _sent(value: Any, found: list[Any]) -> Any:
    """Return an argument as it is sent, and note its tensors."""
    kind = type(value)
    if kind is Pointer:
        found.append(value)
        return {"p": value.ticket.number}
    if isinstance(value, Tensor):
        found.append(value)
        return None
    if kind is list:
        return [_sent(one, found) for one in value]
    if isinstance(value, tuple):
        return {"t": [_sent(one, found) for one in value]}
    return plain(value)


def _cast(dtype: torch.dtype) -> Any:
    return lambda self: self.to(dtype)


for _name, _dtype in {
    "bool": torch.bool,
    "double": torch.float64,
    "float": torch.float32,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "int": torch.int32,
    "long": torch.int64,
}.items():
    setattr(Pointer, _name, _cast(_dtype))

_ATTRIBUTES = """
    shape dtype device ndim layout is_cuda is_sparse is_quantized is_meta itemsize nbytes is_mps
    is_xpu is_nested is_sparse_csr
"""
_METHODS = """
    size dim numel nelement ndimension element_size is_floating_point is_complex stride
    is_contiguous is_signed __len__ __dir__ get_device
"""
_OUTWARD = {
    *(getattr(Tensor, name).__get__ for name in _ATTRIBUTES.split()),
    *(getattr(Tensor, name) for name in _METHODS.split()),
    *(torch.is_floating_point, torch.is_complex, torch.numel),
}
"""What the shape and the dtype answer."""
