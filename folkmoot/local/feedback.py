"""Memory of what compression has lost: what a biased codec leaves out comes later.

Two ways. `feedback` keeps a residual (Seide et al., "1-bit stochastic gradient descent",
Interspeech 2014; Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", ICML 2019, arXiv:1901.09847): what was lost is added to the next update. Its update stands
for itself, so it rides under any algorithm and any cohort. `differences` is the client's half of
EF21 (Richtarik, Sokolov, Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically
Faster Error Feedback", NeurIPS 2021, arXiv:2106.05203): a client sends how its update differs from
what the server last knew of it, and the server must add that up, as `fm.ef21` does.

A client's memory stays with it. One that is seldom asked remembers what is long out of date: with
many clients and small cohorts, unbiased codecs such as `eden` do better without any memory.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from folkmoot.aggregators.compressed import large, put_back, rest_bytes
from folkmoot.aggregators.links import alone, laid_for, lost
from folkmoot.aggregators.traffic import travelled
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import LocalWork, Seen
from folkmoot.core.codec import Codec
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.composed import own_of, refuse_no_work
from folkmoot.local.parts import apart, but

_KEY, _KEPT = "packing", "unsent"
_NO_KEY = torch.zeros((), dtype=torch.int64)


def feedback(work: LocalWork, codec: Codec) -> LocalWork:
    """Compress each update, and add to the next one what that has lost.

    Single numbers and statistics of layers travel as they are, and lose nothing.

    Args:
        work: Any work, such as `local.sgd(...)`.
        codec: One that packs and is contractive, such as `fm.codecs.top_k(0.01)` or `sign()`. An
            unbiased one needs no memory: pass it to `fm.run(..., compress=)`.

    Returns:
        Work whose clients keep a residual of the update's size, and whose updates know their bytes.
        The clients of a vectorized engine cannot pack; it refuses the work.

    Raises:
        SettingsError: If the codec does not pack, or loses more than all of what it packs.
    """

    def sent(vector: Tensor, kept: Tensor, key: int) -> tuple[Tensor, Tensor, int]:
        whole = vector + kept
        arrived, packed_bytes = travelled(link, laid_for(link, len(whole)), whole.clone(), key)
        return arrived, whole - arrived, packed_bytes or 0

    link = _contractive("feedback", work, codec)
    return _remembering(work, sent)


def differences(work: LocalWork, codec: Codec) -> LocalWork:
    """Send how each update differs from what the server last knew of it, compressed.

    For an algorithm that adds up what it receives; the mean of updates is then the sum of the means
    of all differences so far.

    Args:
        work, codec: As for `feedback`.

    Raises:
        SettingsError: As `feedback`.
    """

    def sent(vector: Tensor, kept: Tensor, key: int) -> tuple[Tensor, Tensor, int]:
        new = vector - kept
        arrived, packed_bytes = travelled(link, laid_for(link, len(new)), new.clone(), key)
        return arrived, kept + arrived, packed_bytes or 0

    link = _contractive("ef21", work, codec)
    return _remembering(work, sent)


def _remembering(
    work: LocalWork, sent: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, int]]
) -> LocalWork:
    """Put a memory around a work: `sent(vector, kept, key)` -> what arrives, is kept, and bytes."""

    def own(given: Tree) -> Tree:
        inner = own_of(work, given)
        if _KEPT in inner:
            raise SettingsError(
                f"The work {work.name!r} has a memory of what compression loses already, and packs "
                "its updates. Leave one feedback() out; fm.ef21 is one itself."
            )
        begun, _ = work.finish(given, work.start(given, inner, _NO_KEY), Seen(1, 1))
        return {**inner, _KEPT: torch.zeros_like(large(begun.value)[0])}

    def start(given: Tree, own: Tree, key: Tensor) -> Tree:
        inner, kept = apart(own, _KEPT)
        return {**work.start(given, inner, key), _KEPT: kept, _KEY: key}

    def finish(given: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        key, kept = carry[_KEY], carry[_KEPT]
        carry = but(but(carry, _KEY), _KEPT)
        update, own = work.finish(given, carry, seen)
        vector, leaves = large(update.value)
        if not math.isfinite(vector.sum()):
            # It is left out as it is: a codec could make finite numbers of it.
            return update, {**own, _KEPT: kept}
        arrived, kept, packed_bytes = sent(vector, kept, int(key) % 2**64)
        value = put_back(update.value, leaves, arrived)
        packed_bytes += rest_bytes(update.value)
        return update._replace(value=value, packed_bytes=packed_bytes), {**own, _KEPT: kept}

    return work.changed(own=own, start=start, finish=finish)


def _contractive(verb: str, work: LocalWork, codec: Codec) -> Codec:
    """Return a codec in which each client has its own random numbers, or refuse it."""
    refuse_no_work(verb, work)
    if not isinstance(codec, Codec):
        raise SettingsError(
            f"{verb}() needs a codec, such as fm.codecs.top_k(0.01), but was given {codec!r}."
        )
    link = alone(codec)
    if link.pack is None:
        raise SettingsError(
            f"{codec.name} packs nothing that a client could compare with its update. Use a codec "
            f"such as fm.codecs.top_k(0.01), or pass it to fm.run(..., compress=)."
        )
    if not (share := lost(link)) < 1:
        raise SettingsError(
            f"{codec.name} loses {share:.3g} times the square of what it packs, so what {verb}() "
            "remembers would grow without end. Use a codec that comes nearer: fm.codecs.top_k(), "
            "sign(), or quantize() of more bits."
        )
    return link
