"""The user's side of a session: operations wait here, and travel as one message.

A message goes when a value is needed, or when so much waits that memory matters. What it asks to be
let go is what nobody holds any more: a pointer that was forgotten tells so by its `Ticket`.
"""

import itertools
from typing import Any

from torch import Tensor

from folkmoot.core.errors import BudgetError
from folkmoot.remote.channel import Channel
from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.messages import from_bytes, to_bytes

_MOST_WAITING = 1000
_MOST_LISTED = 500
_MOST_WAITING_BYTES = 64 << 20
_ERRORS = {"refused": Refused, "budget": BudgetError}


class Ticket:
    """An object's number; when nobody holds it, the object may be let go."""

    __slots__ = ("_forgotten", "number")

    def __init__(self, number: int, forgotten: list[int]) -> None:
        self.number, self._forgotten = number, forgotten

    def __del__(self) -> None:
        self._forgotten.append(self.number)

    @property
    def plain(self) -> dict[str, int]:
        """The number as it travels."""
        return {"p": self.number}


class Outbox:
    """What waits to be sent to one session.

    Args:
        worker: The worker's name.
        channel: The way to its site.
    """

    def __init__(self, worker: str, channel: Channel) -> None:
        self.worker, self._channel = worker, channel
        self.messages = 0
        """Messages that were sent."""
        self._numbers = itertools.count(1)
        self._program: list[Any] = []
        self._arrays: dict[str, Tensor] = {}
        self._array_bytes = 0
        self._forgotten: list[int] = []
        self._free: list[list[int]] = []
        """Before which operation, and then which objects are let go."""
        header, _ = self._asked({"hello": 1}, {})
        self._session: str = header["session"]
        self.schema: list[Any] = header["tables"]
        """Of the data: [table, [[column, shape, dtype], ...]], ..."""

    def ticket(self) -> Ticket:
        """Return the number of a new object."""
        return Ticket(next(self._numbers), self._forgotten)

    def add(
        self,
        name: str,
        outs: list[Ticket],
        args: Any,
        kwargs: dict[str, Any] | None = None,
        grad: bool = True,
    ) -> None:
        """Let an operation wait; its arguments are plain JSON."""
        if self._forgotten:
            self._note_forgotten()
        entry = [name, [one.number for one in outs], list(args), kwargs or {}, grad]
        self._program.append(entry)
        if len(self._program) >= _MOST_WAITING:
            self.ask(None)

    def add_to_list(self, name: str, outs: list[Ticket], arg: Any) -> None:
        """Let an operation wait that takes a list: calls that follow each other become one."""
        last = self._program[-1] if self._program else None
        if last and last[0] == name and len(last[2][0]) < _MOST_LISTED:
            last[1] += [one.number for one in outs]
            last[2][0].append(arg)
        else:
            self.add(name, outs, ([arg],))

    def send(self, tensor: Tensor, wants_grad: bool) -> Ticket:
        """Let a tensor wait, as it is now."""
        ticket, name = self.ticket(), len(self._arrays)
        self._arrays[str(name)] = tensor.detach().clone()
        self._array_bytes += tensor.numel() * tensor.element_size()
        self.add("send", [ticket], (name, wants_grad))
        if self._array_bytes >= _MOST_WAITING_BYTES:
            self.ask(None)
        return ticket

    def ask(self, want: list[Any] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Send all that waits, and what is wanted; return the answer.

        Raises:
            RemoteError: If an operation failed, or the owner's rules forbid what is wanted.
            InfrastructureError: If the site is gone.
        """
        self._note_forgotten()
        program, arrays, free = self._program, self._arrays, self._free
        self._program, self._arrays, self._free, self._array_bytes = [], {}, [], 0
        message = {"session": self._session, "program": program, "free": free, "want": want}
        return self._asked(message, arrays)

    def close(self) -> None:
        """End the session; its objects are let go."""
        self._asked({"session": self._session, "bye": 1}, {})

    def _note_forgotten(self) -> None:
        """Let objects go before the next operation, as a program of one's own frees memory."""
        # In place, and by count: tickets hold this very list, and one may come in between.
        numbers = self._forgotten[:]
        del self._forgotten[: len(numbers)]
        if numbers:
            self._free.append([len(self._program), *numbers])

    def _asked(
        self, message: dict[str, Any], arrays: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self.messages += 1
        header, found = from_bytes(self._channel.ask(to_bytes(message, arrays)))
        if "error" in header:
            kind = _ERRORS.get(header["error"], RemoteError)
            raise kind(f"At worker {self.worker!r}: {header['text']}")
        return header, found
