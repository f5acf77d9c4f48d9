"""Places: which of a vector's numbers are kept, found fast and written down in few bits.

Ascending places are written as Elias and Fano did ("Efficient Storage and Retrieval by Content and
Address of Static Files", Journal of the ACM 21, 1974): their low bits side by side, their high bits
as a string in which the i-th 1 stands i places behind its high bits' value. That takes
2 + log2(size / number) bits a place, within half a bit of the least possible. A bit for each number
of the vector is shorter where many are kept. Either way the length follows from size and number.
"""

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.packing import packed, packed_size, unpacked
from folkmoot.core.tree import Tree

_SAMPLE = 1 << 13


def largest(values: np.ndarray, number: int) -> np.ndarray:
    """Return the places of the largest values, ascending, exactly so many; of ties the first ones.

    Args:
        values: (size,), of any dtype that has an order, without NaN.
        number: At least 1; where there are fewer, all are taken.
    """
    if number >= len(values):
        return np.arange(len(values))
    candidates = np.flatnonzero(values >= _guess(values, number))
    if len(candidates) < number:
        candidates = np.arange(len(values))
    if len(candidates) == number:
        return candidates
    found = values[candidates]
    cut = np.partition(found, len(found) - number)[len(found) - number]
    kept = found > cut
    tied = np.flatnonzero(found == cut)
    kept[tied[: number - int(kept.sum())]] = True
    chosen: np.ndarray = candidates[kept]
    return chosen


def _guess(values: np.ndarray, number: int) -> float:
    """Return a value that is most likely a little below the one that the last of them has."""
    sample = values[:: max(len(values) // _SAMPLE, 1)]
    share = number / len(values) * len(sample)
    rank = min(int(share + 4 * share**0.5 + 4), len(sample))
    guess: float = np.partition(sample, len(sample) - rank)[len(sample) - rank]
    return guess


def written(places: np.ndarray, size: int) -> Tree:
    """Return ascending places as leaves of bytes.

    Args:
        places: (number,), each below `size` and above the one before.
        size: Of the vector.
    """
    low = _low_bits(size, len(places))
    if low is None:
        kept = np.zeros(size, dtype=np.uint8)
        kept[places] = 1
        return {"places": packed(kept, 1)}
    string = np.zeros(_string(size, len(places), low), dtype=np.uint8)
    string[(places >> low) + np.arange(len(places))] = 1
    leaves: Tree = {"places": packed(string, 1)}
    if low:
        leaves["low"] = packed((places & (1 << low) - 1).astype(np.uint32), low)
    return leaves


def read(leaves: Tree, size: int, number: int) -> np.ndarray:
    """Read places back, (number,), int64."""
    low = _low_bits(size, number)
    if low is None:
        return np.flatnonzero(unpacked(leaves["places"], 1, size))
    string = unpacked(leaves["places"], 1, _string(size, number, low))
    places: np.ndarray = np.flatnonzero(string) - np.arange(number)
    if low:
        places = places << low | unpacked(leaves["low"], low, number)
    return places


def _low_bits(size: int, number: int) -> int | None:
    """Return how many bits of a place are low ones; None where a bit for each number is shorter."""
    if not number:
        return None
    low = (size // number).bit_length() - 1
    length = packed_size(number, low) + packed_size(_string(size, number, low), 1)
    return low if length < packed_size(size, 1) else None


def _string(size: int, number: int, low: int) -> int:
    """Return the length of the string of high bits."""
    return number + (size - 1 >> low)


def scattered(values: Tensor, places: np.ndarray, size: int) -> Tensor:
    """Return a vector of zeros with values at some places, (size,), float32."""
    found = torch.zeros(size)
    found[torch.from_numpy(places)] = values
    return found
