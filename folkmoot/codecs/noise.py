"""Gaussian noise in the sum, added by the server as integers.

Dwork et al., EUROCRYPT 2006; McMahan et al., ICLR 2018, arXiv:1710.06963, section 3, with noise on
the sum and not on the mean. Instead of the continuous Gaussian the discrete one is drawn, on the
grid of the sum (docs/noise.md).

What is accounted for as a continuous Gaussian is at least as noisy as one. Draw X continuous around
a whole number s, then a whole number Y around X with probability in proportion to
exp(-(Y - X)^2 / 2 r^2): Y is a discrete Gaussian around s of sigma^2 = sigma_X^2 + r^2, up to a
factor 1 ± 2^-111 for r = 2 (Peikert, CRYPTO 2010, theorem 3.1). So the discrete noise of this file
is the rounding, blind to the data, of a continuous noise with a deviation of exactly the noise
multiplier times the largest norm; its own sigma^2 is larger by 4 steps^2
(docs/decisions/0013-noise-on-a-grid.md).
"""

import math

import torch
from torch import Tensor

from folkmoot.codecs.discrete_gaussian import discrete_gaussian
from folkmoot.codecs.entropy import Words, seeded, system
from folkmoot.codecs.grid import gridded, in_units, rounded
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree

ROUNDING_VARIANCE = 4.0
"""r^2 of the argument above, in steps^2."""


def gaussian(noise_multiplier: float, *, scale: float = 1.0, simulation: bool = False) -> Codec:
    """Add Gaussian noise to the sum, once, on the server.

    Clients round to a grid and send integers; the server draws integer noise and returns floats.
    What this does to the bounds: `l2` grows by the rounding, at most by 2^-8 of itself; `noise`
    becomes `noise_multiplier * scale`, in units of the grown `l2`.

    Args:
        noise_multiplier: Standard deviation of the noise in each coordinate of the sum, over the
            largest norm of one client's vector; at least 0. With 0 nothing is hidden.
        scale: Factor on that noise, in (0, 1]. Below 1 a small cohort simulates a larger one, with
            as much noise beside each mean as that would have; such a run hides nobody.
        simulation: Whether the noise follows from the run's seed. Then it hides nobody either.

    Returns:
        A linear codec, to be the last of its chain, whose encoded vectors are integers.

    Raises:
        SettingsError: If a number is out of range, or the library of the noise is missing. At
            `init`: if a client's vector or weight has no bound.

    Source: McMahan et al., ICLR 2018, arXiv:1710.06963; Canonne, Kamath, Steinke, NeurIPS 2020,
    arXiv:2004.00010.
    """
    not_negative(noise_multiplier=noise_multiplier)
    positive(scale=scale)
    if scale > 1:
        raise SettingsError(
            f"scale is this run's cohort over the one it stands for, at most 1, but is {scale!r}."
        )
    name, deviation = f"gaussian({noise_multiplier:g})", noise_multiplier * scale
    source = None if simulation or not deviation else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        state, bounds = gridded(name, bounds, deviation)
        return state, bounds._replace(noise=deviation)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return rounded(state, vector)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        sigma = sigma_of(deviation, state)
        if sigma:
            # A new name, so that the sum stays as it was.
            total = total + integers(len(total), sigma, source or seeded_by(key))
        return in_units(state, total), state

    return Codec(name, init, encode, decode)


def sigma_of(deviation: float, state: Tree) -> float:
    """Return the sigma, in steps, of noise with a deviation in units of the longest vector."""
    if not deviation:
        return 0.0
    return math.sqrt((deviation * float(state["reach"])) ** 2 + ROUNDING_VARIANCE)


def integers(size: int, sigma: float, words: Words) -> Tensor:
    """Return discrete Gaussian noise, (size,), int64."""
    return torch.from_numpy(discrete_gaussian(size, sigma, words))


def seeded_by(key: int) -> Words:
    """Return words for a simulation's noise, from a stage's key."""
    return seeded(rng.mix(key ^ rng.label("noise")))
