"""The owner's handle: requests to approve or deny, and what is spent.

No user's channel leads here.
"""

from typing import Any

from torch import Tensor

from folkmoot.core.errors import SettingsError
from folkmoot.remote.channel import Channel
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.messages import from_bytes, to_bytes


class Owner:
    """The owner of a worker that this program has started."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def requests(self) -> list[dict[str, Any]]:
        """Return all requests: number, session, why, shape, dtype, label, state and reason."""
        header, _ = self._asked(asked="requests")
        return header["requests"]

    def look(self, number: int) -> Tensor:
        """Return what a request asks for."""
        _, arrays = self._asked(asked="look", number=number)
        return arrays["0"]

    def approve(self, number: int) -> None:
        """Let what a request asks for leave."""
        self._asked(asked="decide", number=number, approved=True, reason="")

    def deny(self, number: int, reason: str) -> None:
        """Keep it, and say why."""
        if not reason:
            raise SettingsError("A denial says why: who asked can then ask better.")
        self._asked(asked="decide", number=number, approved=False, reason=reason)

    def spent(self) -> float:
        """Return the epsilon that statistics with noise have spent."""
        header, _ = self._asked(asked="spent")
        return header["spent"]

    def _asked(self, **message: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        header, arrays = from_bytes(self._channel.ask(to_bytes(message)))
        if "error" in header:
            raise RemoteError(header["text"])
        return header, arrays
