"""Noise at each client: nobody else need be trusted, and nothing that leaves one is bare.

Warner, "Randomized Response", JASA 1965; Kasiviswanathan et al., "What Can We Learn Privately?",
SIAM Journal on Computing 2011. Here any two updates are neighbours: each answer by itself hides
which one its client has. So many noises add up that only large cohorts learn through them.
"""

import math

import torch
from torch import Tensor

from folkmoot.codecs.clip import GUARD, in_range, is_ordinary, positive_norm
from folkmoot.codecs.discrete_laplace import discrete_laplace
from folkmoot.codecs.entropy import system
from folkmoot.codecs.grid import (
    gridded,
    in_units,
    refuse_unbounded,
    rounded,
)
from folkmoot.codecs.noise import integers, seeded_by, sigma_of
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import not_negative, positive
from folkmoot.core.tree import Tree

_FAR_GAUSSIAN = 14.0
_FAR_LAPLACE = 128 * math.log(2)
"""Deviations, or scales, that no draw passes."""


def local_gaussian(noise_multiplier: float, *, simulation: bool = False) -> Codec:
    """Add Gaussian noise to each client's vector, on the client.

    What this does to the bounds: `l2` grows by the rounding to a grid, and bounds what is hidden,
    not what is sent; `noise` becomes `noise_multiplier`, of each client's own noise.

    Args:
        noise_multiplier: Standard deviation of each client's noise in each coordinate, over the
            largest norm of one vector; at least 0. Two vectors may be twice that norm apart, so
            one answer is as private as Gaussian noise of half the multiplier.
        simulation: Whether the noise follows from the run's seed, and hides nobody.

    Returns:
        A linear codec, to be the last of its chain, whose encoded vectors are integers.

    Raises:
        SettingsError: If a number is out of range. At `init`: if a vector or weight has no bound.

    Source: Duchi, Jordan, Wainwright, "Local Privacy and Statistical Minimax Rates", FOCS 2013,
    for the model; the noise is that of `gaussian`.
    """
    not_negative(noise_multiplier=noise_multiplier)
    name = f"local_gaussian({noise_multiplier:g})"
    source = None if simulation or not noise_multiplier else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        far = _FAR_GAUSSIAN * noise_multiplier
        state, bounds = gridded(name, bounds, noise_multiplier, own=far)
        return state, bounds._replace(noise=noise_multiplier)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        steps, sigma = rounded(state, vector), sigma_of(noise_multiplier, state)
        if not sigma:
            return steps
        return steps.add_(integers(len(steps), sigma, source or seeded_by(key)).to(steps.dtype))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return in_units(state, total), state

    return Codec(name, init, encode, decode)


def local_laplace(noise_multiplier: float, norm: float, *, simulation: bool = False) -> Codec:
    """Clip each client's vector in L1 norm and add Laplace noise, on the client.

    Pure differential privacy: one answer hides which of any two updates its client has to within
    epsilon = 2 / noise_multiplier, with no delta; discrete noise gives exactly that on a grid.

    What this does to the bounds: `l2` becomes 1, since an L1 ball lies within the L2 ball, plus the
    rounding; `noise` becomes the standard deviation, sqrt(2) * `noise_multiplier`.

    Args:
        noise_multiplier: Scale of the noise over the largest L1 norm of one vector; at least 0.
        norm: Largest L1 norm that passes unchanged, in units of the parameters, above 0.
        simulation: Whether the noise follows from the run's seed, and hides nobody.

    Returns:
        A linear codec, to be the last of its chain, whose encoded vectors are integers.

    Raises:
        SettingsError: If a number is out of range. At `init`: if a weight has no bound.

    Source: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity", TCC 2006.
    """
    not_negative(noise_multiplier=noise_multiplier)
    positive_norm(norm=norm)
    name = f"local_laplace({noise_multiplier:g}, {norm:g})"
    deviation = math.sqrt(2) * noise_multiplier
    source = None if simulation or not noise_multiplier else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        far = _FAR_LAPLACE * noise_multiplier
        state, after = gridded(name, bounds._replace(l2=1.0), deviation, own=far, norm=1)
        return state, after._replace(noise=deviation)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        steps = rounded(state, _in_l1_ball(vector, norm))
        scale = noise_multiplier * float(state["reach"])
        if not scale:
            return steps
        noise = discrete_laplace(len(steps), scale, source or seeded_by(key))
        return steps.add_(torch.from_numpy(noise).to(steps.dtype))

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return in_units(state, total).mul_(norm / GUARD), state

    return Codec(name, init, encode, decode)


def randomized_response(epsilon: float, *, simulation: bool = False) -> Codec:
    """Send the sign of one coordinate, drawn by lot, and turn it over by chance.

    For a vector of one coordinate this is Warner's question with a yes or a no. Of x, no longer
    than a bound, coordinate j is drawn, each alike; +1 goes out at j with probability
    1/2 + tanh(epsilon / 2) x_j / (2 bound), else -1. A chance of at most
    e^epsilon / (1 + e^epsilon) makes that pure differential privacy, with no delta. The decoded sum
    is unbiased; each answer has a standard deviation of at most
    sqrt(size) bound / tanh(epsilon / 2) in each coordinate, so it is for short vectors.

    What this does to the bounds: `l2` becomes 1, of what is sent; `noise` the deviation of one
    decoded answer, in units of the bound in front.

    Args:
        epsilon: Of one answer, above 0, for any two vectors that a client may have.
        simulation: Whether the lots follow from the run's seed, and hide nobody.

    Returns:
        A linear codec, to be the last of its chain, whose encoded vectors are integers.

    Raises:
        SettingsError: If epsilon is out of range. At `init`: if a vector or weight has no bound.

    Source: Warner, JASA 1965; Duchi, Jordan, Wainwright, "Minimax Optimal Procedures for Locally
    Private Estimation", JASA 2018, with a coordinate in place of a direction.
    """
    positive(epsilon=epsilon)
    name = f"randomized_response({epsilon:g})"
    gain = math.tanh(epsilon / 2) * GUARD
    source = None if simulation else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_unbounded(name, bounds)
        state = {
            "steps": torch.tensor(1, dtype=torch.int32),
            "bound": torch.tensor(bounds.l2, dtype=torch.float64),
        }
        return state, bounds._replace(l2=1.0, noise=math.sqrt(max(bounds.size, 1)) / gain)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        sent = torch.zeros(len(vector), dtype=torch.int32)
        if len(vector):
            place, coin = (source or seeded_by(key))(4).view("uint64").tolist()
            place = place * len(vector) >> 64
            chance = 0.5 + gain * float(vector[place]) / float(state["bound"]) / 2
            sent[place] = 1 if coin < chance * 2.0**64 else -1
        return sent

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        return total * (len(total) * float(state["bound"]) / gain), state

    return Codec(name, init, encode, decode)


def _in_l1_ball(vector: Tensor, norm: float) -> Tensor:
    """Return a vector over a norm, shorter where its L1 norm would pass 1, which is guarded."""
    length = float(vector.abs().sum(dtype=torch.float64))
    if not is_ordinary(length):
        vector = in_range(vector)
        length = float(vector.abs().sum())
    return (vector * (GUARD / max(length, norm))).float()
