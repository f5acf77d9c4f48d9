"""Google's dp-accounting, and scipy: they come with an extra, and are imported when first used."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from folkmoot.core.errors import SettingsError


def accounting() -> Any:
    """Return the module dp_accounting, with its parts `pld` and `rdp`.

    Raises:
        SettingsError: If it is not installed.
    """
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError as error:
        raise _missing("dp-accounting") from error
    return dp_accounting


def scipy_part(name: str) -> Any:
    """Return a part of scipy, such as "optimize".

    Raises:
        SettingsError: If it is not installed.
    """
    try:
        import scipy
    except ImportError as error:
        raise _missing("scipy") from error
    # Which scipy then imports.
    return getattr(scipy, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries from warning of orders that they leave out, and of powers that overflow.

    Either makes a bound looser, never wrong, and a reader can do nothing about it.
    """
    accounting()  # Else absl would find a logger of its name that is not its own.
    log, silent = logging.getLogger("absl"), logging.NullHandler()
    level = log.level
    log.setLevel(logging.ERROR)
    # Where nobody handles messages, absl would begin to, for the whole process and for good.
    logging.root.addHandler(silent)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        log.setLevel(level)
        logging.root.removeHandler(silent)


def _missing(library: str) -> SettingsError:
    return SettingsError(
        f"Privacy is accounted with the library {library}, which is not installed: pip install "
        "'folkmoot[privacy]'."
    )
