"""Sparsify: send few of the numbers, the largest ones or random ones.

Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, arXiv:1809.07599; Konecny et
al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016,
arXiv:1610.05492, section 3 (random masks). Kept numbers are float32; a stage behind may pack them
further, as in `chain(top_k(0.01), quantize(8))`.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.lossy import lossy
from folkmoot.codecs.places import largest, read, scattered, written
from folkmoot.codecs.quantize import whole_number
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.core.tree import Tree


def top_k(share: float | None = None, *, count: int | None = None) -> Codec:
    """Keep the numbers with the largest absolute values, exactly so many; the rest become 0.

    Biased: what is small each time never arrives, so use it within `feedback(work, codec)`. NMSE is
    at most 1 - k / d for k of d numbers, and the least that k numbers allow. Of equal absolute
    values the first ones are kept. 32 bits for each kept number, and about 2 + log2(d / k) for its
    place. Places tell which numbers were large: whoever sees a client's message sees that, and no
    noise in the sum hides it from them. Infinite numbers are kept.

    What this does to the bounds: nothing; `l2` holds.

    Args:
        share: k / d, above 0 and at most 1, rounded to whole numbers, at least one.
        count: k itself, in place of a share; where there are fewer numbers all are kept.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: If not one of both is given and in range. At `init`: if noise stands in
            front. At `pack`, ClientError: if a number is NaN, which has no size.

    Source: Stich et al., NeurIPS 2018, arXiv:1809.07599, definition 2.1.
    """
    _refuse_other(share, count)
    name = f"top_k({f'count={count}' if share is None else f'{share:g}'})"

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        return _state(bounds.size, share, count), bounds

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        absolute = vector.abs()
        if len(vector) and bool(absolute.amax().isnan()):
            raise ClientError(f"{name} was given NaN, which is neither large nor small.")
        places = largest(absolute.numpy(), int(state["count"]))
        kept = vector[torch.from_numpy(places)]
        return {"vector": kept, **written(places, len(vector))}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        size, number = int(state["size"]), int(state["count"])
        return scattered(message["vector"], read(message, size, number), size)

    return lossy(name, init, pack, unpack)


def random_k(share: float | None = None, *, count: int | None = None) -> Codec:
    """Keep random numbers, exactly so many, and make up for the rest by a factor.

    Unbiased; NMSE is d / k - 1 in the mean, for k of d numbers. Places follow from a seed and cost
    nothing: 32 bits for each kept number. What is left out is not looked at, NaN neither. All
    clients of a round keep the same ones, so their short vectors can be added, also in a secure
    sum; in front of a stage that packs vectors each client keeps others.

    What this does to the bounds: `size` becomes k, and `l2` holds, for the factor comes behind the
    sum. In front of a stage that packs, `l2` and `largest` grow by d / k.

    Args:
        share: k / d, above 0 and at most 1, rounded to whole numbers, at least one.
        count: k itself, in place of a share; where there are fewer numbers all are kept.

    Returns:
        A linear codec. Its state counts the rounds, from which the places follow; they are public.

    Raises:
        SettingsError: If not one of both is given and in range. At `init`: if noise stands in
            front.

    Source: Konecny et al., 2016, arXiv:1610.05492, section 3; Stich et al., definition 2.1.
    """
    _refuse_other(share, count)
    name = f"random_k({f'count={count}' if share is None else f'{share:g}'})"

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        state = _state(bounds.size, share, count)
        return {**state, "turn": torch.tensor(0)}, bounds._replace(size=int(state["count"]))

    def encode(state: Tree, vector: Tensor, key: int) -> Tensor:
        return vector[torch.from_numpy(places_of(state, int(state["turn"])))]

    def decode(state: Tree, total: Tensor, key: int) -> tuple[Tensor, Tree]:
        turn = int(state["turn"])
        found = scattered(total.float(), places_of(state, turn), int(state["size"]))
        return found.mul_(_factor(state)), {**state, "turn": torch.tensor(turn + 1)}

    return Codec(name, init, encode, decode, own=_own(name, share, count))


def _own(name: str, share: float | None, count: int | None) -> Codec:
    """Build the stage whose places follow from the client's key."""

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy(name, bounds)
        state = _state(bounds.size, share, count)
        grown = _factor(state) * (1 + 2.0**-20)
        l2, most = bounds.l2 * grown, bounds.largest * grown
        return state, bounds._replace(l2=l2, largest=most)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        kept = vector[torch.from_numpy(places_of(state, key))]
        return {"vector": kept.mul_(_factor(state))}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        return scattered(message["vector"], places_of(state, key), int(state["size"]))

    return lossy(name, init, pack, unpack)


def places_of(state: Tree, turn: int) -> np.ndarray:
    """Return the places of a turn or key, ascending, which nobody may write to."""
    return _drawn(turn, int(state["size"]), int(state["count"]))


@functools.lru_cache(maxsize=2)
def _drawn(turn: int, size: int, count: int) -> np.ndarray:
    key = rng.derive(turn, purpose="random_k")
    words = rng.mix_array(np.arange(-(-size // 2), dtype=np.uint64) ^ np.uint64(key))
    return largest(words.view(np.uint32)[:size], count)


def _factor(state: Tree) -> float:
    return int(state["size"]) / max(int(state["count"]), 1)


def _state(size: int, share: float | None, count: int | None) -> Tree:
    wanted = count if share is None else max(round(share * size), 1)
    return {"size": torch.tensor(size), "count": torch.tensor(min(wanted or 0, size))}


def _refuse_other(share: float | None, count: int | None) -> None:
    if (share is None) == (count is None):
        raise SettingsError(
            f"Say how many numbers are kept by a share or by count=, one of both; found share "
            f"{share!r} and count {count!r}."
        )
    if count is not None:
        whole_number(None, count=count)
    if share is not None and not 0 < share <= 1:
        raise SettingsError(
            f"share must be above 0 and at most 1, but is {share!r}. A number to keep is count=."
        )
