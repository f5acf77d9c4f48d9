"""The one place that reads a clock; everything else is handed seconds."""

import time


def now() -> float:
    """Return seconds on a clock that only goes forward; differences are meant."""
    return time.perf_counter()
