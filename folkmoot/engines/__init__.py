"""Engines: the same task, run elsewhere. None of them knows which algorithm it runs."""

from folkmoot.engines.auto import auto
from folkmoot.engines.compiled import compiled
from folkmoot.engines.parallel import parallel
from folkmoot.engines.sequential import sequential
from folkmoot.engines.vectorized import vectorized

__all__ = ["auto", "compiled", "parallel", "sequential", "vectorized"]
