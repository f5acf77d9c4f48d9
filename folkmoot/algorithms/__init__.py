"""Algorithms: one paper a file."""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.algorithms.fedprox import fedprox

__all__ = ["fedavg", "fedprox"]
