"""How fast codecs are, beside a plain copy, and what they do to a Gaussian vector.

One thread, processor time. Packing and unpacking have keys of their own each time, as on two
machines: neither finds the other's random numbers made. Copies of the vector take turns with them,
and a figure is a median.
"""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch
from torch import Tensor

from folkmoot import codecs
from folkmoot.cli.bench.machine import moment, others
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Codec, Layout, chain
from folkmoot.core.tree import Tree
from folkmoot.engines.worker import keep_freed_memory

_NUMBERS, _QUICK_NUMBERS = 1 << 20, 1 << 12
_TIMES = 15
_PLAIN_BAR, _ROTATED_BAR = 0.5, 0.3


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    codec: Codec
    bar: float | None = None
    """Least GB/s of float32 for encoding and decoding together; None where none is stated."""


def _rotated(bits: int) -> Codec:
    return chain(codecs.rotate(), codecs.quantize(bits))


LINES = [
    Line(codecs.bf16()),
    Line(codecs.fp16()),
    *(Line(codecs.quantize(bits), _PLAIN_BAR) for bits in (8, 4, 2, 1)),
    Line(codecs.qsgd(16)),
    Line(codecs.ternary()),
    Line(chain(codecs.ternary(), codecs.entropy_coded())),
    Line(codecs.natural()),
    Line(codecs.sign()),
    *(Line(codecs.top_k(share), _PLAIN_BAR) for share in (0.01, 0.1)),
    Line(chain(codecs.top_k(0.01), codecs.quantize(8)), _PLAIN_BAR),
    Line(codecs.random_k(0.01)),
    Line(codecs.count_sketch(1 << 14)),
    Line(codecs.rotate()),
    *(Line(codecs.eden(bits), _ROTATED_BAR) for bits in (1, 2, 4)),
    *(Line(_rotated(bits), _ROTATED_BAR) for bits in (1, 2, 4)),
]


def measured(quick: bool = False, tell: Callable[[str], None] = lambda line: None) -> Tree:
    """Measure all codecs and return their figures, as plain JSON.

    Args:
        quick: A short vector, once, to see that it works.
        tell: Is given a line when a codec is done.
    """
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for line in LINES:
        size, times = (_QUICK_NUMBERS, 1) if quick else (_NUMBERS, _TIMES)
        found[line.codec.name] = figures(line, size, times)
        tell(f"{line.codec.name}: {found[line.codec.name]['both_gb_s']:.2f} GB/s")
    torch.set_num_threads(threads)
    return found


def figures(line: Line, size: int, times: int) -> dict[str, Any]:
    """Return what one codec takes, and what it makes of a vector."""
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0))
    codec, layout = line.codec, Layout.of({"w": vector})
    state, _ = codec.init(Bounds(weight=1.0, size=size), layout)
    before = moment()
    sent, arrived = _there_and_back(codec, state, vector, 0, 0)
    taken = [_seconds(codec, state, vector, turn) for turn in range(1, times + 2)][1:]
    encode, decode, copy = (statistics.median(part) for part in zip(*taken, strict=True))
    ratio = statistics.median((one + two) / plain for one, two, plain in taken)
    size_bytes = vector.numel() * vector.element_size()
    both = size_bytes / (encode + decode) / 1e9
    return {
        "bits": 8 * trees.num_bytes(sent) / size,
        "nmse": float((arrived - vector).square().sum() / vector.square().sum()),
        "encode_gb_s": size_bytes / encode / 1e9,
        "decode_gb_s": size_bytes / decode / 1e9,
        "both_gb_s": both,
        "by_copy": ratio,
        "copy_gb_s": size_bytes / copy / 1e9,
        "bar": line.bar,
        "holds": None if line.bar is None else both >= line.bar,
        "numbers": size,
        "others_cores": others(before, moment()),
    }


def _seconds(codec: Codec, state: Tree, vector: Tensor, turn: int) -> tuple[float, float, float]:
    """Return the seconds of packing, of unpacking by another key, and of a copy."""
    there, back, given = _at_turn(state, 2 * turn), _at_turn(state, 2 * turn + 1), vector.clone()
    plain = torch.empty_like(vector)
    plain.copy_(vector)
    times = [process_time()]
    sent = _sent(codec, there, given, rng.mix(2 * turn))
    times.append(process_time())
    _arrived(codec, back, sent, rng.mix(2 * turn + 1))
    times.append(process_time())
    plain.copy_(vector)
    times.append(process_time())
    packing, unpacking, copying = (b - a for a, b in itertools.pairwise(times))
    return packing, unpacking, copying


def _there_and_back(
    codec: Codec, state: Tree, vector: Tensor, turn: int, key: int
) -> tuple[Tree, Tensor]:
    sent = _sent(codec, _at_turn(state, turn), vector.clone(), key)
    return sent, _arrived(codec, _at_turn(state, turn), sent, key)


def _sent(codec: Codec, state: Tree, vector: Tensor, key: int) -> Tree:
    if codec.pack is None:
        return {"vector": codec.encode(state, vector, key)}
    return codec.pack(state, vector, key)


def _arrived(codec: Codec, state: Tree, sent: Tree, key: int) -> Tensor:
    if codec.unpack is None:
        return codec.decode(state, sent["vector"], key)[0]
    return codec.decode(state, codec.unpack(state, sent, key), key)[0]


def _at_turn(state: Tree, turn: int) -> Tree:
    """Return a state in which stages that go by turn are at one."""
    if "turn" not in state:
        return state
    return {**state, "turn": torch.tensor(turn)}
