"""What can go wrong at a worker, as types that a caller may want to catch."""

from folkmoot.core.errors import FolkmootError


class RemoteError(FolkmootError):
    """An operation failed at a worker; the message names it and its number in what was sent."""


class Refused(RemoteError):
    """The owner's rules forbid what was asked: nothing has left, and the session goes on."""
