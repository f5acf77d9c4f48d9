"""What may be known beforehand of a codec by which single vectors travel.

A codec with shared random numbers may have a twin in which each client has its own: where vectors
arrive one by one, that one serves.
"""

import functools
from typing import Any

import torch

from folkmoot.aggregators.traffic import travelled
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree

_SIZE = 4096
_LOTS = 4


def as_codec(option: str, codec: Any) -> Codec:
    """Return a codec, or refuse what is none.

    Args:
        option: What it was given as.
        codec: What was given.
    """
    if isinstance(codec, Codec):
        return codec
    if callable(codec):
        raise SettingsError(
            f"{option} must be built first, with (): such as {option}=fm.codecs.quantize(8)."
        )
    raise SettingsError(
        f"{option} must be a codec, such as fm.codecs.quantize(8), but is {codec!r}."
    )


def alone(codec: Codec) -> Codec:
    """Return the codec by which one vector travels: the twin of one that does not pack itself."""
    return codec if codec.pack or codec.own is None else codec.own


@functools.lru_cache(maxsize=64)
def laid_for(codec: Codec, size: int) -> Tree:
    """Return a codec's first state for vectors of a size; nobody writes into it."""
    state, _ = codec.init(Bounds(size=size), Layout.of({"vector": torch.zeros(size)}))
    return state


def lost(codec: Codec) -> float:
    """Return the mean squared error of a packed normal vector over its square."""
    vector = torch.randn(_SIZE, generator=torch.Generator().manual_seed(0))
    state = laid_for(codec, _SIZE)
    errors = [
        float((travelled(codec, state, vector.clone(), key)[0] - vector).square().sum())
        for key in range(_LOTS)
    ]
    return sum(errors) / len(errors) / float(vector.square().sum())


def varies(codec: Codec) -> bool:
    """Tell whether the bytes of a packed vector hang on its numbers."""
    if codec.pack is None:
        return False
    state, noise = laid_for(codec, _SIZE), torch.Generator().manual_seed(0)
    vectors = (torch.zeros(_SIZE), torch.randn(_SIZE, generator=noise))
    return len({trees.num_bytes(codec.pack(state, vector, 0)) for vector in vectors}) > 1
