"""Privacy accounting: what was done, what it has cost, and a ledger that refuses.

Nothing here imports torch: an accountant must be checkable on paper.
"""

from folkmoot.privacy import matrix
from folkmoot.privacy.accountants import delta_of, epsilon, epsilon_bound, epsilon_curve
from folkmoot.privacy.calibrate import cohort_for, noise_for, rounds_for
from folkmoot.privacy.dp import DP, Banded, Tree
from folkmoot.privacy.events import (
    CappedPoissonGaussian,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    LocalGaussian,
    PoissonGaussian,
    Pure,
    Skellam,
    adjacency,
)
from folkmoot.privacy.ledger import Ledger

__all__ = [
    "DP",
    "Banded",
    "CappedPoissonGaussian",
    "FixedSizeGaussian",
    "Gaussian",
    "Laplace",
    "Ledger",
    "LocalGaussian",
    "PoissonGaussian",
    "Pure",
    "Skellam",
    "Tree",
    "adjacency",
    "cohort_for",
    "delta_of",
    "epsilon",
    "epsilon_bound",
    "epsilon_curve",
    "matrix",
    "noise_for",
    "rounds_for",
]
