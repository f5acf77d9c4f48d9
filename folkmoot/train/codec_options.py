"""Codecs as options of a run: what was given, and what may be known of it beforehand."""

from typing import Any

import torch

from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError


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


def varies(codec: Codec) -> bool:
    """Tell whether the bytes of a packed vector hang on its numbers."""
    if codec.pack is None:
        return False
    size = 4096
    flat = torch.zeros(size)
    state, _ = codec.init(Bounds(size=size), Layout.of({"x": flat}))
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return trees.num_bytes(codec.pack(state, flat, 0)) != trees.num_bytes(
        codec.pack(state, noise, 0)
    )
