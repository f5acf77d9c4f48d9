"""What a client holds, loaded when it is asked; who has nothing then is left out by name."""

from collections.abc import Mapping
from typing import Any

from folkmoot.core.engine import ClientId, Cohort
from folkmoot.core.errors import ClientError
from folkmoot.core.tree import Tree


class Skipped(Exception):
    """A client that cannot take part, for a reason that is no fault of the program."""


def held(clients: Mapping[ClientId, Any], client: ClientId, cohort: Cohort) -> Tree:
    """Return a client's examples of the cohort's part, "train" or "test".

    Raises:
        Skipped: If it does not answer, has none, or whoever loads them says by a ClientError why
            not now.
    """
    if client in cohort.absent:
        raise Skipped(cohort.absent[client])
    part = cohort.part
    try:
        data: Tree | None = getattr(clients[client], part)
    except ClientError as error:
        raise Skipped(str(error)) from error
    if data is None:
        raise Skipped(f"it has no {part} examples")
    return data
