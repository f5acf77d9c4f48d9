"""Orders and keys for a whole block of clients at once: hashes of (key, index), sorted."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from folkmoot.core.rng import mix, mix_array


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
    # Sorting by (client, hash) keeps each client's rows together; stable, so ties do no harm.
    order = np.argsort(hashed, kind="stable") if len(sizes) == 1 else np.lexsort((hashed, owner))
    return list(torch.split_with_sizes(torch.from_numpy(order - offset), list(sizes)))


def step_keys(keys: Sequence[int], steps: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Return, for many clients at once, one int64 scalar for the start and one for each step."""
    counts = [count + 1 for count in steps]
    hashed, _, _ = _hashes(keys, counts)
    parts = torch.split_with_sizes(torch.from_numpy(hashed.view(np.int64)), counts)
    return [part.unbind() for part in parts]


def _hashes(
    starts: Sequence[int], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each client and index: hash of (start, index), client, where that one begins."""
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
