"""Noise that is correlated over rounds: each round takes back a part of what others have added.

What a run shows is the sum of all rounds so far, and such sums carry less noise than with fresh
noise in each round; no lot need hide who takes part, only a distance between one client's rounds.

Tree: Kairouz et al., "Practical and Private (Deep) Learning without Sampling or Shuffling", ICML
2021, arXiv:2103.00039, without Honaker's estimator. Bands: Choquette-Choo et al., "(Amplified)
Banded Matrix Factorization", NeurIPS 2023, arXiv:2306.08153. Rounds may depend on what was released
before (Denisov et al., NeurIPS 2022, arXiv:2202.08312, theorem 2.1).

Both release a function of integers alone, W = C S + Z, with the rounds' sums S on the grid, Z
independent discrete Gaussians, and C a matrix of integers. As such W is as private as C S plus
continuous noise (docs/decisions/0013-noise-on-a-grid.md), and what is computed from it stays so.
Sums and noise are nowhere combined in floating point, which would not be a function of W.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from folkmoot.codecs.entropy import system
from folkmoot.codecs.grid import gridded, in_units, rounded
from folkmoot.codecs.noise import integers, seeded_by, sigma_of
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError, not_negative
from folkmoot.core.tree import Tree

_FRACTION_BITS = 12
"""Coefficients are multiples of 2^-12."""
_DEVIATIONS_HELD = 2.0**8
"""Past noise is kept in 32 bits if they hold so many of its deviations."""


def tree_noise(noise_multiplier: float, restart: int, *, simulation: bool = False) -> Codec:
    """Add noise such that the sum of t rounds carries that of at most log2(t) + 1 tree nodes.

    Rounds are the leaves of a binary tree; each node that is a first child has noise of its own,
    and the sum of rounds 1 to t is covered by one node for each binary digit 1 of t. A round's
    release is the difference to the sum before: its own new node, less the nodes that this one
    replaces. All are integers, as is W, the nodes' sums and noise.

    What this does to the bounds: `l2` grows by the rounding; `noise` becomes `noise_multiplier`.
    A client that takes part once in a tree is in at most log2(restart) + 1 nodes, so its privacy is
    that of Gaussian noise of `noise_multiplier / sqrt(log2(restart) + 1)`, rounded down.

    Args:
        noise_multiplier: Standard deviation of one node's noise over the largest norm of one
            client's vector, at least 0.
        restart: Rounds of one tree; the next one begins a new tree.
        simulation: Whether the noise follows from the run's seed, and hides nobody.

    Returns:
        A linear codec, to be the last of its chain. Nodes of the present tree, one vector for each
        level, are in its state under "server".

    Raises:
        SettingsError: If a number is out of range. At `init`: if a vector or weight has no bound.

    Source: Kairouz et al., ICML 2021, arXiv:2103.00039; restarts are its FTRL-TreeRestart.
    """
    not_negative(noise_multiplier=noise_multiplier)
    if isinstance(restart, bool) or not isinstance(restart, int) or restart < 1:
        raise SettingsError(f"restart must be a whole number of at least 1, but is {restart!r}.")
    name = f"tree_noise({noise_multiplier:g}, {restart})"
    source = None if simulation or not noise_multiplier else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        state, bounds = gridded(name, bounds, noise_multiplier)
        nodes = _past(restart.bit_length(), bounds.size, sigma_of(noise_multiplier, state))
        server = {"round": torch.tensor(0), "nodes": nodes}
        return {**state, "server": server}, bounds._replace(noise=noise_multiplier)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return rounded(state, vector)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        server = state["server"]
        round = int(server["round"]) % restart + 1
        fresh = integers(len(total), sigma_of(noise_multiplier, state), source or seeded_by(key))
        # The binary digits below the lowest 1 were 1s in the round before.
        level = (round & -round).bit_length() - 1
        nodes = server["nodes"].clone()
        replaced = nodes[:level].sum(0, dtype=torch.int64)
        nodes[level] = fresh
        following = {"round": torch.tensor(round), "nodes": nodes}
        return in_units(state, total + fresh - replaced), {**state, "server": following}

    return Codec(name, init, encode, decode)


def banded_noise(
    noise_multiplier: float, coefficients: Sequence[float], *, simulation: bool = False
) -> Codec:
    """Add noise Y with C Y = Z, for a lower triangular Toeplitz matrix C of few bands.

    Round t adds y_t = (z_t - c_1 y_{t-1} - c_2 y_{t-2} - ...) / c_0, so it takes back a part of
    what the rounds before have added. In integers: c_j / c_0 is cut to a_j / 2^12, z_t drawn in
    2^-12 of a step, and y_t rounded to whole steps before it is used again, y_t = floor((z_t - sum
    a_j y_{t-j}) / 2^12 + 1/2). Then the release r_t = s_t + y_t is floor((w_t - sum a_j r_{t-j}) /
    2^12 + 1/2) of w_t = 2^12 s_t + sum a_j s_{t-j} + z_t: a function of W, digit by digit. Cut
    coefficients make C no more sensitive: they are not negative, so neither is any product of two
    columns.

    What this does to the bounds: `l2` grows by the rounding; `noise` becomes `noise_multiplier`.
    One client's privacy is that of Gaussian noise of `noise_multiplier` over the sensitivity of C
    under its participations (`folkmoot.privacy.matrix`).

    Args:
        noise_multiplier: Standard deviation of Z over the largest norm of one client's vector, at
            least 0.
        coefficients: c_0, c_1, ..., the first column of C down to its last band; above 0 first,
            and none larger than the one before, without which noise could grow without end.
        simulation: Whether the noise follows from the run's seed, and hides nobody.

    Returns:
        A linear codec, to be the last of its chain. The last rounds' Y, one vector less than there
        are bands, are in its state under "server".

    Raises:
        SettingsError: If a number is out of range. At `init`: if a vector or weight has no bound.

    Source: Choquette-Choo et al., NeurIPS 2023, arXiv:2306.08153.
    """
    not_negative(noise_multiplier=noise_multiplier)
    bands = _falling(coefficients)
    unit = 1 << _FRACTION_BITS
    shares = [math.floor(one / bands[0] * unit) for one in bands[1:]]
    deviation = noise_multiplier / bands[0]
    name = f"banded_noise({noise_multiplier:g}, {len(bands)} bands)"
    source = None if simulation or not noise_multiplier else system()

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        state, bounds = gridded(name, bounds, deviation)
        past = _past(len(shares), bounds.size, sigma_of(deviation, state))
        return {**state, "server": {"past": past}}, bounds._replace(noise=noise_multiplier)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return rounded(state, vector)

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        sigma = sigma_of(deviation * unit, state)
        noise = integers(len(total), sigma, source or seeded_by(key))
        past = state["server"]["past"]
        for share, before in zip(shares, past, strict=True):
            noise.sub_(before, alpha=share)
        # A shift rounds down, also below 0.
        noise = noise.add_(unit // 2).bitwise_right_shift_(_FRACTION_BITS)
        following = torch.cat([noise[None].to(past.dtype), past])[: len(shares)]
        return in_units(state, total + noise), {**state, "server": {"past": following}}

    return Codec(name, init, encode, decode)


def _past(count: int, size: int, sigma: float) -> Tensor:
    """Return room for past noise: (count, size), zeros."""
    held = torch.int32 if sigma * _DEVIATIONS_HELD < 2.0**31 else torch.int64
    return torch.zeros(count, size, dtype=held)


def _falling(coefficients: Sequence[float]) -> list[float]:
    """Return a column of a matrix, or refuse it."""
    found = [float(one) for one in coefficients]
    if not found or not 0 < found[0] < math.inf:
        raise SettingsError(
            "coefficients must begin with a finite number above 0, but are "
            f"{found[:4]}. Take those of fm.privacy.matrix."
        )
    for index, (before, after) in enumerate(itertools.pairwise(found), 1):
        if not 0 <= after <= before:
            raise SettingsError(
                f"coefficients must not be negative and not rise, but number {index} is {after:g} "
                f"after {before:g}."
            )
    return found
