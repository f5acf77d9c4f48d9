"""Sealed batches: rows that nobody sees but an objective whose gradients are private.

A work with example-level privacy may read a client's examples in one way only, through gradients
that are clipped, noised and paid for. So its batches come sealed: whatever else a step, or a
transform around it, wants to do with them (count rows, measure a loss, look at features) fails with
a sentence, also where nobody has thought of it.
"""

from typing import Any, NoReturn

from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree


class Sealed(dict[str, Any]):
    """The rows of a batch, in a tree that cannot be looked at."""

    def __init__(self, rows: Tree, expected: int, secret: bool) -> None:
        super().__init__()
        self._rows = rows
        self._expected = expected
        self._secret = secret
        self._opened = 0

    def open(self, most: int) -> tuple[Tree, int, int]:
        """Return the rows, how many of them a batch holds on average, and the number of this look.

        Args:
            most: Looks that have been paid for.

        Raises:
            SettingsError: If this is one more.
        """
        if self._opened == most:
            raise SettingsError(
                f"A step asks for more gradients of one batch than the {most} that example-level "
                "privacy charges for. Use an algorithm that takes one a step, as FedAvg, FedProx "
                "and SCAFFOLD do, or pay for more and leave privacy= out of the run: "
                f"fm.local.dpsgd(work, ..., gradients={most + 1})."
            )
        self._opened += 1
        return self._rows, self._expected, self._opened

    @property
    def secret(self) -> bool:
        """Whether the operating system has drawn the rows."""
        return self._secret

    def _refuse(self, *args: Any) -> NoReturn:
        raise SettingsError(
            "A step looks at a client's examples by itself, and example-level privacy covers "
            "nothing but the gradients of fm.local.dpsgd(work). Use an algorithm whose steps take "
            "gradients only, as those of FedAvg, FedProx and SCAFFOLD do."
        )

    __getitem__ = __iter__ = __len__ = __contains__ = __bool__ = _refuse
    keys = values = items = get = copy = _refuse

    def __repr__(self) -> str:
        return "Sealed()"
