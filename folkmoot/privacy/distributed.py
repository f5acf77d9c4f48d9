"""The published bound for discrete Gaussian noise in shares, to hold what we account for against.

Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation", ICML 2021, arXiv:2102.06387. They bound how far a sum of discrete Gaussians is
from one, by tau, and pay for it. We take shares of at least 3 steps, where tau is below 10^-37 a
client, prove that their sum hides as much as continuous noise (`codecs.shares`), and account for
that: `Gaussian`. Both agree; theirs also says how little shares below one step would hide.
"""

import math

from folkmoot.core.errors import SettingsError, not_negative, positive


def distance(variance: float, clients: int) -> float:
    """Return tau: how far a sum of discrete Gaussians is, at most, from a discrete Gaussian.

    Args:
        variance: sigma^2 of one client's share, in steps^2, above 0.
        clients: Whose shares are in the sum, at least 1.

    Returns:
        A bound on |log(p / q)| of all probabilities p of the sum and q of the discrete Gaussian of
        `clients` times the variance; 0 for one client.

    Source: Kairouz et al., theorem 1.
    """
    positive(variance=variance)
    if clients < 1:
        raise SettingsError(f"clients must be at least 1, but is {clients!r}.")
    exponent = 2 * math.pi**2 * variance
    return 10 * math.fsum(math.exp(-exponent * k / (k + 1)) for k in range(1, clients))


def concentration(variance: float, clients: int, l2: float, size: int) -> float:
    """Return the epsilon of the (epsilon^2 / 2)-concentrated privacy of a sum with noise in shares.

    Args:
        variance, clients: As for `distance`.
        l2: Largest L2 norm of one contribution, in steps, at least 0.
        size: Coordinates, at least 0.

    Source: Kairouz et al., theorem 1.
    """
    not_negative(l2=l2, size=size)
    tau = distance(variance, clients)
    ratio = l2 / math.sqrt(clients * variance)
    return min(math.sqrt(ratio**2 + tau * size / 2), ratio + tau * math.sqrt(size))


def rho(variance: float, clients: int, l2: float, size: int) -> float:
    """Return the rho of the rho-concentrated privacy of a sum with noise in shares.

    Its Rényi divergence of each order is at most order * rho; that of continuous Gaussian noise is
    order / (2 z^2).

    Args: As for `concentration`.

    Source: Kairouz et al., theorem 1.
    """
    return concentration(variance, clients, l2, size) ** 2 / 2
