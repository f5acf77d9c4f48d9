"""Noise in shares: each client adds a part, and only the sum is hidden, by all parts together.

Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation", ICML 2021, arXiv:2102.06387; Agarwal, Kairouz, Liu, "The Skellam Mechanism for
Differentially Private Federated Learning", NeurIPS 2021, arXiv:2110.04995. In a sum that nobody can
take apart, no server needs to be trusted with the noise. Shares are made for the honest clients
that a sum holds at least: those who vanish take theirs along, and those who collude know theirs.

A sum of m discrete Gaussians of at least 3 steps each is a discrete Gaussian of sqrt(m) times
theirs, within a total variation of m 2^-111, by the argument of `discrete_gaussian` with a stride
of 1. So what `noise` proves of one discrete Gaussian holds of the sum: it is at least as private as
continuous noise of the deviation that is accounted for. Sums of Skellam shares are Skellam.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.discrete_gaussian import discrete_gaussian
from folkmoot.codecs.entropy import Words, system
from folkmoot.codecs.field import DTYPES, FAR
from folkmoot.codecs.grid import refuse_unbounded
from folkmoot.codecs.noise import ROUNDING_VARIANCE, seeded_by
from folkmoot.codecs.skellam import skellam
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree

_LEAST_SIGMA = 3.0
"""Steps of one share, from which on shares add up to a discrete Gaussian for all purposes."""
Law = Callable[[int, float, Words], np.ndarray]


def gaussian_shares(
    noise_multiplier: float, *, providers: float, simulation: bool = False
) -> Codec:
    """Add each client's share of discrete Gaussian noise to its whole numbers.

    What this does to the bounds: `noise` becomes `noise_multiplier`, of the shares of `providers`
    clients; more clients bring more.

    Args:
        noise_multiplier: Standard deviation of the noise in each coordinate of the sum, over the
            largest norm of one client's vector; at least 0.
        providers: Clients that are sure to be in a sum and to keep their share to themselves, at
            least 1: the quorum less those assumed to collude.
        simulation: Whether noise follows from the run's seed, and hides nobody.

    Returns:
        A linear codec, to stand behind `to_field` and to be the last of its chain.

    Raises:
        SettingsError: If a number is out of range. At `init`: if the vectors have no bound, or a
            share would be too small for shares to add up to a Gaussian. At `encode`: if `to_field`
            is not in front, or was not told of the noise and has no room for it.
    """
    return _shares(
        "gaussian_shares",
        discrete_gaussian,
        ROUNDING_VARIANCE,
        noise_multiplier,
        providers,
        simulation,
    )


def skellam_shares(noise_multiplier: float, *, providers: float, simulation: bool = False) -> Codec:
    """Add each client's share of Skellam noise, the difference of two Poisson numbers.

    It is accounted for by Rényi divergences: `privacy.Skellam`.

    Args, Returns, Raises: As for `gaussian_shares`.
    """
    return _shares("skellam_shares", skellam, 0.0, noise_multiplier, providers, simulation)


def _shares(
    kind: str,
    law: Law,
    more_variance: float,
    noise_multiplier: float,
    providers: float,
    simulation: bool,
) -> Codec:
    """Build a stage of shares; `more_variance` is what the whole sum needs beyond its noise."""
    not_negative(noise_multiplier=noise_multiplier)
    positive(providers=providers)
    if providers < 1:
        raise SettingsError(f"providers must be at least 1, but is {providers!r}.")
    name = f"{kind}({noise_multiplier:g})"
    source = None if simulation or not noise_multiplier else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_unbounded(name, bounds)
        whole = (noise_multiplier * bounds.l2) ** 2 + more_variance if noise_multiplier else 0.0
        sigma = math.sqrt(whole / providers)
        if 0 < sigma < _LEAST_SIGMA:
            raise SettingsError(
                f"{name} among {providers:g} clients gives each a share of {sigma:.3g} steps, but "
                f"shares below {_LEAST_SIGMA:g} do not add up to what is accounted for. Take 32 "
                "bits, whose steps are smaller, or more noise."
            )
        most = bounds.clients * bounds.largest + FAR * sigma * math.sqrt(bounds.clients)
        state = {
            "share": torch.tensor(sigma, dtype=torch.float64),
            "most": torch.tensor(most, dtype=torch.float64),
        }
        return state, bounds._replace(noise=noise_multiplier)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        sigma = float(state["share"])
        if not sigma:
            return vector
        _refuse_no_room(name, vector, float(state["most"]))
        added = torch.from_numpy(law(len(vector), sigma, source or seeded_by(key)))
        # Modulo the field: what does not fit wraps around, here as in the sum.
        return vector.add_(added.to(vector.dtype))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total, state

    return Codec(name, init, encode, decode)


def _refuse_no_room(name: str, vector: Tensor, most: float) -> None:
    """Refuse vectors that are no whole numbers of a field, or whose noisy sum would wrap around."""
    if vector.dtype not in DTYPES.values():
        raise SettingsError(
            f"{name} adds whole numbers, but was given {vector.dtype}. Put to_field(noise=...) in "
            "front of it."
        )
    largest = torch.iinfo(vector.dtype).max
    if math.floor(most) > largest:
        raise SettingsError(
            f"With {name} a sum may come to {most:.6g} steps, but its field ends at {largest}. "
            "Tell to_field(noise=...) how much noise there will be, and it leaves room."
        )
