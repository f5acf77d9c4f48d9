"""What needs a pointer's numbers: all that waits is sent, and the worker decides whether they come.

`if pointer:`, `float(pointer)` and a format such as `f"{loss:.3f}"` are of this kind as well.
"""

import math
from typing import Any

from torch import Tensor

from folkmoot.remote.outbox import Outbox, Ticket
from folkmoot.remote.outlines import Outline


class Fetched:
    """The part of a pointer that fetches."""

    outbox: Outbox
    ticket: Ticket
    outline: Outline

    def get(self) -> Tensor:
        """Fetch the numbers, as an ordinary tensor, if the worker lets them leave.

        Raises:
            Refused: If it does not.
        """
        _, arrays = self.outbox.ask(["get", [self.ticket.plain]])
        return arrays["0"]

    def item(self) -> Any:
        """Fetch a single number."""
        size = math.prod(self.outline.shape)
        if size != 1:
            raise RuntimeError(f"item() takes a tensor of one number, and this has {size}.")
        header, _ = self.outbox.ask(["item", self.ticket.plain])
        value = header["item"]
        return float(value["f"]) if type(value) is dict else value

    def tolist(self) -> Any:
        """Fetch the numbers as lists."""
        return self.get().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Fetch the numbers as an array of numpy."""
        return self.get().numpy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.get().numpy() if dtype is None else self.get().numpy().astype(dtype)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return (
            format(self.item(), spec)
            if spec and not self.outline.shape
            else format(repr(self), spec)
        )
