"""Runs that are not there to learn: more noise than signal is no news to an audit."""

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def drowned() -> Iterator[None]:
    """Leave out the warning of `fm.run` that noise will drown what is learnt."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The noise of a round")
        yield
