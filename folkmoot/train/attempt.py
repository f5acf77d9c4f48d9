"""Calling code that is the user's, where whatever it raises becomes a sentence of a report."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def attempt(
    function: Callable[_Given, _Found], *args: _Given.args, **options: _Given.kwargs
) -> _Found | Exception:
    """Return what a function returns, or the error that it raised.

    This is the one place of a check that catches errors of every kind: a loader, a model, a loss
    may raise anything, and a check tells all of it in place of ending at the first.
    """
    try:
        return function(*args, **options)
    except Exception as error:
        return error
