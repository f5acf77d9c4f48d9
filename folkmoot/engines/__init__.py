"""Engines: the same task, run elsewhere. None of them knows which algorithm it runs."""

from folkmoot.engines.parallel import auto, parallel
from folkmoot.engines.sequential import sequential
from folkmoot.engines.vectorized import vectorized

__all__ = ["auto", "parallel", "sequential", "vectorized"]
