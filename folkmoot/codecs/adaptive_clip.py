"""Adaptive clip: the norm follows a quantile of the clients' norms, privately.

Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with Adaptive Clipping",
NeurIPS 2021, arXiv:1905.03871. Each client also says whether its update was short enough, as one
more coordinate of the same vector: update and bit together stay in the unit ball, so one noise
hides both and one charge pays for both. With noise z on the joint vector the paper's two are
z / sqrt(1 - share) on the update and z / (2 sqrt(share)) on the sum of bits, for which
z^-2 = z_delta^-2 + (2 sigma_b)^-2 holds. The norm of this round unscales this round's sum; only
then does it change.
"""

import math

import torch
from torch import Tensor

from folkmoot.codecs.clip import GUARD, into_ball, length_of, positive_norm
from folkmoot.codecs.grid import refuse_noisy
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError, positive
from folkmoot.core.tree import Tree

_MOST = 64 * math.log(2)
"""A norm stays within 2^64 and 2^-64: updates may all become 0, and float32 has an end."""


def adaptive_clip(
    initial: float = 0.1, *, quantile: float = 0.5, rate: float = 0.2, share: float = 0.01
) -> Codec:
    """Scale each client's update into the unit ball by a norm that learns from round to round.

    What this does to the bounds: `l2` becomes 1, and `size` one more, for the bit.

    Args:
        initial: The first round's norm, in units of the parameters.
        quantile: Share of clients whose updates pass unchanged, in (0, 1), that the norm aims at.
        rate: Of its geometric steps: a round in which all updates pass, where half should, divides
            the norm by exp(rate / 2).
        share: Of the squared sensitivity that goes to the bit, in (0, 1). The default costs the
            update half a percent more noise.

    Returns:
        A linear codec. Its state holds the present norm; `bounds.expected` is the number of clients
        by which the noisy count is divided.

    Raises:
        SettingsError: If a number is out of range. At `init`: if noise stands in front.

    Source: Andrew et al., NeurIPS 2021, arXiv:1905.03871, algorithm 1.
    """
    positive_norm(initial=initial)
    positive(rate=rate)
    for what, value in {"quantile": quantile, "share": share}.items():
        if not 0 < value < 1:
            raise SettingsError(f"{what} must be above 0 and below 1, but is {value!r}.")
    name = f"adaptive_clip({initial:g})"
    update_radius, bit_radius = math.sqrt(1 - share), math.sqrt(share)

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        state = {
            "norm": torch.tensor(float(initial), dtype=torch.float64),
            "expected": torch.tensor(float(bounds.expected), dtype=torch.float64),
        }
        return state, bounds._replace(l2=1.0, size=bounds.size + 1)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        length, norm = length_of(vector), float(state["norm"])
        sent = torch.empty(len(vector) + 1, dtype=torch.float32)
        into_ball(vector, length, norm, update_radius, out=sent[:-1])
        sent[-1] = GUARD * bit_radius * (1 if length <= norm else -1)
        return sent

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        norm = float(state["norm"])
        # A sum of bits that are 1/2 or -1/2; its mean over those expected is the fraction - 1/2.
        bits = float(total[-1]) / (2 * GUARD * bit_radius)
        fraction = bits / float(state["expected"]) + 0.5
        following = math.log(norm) - rate * (fraction - quantile)
        following = math.exp(min(max(following, -_MOST), _MOST))
        update = total[:-1] * (norm / (GUARD * update_radius))
        return update, {**state, "norm": torch.tensor(following, dtype=torch.float64)}

    return Codec(name, init, encode, decode)
