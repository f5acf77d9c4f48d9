"""Randomness by purpose: every (run, round, client, purpose) has a stream of its own.

All streams are counter-based: a 64-bit key and an index give a number, whoever asks, whenever, in
whatever order. Nothing here reads or changes a global generator. The mixer is splitmix64 (Steele,
Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), written once for numpy
and once for torch.
Not for secrets, and not for privacy noise: those come from the operating system.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF


def mix(value: int) -> int:
    """Return splitmix64's output for one 64-bit state."""
    value = (value + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def label(name: int | str) -> int:
    """Return 64 bits for a client id or a purpose; equal on every machine and in every process."""
    if isinstance(name, int):
        return mix(name & _MASK)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def derive(seed: int, *, round: int = 0, client: int | str | None = None, purpose: str) -> int:
    """Return the 64-bit key of the stream that belongs to (seed, round, purpose), or to one client
    in it."""
    key = mix(seed & _MASK)
    for part in (round & _MASK, label(purpose)):
        key = mix(key ^ part)
    return key if client is None else of_client(key, client)


def of_client(key: int, client: int | str) -> int:
    """Return one client's key of a stream that `derive` has made for all."""
    return mix(key ^ label(client))


def generator(key: int) -> np.random.Generator:
    """Return a counter-based numpy generator for a key, for draws on the server's side."""
    return np.random.Generator(np.random.Philox(key=key))


def mix_array(state: np.ndarray) -> np.ndarray:
    """Return splitmix64's output for each uint64."""
    state = state + np.uint64(_GAMMA)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))


def orders(keys: Sequence[int], sizes: Sequence[int], epoch: int) -> list[Tensor]:
    """Shuffle the examples of many clients at once: a sort of a hash of (key, epoch, index).

    Args:
        keys: One key a client.
        sizes: Examples of each client.
        epoch: Counts from 0; each epoch has its own order.

    Returns:
        One int64 permutation of `range(size)` a client; the same whether clients come alone or
        together.
    """
    hashed, owner, offset = _hashes([mix(key ^ epoch) for key in keys], sizes)
    # Sorting by (client, hash) keeps each client's rows together; a stable sort makes ties
    # harmless.
    order = np.argsort(hashed, kind="stable") if len(sizes) == 1 else np.lexsort((hashed, owner))
    return list(torch.from_numpy(order - offset).split(list(sizes)))


def step_keys(keys: Sequence[int], steps: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Return, for many clients at once, one int64 scalar for the start and one for each step."""
    counts = [count + 1 for count in steps]
    hashed, _, _ = _hashes(keys, counts)
    return [part.unbind() for part in torch.from_numpy(hashed.view(np.int64)).split(counts)]


def _hashes(
    starts: Sequence[int], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hash of (start, index) for each index of each client, its client, and where that
    one begins."""
    if len(sizes) == 1:
        index = np.arange(sizes[0], dtype=np.uint64)
        zero = np.zeros(1, dtype=np.int64)
        return mix_array(np.uint64(starts[0]) ^ index), zero, zero
    counts = np.asarray(sizes)
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(counts)), counts)
    offset = np.repeat(ends - counts, counts)
    index = (np.arange(len(owner)) - offset).astype(np.uint64)
    return mix_array(np.array(starts, dtype=np.uint64)[owner] ^ index), owner, offset


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shift right without the sign: torch has no unsigned 64-bit arithmetic."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix_tensor(state: Tensor) -> Tensor:
    """Return splitmix64's output for each int64; the same bits as `mix`, read as signed numbers."""
    state = state + _signed(_GAMMA)
    state = (state ^ _shift(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(_MIX_2)
    return state ^ _shift(state, 31)


def keep_mask(key: Tensor, call: int, shape: torch.Size, drop: float) -> Tensor:
    """Return a boolean mask that is False with probability `drop`, from a step's key alone.

    Args:
        key: The step's key, int64 [].
        call: The number of the dropout call within the step.
        shape: Shape of the mask.
        drop: Probability of False, in [0, 1].
    """
    index = torch.arange(shape.numel()).view(shape)
    bits = mix_tensor(mix_tensor(key ^ call) ^ index)
    # The top 53 bits, as an integer, against the same share of 2^53.
    return _shift(bits, 11) >= int(drop * 2.0**53)


def as_tensor(key: int) -> Tensor:
    """Return a key as an int64 scalar, to be carried by a batch."""
    return torch.tensor(_signed(key))
