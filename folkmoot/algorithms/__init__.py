"""Algorithms: one paper a file. A new one has its line here, and nothing else changes."""

from folkmoot.algorithms.fedavg import fedavg as fedavg
from folkmoot.algorithms.fedprox import fedprox as fedprox
from folkmoot.algorithms.scaffold import scaffold as scaffold

__all__ = sorted(name for name, value in globals().items() if callable(value))
