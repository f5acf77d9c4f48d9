"""The field: vectors as whole numbers modulo 2^16 or 2^32, whose sums a secure protocol can take.

A masked number says nothing, also not that it is too large, so whatever may enter a sum must fit
before it is masked. Range and head-room come from the bounds of the chain: nobody sets a modulus,
a scale or a clipping range, and a sum that could wrap around is refused before the first round.

Rounding is stochastic, so that sums are unbiased. It can lengthen a vector, by sqrt(d) steps at
worst and far less in general; under noise the draw is repeated until the vector is no longer than a
bound that nearly all draws keep to (Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian
Mechanism for Federated Learning with Secure Aggregation", ICML 2021, arXiv:2102.06387, proposition
22), and that bound is what noise is made for.
"""

import math

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.entropy import Words, seeded
from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.noise import ROUNDING_VARIANCE
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree

DTYPES = {16: torch.int16, 32: torch.int32}
FAR = 13.0
"""Deviations of noise that a sum has room for: more comes with a chance below 2^-120."""
_LOG_CHANCE = 0.5
"""log(1 / beta): a draw is repeated with a chance below exp(-1/2)."""
_DRAWS = 64
_FINEST = 2.0**30
"""Steps of a unit, where nothing else limits them: far below what float32 tells apart."""
_HIDDEN_SHARE = 0.01
"""Rounding adds at most so much to the variance of noise before 32 bits are taken."""
_GROWTH = 0.04
"""Share by which rounding may lengthen what noise must hide before 32 bits are taken."""
_CHUNK = 1 << 14
_HALVINGS = 64


def to_field(
    *,
    range: float | None = None,
    bits: int | None = None,
    noise: float = 0.0,
    clients: int | None = None,
    counted: bool = True,
) -> Codec:
    """Round each client's vector to whole numbers that add up modulo 2^bits.

    What this does to the bounds: they are in steps behind it. `l2` becomes the longest rounded
    vector; `size` grows by one where cut numbers are counted, and their number is in `l2` too.

    Args:
        range: Largest absolute coordinate, in units of what reaches this stage, above 0; numbers
            beyond are cut, NaN to 0, and the sum tells how many. None follows from the bounds in
            front: no coordinate is longer than its vector, and rotated ones are far shorter.
        bits: 16 or 32; None is 32 without noise, and with noise 16 wherever rounding adds at most
            a hundredth to its variance and 4 % to what it must hide.
        noise: Largest standard deviation that noise in the sum may have, in units of `l2`; room is
            left for it, and the length of rounded vectors is held to a bound.
        clients: Most vectors in a sum, where each round asks for so many; None is what the bounds
            say.
        counted: Whether numbers that were cut are counted, in one coordinate more. Under noise
            they never are: a count would have to be hidden as well.

    Returns:
        A linear codec whose encoded vectors are int16 or int32 and add up with wrap-around. Its
        state tells under "cut" how many numbers of the last sum were beyond the range.

    Raises:
        SettingsError: If `range` is not above 0, or `bits` not 16 or 32. At `init`: if nothing
            bounds the vectors, or no step is small enough.

    Source: Bonawitz et al., CCS 2017, for the sum; Kairouz et al., ICML 2021, for the rounding.
    """
    not_negative(noise=noise)
    if range is not None:
        positive(range=range)
    if bits not in (None, *DTYPES):
        raise SettingsError(f"bits must be 16 or 32, or None to have them chosen, but is {bits!r}.")
    counts = counted and not noise

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy("to_field", bounds)
        bounds = bounds._replace(clients=clients or bounds.clients)
        largest = min(bounds.largest, bounds.l2) if range is None else range
        _refuse_unbounded(bounds, largest, noise)
        return _laid_out(bounds, largest, bits, noise, counts)

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        most = int(state["counted"])
        sent = torch.empty(len(vector) + bool(most), dtype=state["zero"].dtype)
        cut = _rounded_into(sent[: len(vector)], vector, state, key)
        if most:
            sent[-1] = min(cut, most)
        return sent

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        if int(state["counted"]):
            state = {**state, "cut": torch.tensor(int(total[-1]))}
            total = total[:-1]
        return (total.double() / state["scale"]).float(), state

    return Codec("to_field", init, encode, decode)


def _laid_out(
    bounds: Bounds, largest: float, bits: int | None, noise: float, counts: bool
) -> tuple[Tree, Bounds]:
    """Choose bits, unless they are given, and steps; return the state and the bounds in steps."""
    if bits is None:
        bits = 16 if noise and _is_enough(bounds, largest, noise, 16) else 32
    steps = _steps(bounds, largest, noise, bits)
    reach = reach_of(bounds.l2 * steps, bounds.size) if noise else math.inf
    most = _most_counted(bounds.clients, bits) if counts else 0
    state = {
        "scale": torch.tensor(steps, dtype=torch.float64),
        "range": torch.tensor(largest, dtype=torch.float64),
        "reach": torch.tensor(reach, dtype=torch.float64),
        "cut": torch.tensor(0),
        "zero": torch.zeros((), dtype=DTYPES[bits]),
        "counted": torch.tensor(most),
    }
    more = min(most, bounds.size)
    length = reach if noise else bounds.l2 * steps + math.sqrt(bounds.size)
    return state, bounds._replace(
        l2=math.hypot(length, more),
        largest=max(largest * steps + 1, more),
        size=bounds.size + counts,
    )


def reach_of(length: float, size: int, log_chance: float = _LOG_CHANCE) -> float:
    """Return the length that a stochastically rounded vector has at most, but for a small chance.

    Args:
        length: Of the vector, in steps.
        size: Its coordinates.
        log_chance: Natural logarithm of one over the chance that it is longer.

    Source: Kairouz et al., ICML 2021, arXiv:2102.06387, proposition 22.
    """
    root = math.sqrt(size)
    likely = math.sqrt(length**2 + size / 4 + math.sqrt(2 * log_chance) * (length + root / 2))
    return min(likely, length + root)


def _refuse_unbounded(bounds: Bounds, largest: float, noise: float) -> None:
    if not math.isfinite(largest) or (noise and not math.isfinite(bounds.l2)):
        raise SettingsError(
            "to_field must know how large a number can be, but nothing bounds the vectors. Put a "
            "clip in front of it: fm.chain(fm.codecs.clip(1.0), fm.codecs.to_field()), or state "
            "range=."
        )
    if bounds.weight != 1:
        raise SettingsError(
            f"to_field adds vectors, but here one may count up to {bounds.weight:g} times. Use a "
            "rule in which all count the same, such as fm.aggregators.uniform_mean(...), or "
            "fm.run(..., secure=True), which bounds weights."
        )


def _steps(bounds: Bounds, largest: float, noise: float, bits: int) -> float:
    """Return the steps of a unit, the most with which no sum can wrap around.

    Raises:
        SettingsError: If not even the largest number would be one step.
    """
    # A coordinate is rounded up by at most one step in each vector.
    room = 2.0 ** (bits - 1) - 1 - bounds.clients
    steps, low = room / (bounds.clients * largest), 0.0
    if noise:
        # Noise is made for rounded vectors, whose length is no multiple of the steps: bisect.
        for _ in range(_HALVINGS):
            middle = (low + steps) / 2
            needed = bounds.clients * largest * middle + FAR * _loudest(bounds, noise, middle)
            low, steps = (middle, steps) if needed <= room else (low, middle)
        steps = low
    if steps * largest < 1:
        raise SettingsError(
            f"{bounds.clients} vectors with coordinates of up to {largest:g} each do not fit into "
            f"{bits} bits: their sum could wrap around. "
            + ("Take bits=32." if bits == 16 else "Ask fewer clients.")
        )
    return min(steps, _FINEST / largest)


def _loudest(bounds: Bounds, noise: float, steps: float) -> float:
    """Return the largest deviation of noise in a sum, with what makes its shares add up."""
    own = noise * reach_of(bounds.l2 * steps, bounds.size)
    return math.hypot(own, math.sqrt(ROUNDING_VARIANCE * bounds.clients))


def _is_enough(bounds: Bounds, largest: float, noise: float, bits: int) -> bool:
    """Tell whether these bits cost next to nothing beside the noise."""
    try:
        steps = _steps(bounds, largest, noise, bits)
    except SettingsError:
        return False
    length = bounds.l2 * steps
    grown = reach_of(length, bounds.size) / length - 1
    return grown <= _GROWTH and bounds.clients / 4 <= _HIDDEN_SHARE * (noise * length) ** 2


def _most_counted(clients: int, bits: int) -> int:
    """Return how many cut numbers one client tells of, so that their sum does not wrap around."""
    return max(1, ((1 << bits - 1) - 1) // max(clients, 1))


def _rounded_into(out: Tensor, vector: Tensor, state: Tree, key: int) -> int:
    """Round a vector in float64, and return how many of its numbers were cut."""
    steps, reach = float(state["scale"]), float(state["reach"])
    most = float(state["range"])
    longest = float(vector.abs().max()) if len(vector) else 0.0
    cut = 0
    # Where none is beyond the range, and none is NaN, there is nothing to cut.
    if not longest <= most:
        inside = vector.double().clamp_(-most, most)
        cut = int((inside != vector).sum())
        vector = inside.nan_to_num_(nan=0.0)
    for draw in range(_DRAWS):
        words = seeded(rng.mix(key ^ rng.label(f"field {draw}")))
        square = _rounded_by_lot(out.numpy(), vector.numpy(), steps, words, reach != math.inf)
        if square <= reach**2:
            return cut
    # So many draws fail with a chance below 10^-13. Rounding towards 0 lengthens nothing.
    whole = vector.double() * steps
    length = float(torch.linalg.vector_norm(whole))
    out.copy_((whole * min(1.0, reach / length) if length else whole).trunc_())
    return cut


def _rounded_by_lot(
    out: np.ndarray, vector: np.ndarray, steps: float, words: Words, measured: bool
) -> float:
    """Round a vector in steps, up with a chance of what is beyond the step below.

    The chance is met to 2^-16. Pieces stay in a core's own cache.

    Returns:
        The squared length of what was written, if it is to be measured; else 0.
    """
    square = 0.0
    scaled, lots = np.empty(_CHUNK), np.empty(_CHUNK)
    for begin in range(0, len(vector), _CHUNK):
        given = vector[begin : begin + _CHUNK]
        part, lot = scaled[: len(given)], lots[: len(given)]
        np.multiply(given, steps, out=part, dtype=np.float64)
        drawn = words(len(given) // 2 + 1).view(np.uint16)[: len(given)]
        np.multiply(drawn, 2.0**-16, out=lot, dtype=np.float64)
        part += lot
        np.floor(part, out=part)
        if measured:
            square += float(np.dot(part, part))
        out[begin : begin + _CHUNK] = part
    return square
