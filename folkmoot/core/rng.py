"""Randomness by purpose: every (run, round, client, purpose) has a stream of its own.

All streams are counter-based: a 64-bit key and an index give a number, whoever asks, whenever, in
whatever order. Nothing here reads or changes a global generator. The mixer is splitmix64 (Steele,
Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), written once for numpy
and once for torch. Not for secrets, and not for privacy noise: those come from the operating
system.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF


def mix(value: int) -> int:
    """Return splitmix64's output for one 64-bit state."""
    value = (value + GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * MIX_2) & _MASK
    return value ^ (value >> 31)


def label(name: int | str) -> int:
    """Return 64 bits for a client id or a purpose; equal on every machine and in every process."""
    if isinstance(name, int):
        return mix(name & _MASK)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def derive(seed: int, *, round: int = 0, client: int | str | None = None, purpose: str) -> int:
    """Return the 64-bit key of (seed, round, purpose)'s stream, or of one client's in it."""
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
    state = state + np.uint64(GAMMA)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(MIX_2)
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed


def as_tensor(key: int) -> Tensor:
    """Return a key as an int64 scalar, to be carried by a batch."""
    return torch.tensor(key - (1 << 64) if key >= 1 << 63 else key)
