"""How messages reach a site: in this process here, in a process of its own in `process`.

A channel to a real site is one more class with these two methods; nothing else knows where it runs.
"""

from collections.abc import Callable
from typing import Protocol


class Channel(Protocol):
    """A way to a site and back."""

    def ask(self, message: bytes) -> bytes:
        """Send a message and wait for its answer.

        Raises:
            InfrastructureError: If the site is gone.
        """
        ...

    def close(self) -> None:
        """Let go of it; may be called twice."""
        ...


class Direct:
    """To a site in this process, which bytes reach as they would reach any other."""

    def __init__(self, answer: Callable[[bytes], bytes], close: Callable[[], None]) -> None:
        self._answer, self._close = answer, close

    def ask(self, message: bytes) -> bytes:
        """Call the site."""
        return self._answer(message)

    def close(self) -> None:
        """Close the site."""
        self._close()
