"""Requests: what the owner's rules do not let leave may be asked for, and she says yes or no.

What she approves is what she saw: the numbers are copied when they are asked for.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.objects import Held

_MOST_REASON = 1000
_MOST_WAITING = 1000
_MOST_BYTES = 256 << 20


@dataclass
class Request:
    """One request."""

    session: str
    """Whose it is."""
    value: Tensor
    label: str
    """What the value has to do with private rows."""
    why: str
    """The user's words."""
    state: str = "waiting"
    """Or "approved", or "denied"."""
    reason: str = ""
    """The owner's words."""


class Requests:
    """The requests at one worker, by number."""

    def __init__(self) -> None:
        self._all: dict[int, Request] = {}

    def ask(self, session: str, held: Held, why: Any) -> int:
        """Keep a request, and return its number."""
        if type(why) is not str or not 0 < len(why) <= _MOST_REASON:
            raise RemoteError(f"A request says why, in at most {_MOST_REASON} letters.")
        if sum(one.state == "waiting" for one in self._all.values()) >= _MOST_WAITING:
            raise Refused("Too many requests are waiting for the worker's owner.")
        kept = sum(one.value.nbytes for one in self._all.values())
        if kept + held.num_bytes > _MOST_BYTES:
            raise Refused(f"Requests hold {kept:,} of {_MOST_BYTES:,} bytes; ask for less.")
        number = len(self._all) + 1
        value = held.tensor.detach().clone()
        self._all[number] = Request(session, value, str(held.label), why)
        return number

    def collect(self, session: str, number: Any) -> Tensor:
        """Return what was approved.

        Raises:
            Refused: If it was denied, or nobody has looked at it yet.
            RemoteError: If this session has no such request.
        """
        found = self._all.get(number) if type(number) is int else None
        if found is None or found.session != session:
            raise RemoteError("There is no such request in this session.")
        if found.state == "waiting":
            raise Refused(f"Request {number} is waiting for the worker's owner.")
        if found.state == "denied":
            raise Refused(f"The worker's owner denied request {number}: {found.reason}")
        return found.value

    def listed(self) -> list[dict[str, Any]]:
        """Return what the owner reads of all requests, as plain JSON."""
        return [
            {
                "number": number,
                "session": one.session[:8],
                "why": one.why,
                "shape": list(one.value.shape),
                "dtype": str(one.value.dtype).removeprefix("torch."),
                "label": one.label,
                "state": one.state,
                "reason": one.reason,
            }
            for number, one in self._all.items()
        ]

    def value(self, number: Any) -> Tensor:
        """Return what a request asks for, for the owner to look at."""
        return self._of(number).value

    def decide(self, number: Any, approved: bool, reason: str) -> None:
        """Approve or deny."""
        found = self._of(number)
        found.state, found.reason = ("approved" if approved else "denied"), reason
        if not approved:
            found.value = found.value.new_empty(0)

    def _of(self, number: Any) -> Request:
        if number not in self._all:
            raise RemoteError(f"There is no request {number}; there are {len(self._all)}.")
        return self._all[number]
