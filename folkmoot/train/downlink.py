"""What clients get to hear: the whole model the first time, then packed differences.

Server and clients keep one copy of what was sent so far. A round packs how far the model has moved
away from it, both add what arrives of that to their copies, and clients train from the copy. What a
packing loses is still a part of the next difference, so the copy follows the model, by a codec that
comes nearer with each step. A client that has missed rounds needs all of their differences, or the
model, whichever is less.

Gruntkowska, Tyurin, Richtárik, "EF21-P and Friends: Improved Theoretical Communication Complexity
for Distributed Optimization with Bidirectional Compression", ICML 2023, arXiv:2209.15218.
"""

from typing import NamedTuple

import torch

from folkmoot.aggregators.compressed import large, put_back, rest_bytes
from folkmoot.aggregators.links import alone, as_codec, laid_for, lost, varies
from folkmoot.aggregators.traffic import travelled
from folkmoot.core.codec import Codec
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree


class Sent(NamedTuple):
    """One broadcast."""

    held: Tree
    """What clients hold once it has arrived."""
    kept: Tree
    """What the next one begins with."""


def sent(codec: Codec, kept: Tree | None, broadcast: Tree, key: int) -> Sent:
    """Send a broadcast to clients that hold the one before.

    Args:
        codec: How differences are packed.
        kept: From the exchange's last broadcast; None for the first, which is sent whole.
        broadcast: What is to be sent.
        key: Of this round, known to all.
    """
    vector, leaves = large(broadcast)
    if kept is None:
        return Sent(broadcast, {"codec": laid_for(codec, len(vector)), "held": vector})
    if len(vector) != len(kept["held"]):
        raise SettingsError(
            f"compress_down={codec.name} sends differences, but this broadcast has {len(vector):,} "
            f"numbers and the one before had {len(kept['held']):,}: the model grows. Leave "
            "compress_down= out."
        )
    arrived, _ = travelled(codec, kept["codec"], vector - kept["held"], key)
    held = kept["held"] + arrived
    return Sent(put_back(broadcast, leaves, held), {**kept, "held": held})


def difference_bytes(codec: Codec, broadcast: Tree) -> int:
    """Return the bytes of what brings a client from one broadcast to the next."""
    vector, _ = large(broadcast)
    _, packed = travelled(codec, laid_for(codec, len(vector)), torch.zeros(len(vector)), 0)
    return (packed or 0) + rest_bytes(broadcast)


def down_codec(given: Codec | None) -> Codec | None:
    """Return the codec of broadcasts.

    Raises:
        SettingsError: If it is none, does not pack, packs to a size that nobody can foresee, or
            does not come nearer to what it packs, so that copies would run away.
    """
    if given is None:
        return None
    codec = alone(as_codec("compress_down", given))
    if codec.pack is None:
        raise SettingsError(
            f"compress_down={codec.name} packs nothing: what it sends is decoded from a sum, and a "
            "broadcast is none. Use fm.codecs.quantize(8), or fm.codecs.top_k(0.1)."
        )
    if varies(codec):
        raise SettingsError(
            f"compress_down={codec.name} packs to sizes that hang on the numbers, so nobody knows "
            "beforehand whether differences or the model are shorter. Leave the entropy coding out."
        )
    if not (share := lost(codec)) < 1:
        raise SettingsError(
            f"compress_down={codec.name} loses {share:.3g} times the square of what it packs, so "
            "copies would run away from the model. Use a codec that loses less than all: "
            "fm.codecs.quantize(8), or fm.codecs.top_k(0.1)."
        )
    return codec
