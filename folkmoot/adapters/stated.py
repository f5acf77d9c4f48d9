"""What is stated of clients' data, columns and classes, and a look at whether a client's fit it.

Other libraries find both out by themselves, of one client's rows: some take a column of several for
the only one, or 0.5 for a label. So rows are looked at before any library sees them.
"""

from numbers import Integral
from typing import Any

import numpy as np

from folkmoot.core.errors import ClientError, SettingsError


def is_whole(value: Any, least: int = 1) -> bool:
    """Tell whether a value is a whole number of at least `least`; numpy's count as well."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def whole(**values: Any) -> None:
    """Refuse, by name and value, what is not a whole number of at least 1."""
    for name, value in values.items():
        if not is_whole(value):
            raise SettingsError(f"{name} must be a whole number of at least 1, but is {value!r}.")


def column(x: Any, y: Any, inputs: int, classes: int | None = None) -> Any:
    """Return a client's targets, (rows,), as a numpy array.

    Args:
        x: (rows, inputs).
        y: (rows,) or (rows, 1).
        inputs: How many there are.
        classes: How many there are, where targets are labels.

    Raises:
        ClientError: If shapes are others, or a label is not one of 0 to `classes` - 1.
    """
    if x.ndim != 2 or x.shape[1] != inputs or tuple(y.shape) not in ((len(x),), (len(x), 1)):
        raise ClientError(
            f"Leaves 'x' {tuple(x.shape)} and 'y' {tuple(y.shape)} are not (rows, {inputs}) and "
            "(rows,)."
        )
    targets = np.asarray(y).reshape(-1)
    if classes is not None:
        strange = np.setdiff1d(targets.astype(np.float64), np.arange(classes))
        if len(strange):
            raise ClientError(
                f"Leaf 'y' holds the label {strange[0]:g}, but there are {classes} classes, 0 to "
                f"{classes - 1}. Count labels from 0, or state more classes."
            )
    return targets
