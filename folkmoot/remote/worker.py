"""Workers: whose data stay where they are, while any PyTorch program computes on them.

    alice = fm.Worker("alice", data={"digits": (x, y)}, process=True)
    digits, m = alice.data["digits"], alice.send(model)
    loss = F.cross_entropy(m(digits.x[:64]), digits.y[:64])

Ryffel et al., "A generic framework for privacy preserving deep learning", 2018, arXiv:1811.04017,
is where virtual workers come from. Here a training step is one message, and what may leave is
decided where the data are.
"""

import copy
import weakref
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from folkmoot.core.errors import SettingsError
from folkmoot.remote.channel import Channel, Direct
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.outbox import Outbox
from folkmoot.remote.outlines import of
from folkmoot.remote.owner import Owner
from folkmoot.remote.pointer import Pointer, made
from folkmoot.remote.policy import Policy
from folkmoot.remote.process import Forked, Piped
from folkmoot.remote.site import Site
from folkmoot.remote.sketch import Leaf
from folkmoot.remote.tables import Tables, tables_of

Sent = TypeVar("Sent", Tensor, nn.Module)


class Request:
    """Something that the owner was asked to let leave."""

    def __init__(self, outbox: Outbox, number: int) -> None:
        self._outbox, self.number = outbox, number

    def get(self) -> Tensor:
        """Return it, if she has approved.

        Raises:
            Refused: If she has denied it, with her reason, or has not looked at it yet.
        """
        _, arrays = self._outbox.ask(["collect", self.number])
        return arrays["0"]


class Worker:
    """A user's session at a worker; open until closed.

    Args:
        name: Its name, for messages.
        data: Name -> a tensor, a pair (x, y), or columns by name; axis 0 are the private rows.
        policy: What may leave, and how much may be used; None is `Policy()`.
        process: Whether the worker is a process of its own. In this process nothing but good will
            keeps a program from the data: that is for writing code, and for simulations.
        mock: Name -> as in `data`, for `data[name].mock`; None makes rows at random.

    Raises:
        SettingsError, DataError: If the data are no arrays of the same rows, or the ledger cannot
            be opened.
    """

    def __init__(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        *,
        process: bool = False,
        mock: Mapping[str, Any] | None = None,
    ) -> None:
        tables, rules = tables_of(data), policy or Policy()
        if not isinstance(rules, Policy):
            raise SettingsError(f"policy must be a fm.remote.Policy, but is {policy!r}.")
        self._channel: Channel
        if process:
            forked = Forked(name, lambda: Site(name, tables, rules))
            self._channel = Piped(forked, forked.users)
            self.owner = Owner(Piped(forked, forked.owners))
            """Who approves requests; not to be had on a channel."""
            # As long as anybody's session or pointer is there, so is the process.
            weakref.finalize(self._channel, forked.close)
        else:
            site = Site(name, tables, rules)
            self._channel = Direct(site.answer, site.close)
            self.owner = Owner(Direct(site.answer_owner, site.close))
        self._begin(name, self._channel, tables_of(mock))

    def _begin(self, name: str, channel: Channel, mocks: Mapping[str, Any]) -> None:
        self.name, self._mocks = name, mocks
        self._outbox = Outbox(name, channel)
        self.data = Tables(self._outbox, mocks)
        """The worker's tables, by name."""

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Worker({self.name!r}, data: {', '.join(self.data) or 'none'})"

    @property
    def messages(self) -> int:
        """Messages that this session has sent."""
        return self._outbox.messages

    def connect(self) -> "Worker":
        """Return another user's session at the same worker, which shares nothing with this one."""
        other = object.__new__(Worker)
        other._channel = self._channel
        other._begin(self.name, self._channel, self._mocks)
        return other

    def send(self, value: Sent) -> Sent:
        """Send a tensor or a module, and return what stands for it here.

        Args:
            value: A tensor; or a module, whose parameters and buffers are sent. It stays as it is.

        Returns:
            A pointer; or the same module with pointers for parameters; its `get()` brings it back.
        """
        if isinstance(value, Pointer):
            raise RemoteError(
                f"This lives at worker {value.worker!r} already. get() it first, if it may leave."
            )
        if isinstance(value, Tensor):
            return self._sent(value)
        if isinstance(value, nn.Module):
            return self._sent_module(value)
        raise SettingsError(f"A tensor or a module can be sent, not a {type(value).__name__}.")

    def request(self, pointer: Tensor, why: str) -> Request:
        """Ask the owner to let something leave that her rules keep.

        Args:
            pointer: What; its numbers are those of now.
            why: For her to read, at most 1000 letters.
        """
        if not isinstance(pointer, Pointer) or pointer.outbox is not self._outbox:
            raise RemoteError(f"Worker {self.name!r} is asked for an object of this session.")
        header, _ = self._outbox.ask(["request", pointer.ticket.plain, why])
        return Request(self._outbox, header["request"])

    def manual_seed(self, seed: int) -> None:
        """Let this session draw (dropout) as a program of one's own does after `manual_seed`."""
        self._outbox.add("seed", [], (seed,))

    def flush(self) -> None:
        """Send what waits, although no value is needed."""
        self._outbox.ask(None)

    def leave(self) -> None:
        """End this session; what it held at the worker is let go, and others go on."""
        self._outbox.close()

    def close(self) -> None:
        """End the worker, and all sessions with it."""
        self._channel.close()

    def _sent(self, tensor: Tensor) -> Pointer:
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise RemoteError("Only dense tensors can be sent to a worker.")
        sent = self._outbox.send(tensor, tensor.requires_grad)
        pointer = made(self._outbox, sent, of(tensor))
        if tensor.requires_grad:
            pointer.node = Leaf(pointer)
        if isinstance(tensor, nn.Parameter):
            # Which makes it an instance of nn.Parameter, as torch has it for classes of tensors.
            pointer.__dict__["_is_param"] = True
        return pointer

    def _sent_module(self, module: nn.Module) -> Any:
        # What deepcopy finds in its memo is not copied but put in place.
        memo: dict[int, Any] = {id(one): self.send(one) for one in _tensors(module)}
        sent = copy.deepcopy(module, memo)
        if not hasattr(sent, "get"):
            sent.__class__ = _fetching(type(sent))
        return sent


def fetched(module: Any) -> Any:
    """Fetch a module: an ordinary one, with the parameters of now, in one message.

    Raises:
        Refused: If the worker does not let one of its parameters or buffers leave.
    """
    pointers = list({id(one): one for one in _tensors(module)}.values())
    memo: dict[int, Any] = {}
    if pointers:
        _, arrays = pointers[0].outbox.ask(["get", [one.ticket.plain for one in pointers]])
        for place, pointer in enumerate(pointers):
            brought = arrays[str(place)]
            if isinstance(pointer, nn.Parameter):
                brought = nn.Parameter(brought, requires_grad=pointer.requires_grad)
            memo[id(pointer)] = brought
    ordinary = copy.deepcopy(module, memo)
    ordinary.__class__ = getattr(type(module), "before", type(module))
    return ordinary


_FETCHING: dict[Any, Any] = {}


def _fetching(kind: Any) -> Any:
    """Return a class of modules with a `get`; a function on the instance would be a circle."""
    if kind not in _FETCHING:
        _FETCHING[kind] = type(kind.__name__, (kind,), {"get": fetched, "before": kind})
    return _FETCHING[kind]


def _tensors(module: nn.Module) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
