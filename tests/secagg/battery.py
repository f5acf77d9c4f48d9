"""Tests that tell words from uniform random ones, each with the chance that uniform ones fail.

Frequency and runs are those of NIST SP 800-22, sections 2.1 and 2.3, over all bits; words, and
missing ones, are of 16 bits; serial looks at what neighbouring words have in common.
"""

import math

import numpy as np

CHANCE = 1e-7
"""Below which a test has failed; uniform words do in one of a million batteries or so."""


def failures(vector):
    """Names of the tests that a vector fails, read as at least 2^20 words of 16 bits."""
    words = np.ascontiguousarray(vector).view("<u2")
    assert len(words) >= 1 << 20
    chances = {
        "frequency": frequency(words),
        "runs": runs(words),
        # Of uniform words the differences are uniform and independent, too.
        "serial": chi_square(np.bincount(words[1:] ^ words[:-1], minlength=1 << 16)),
        "words": chi_square(np.bincount(words, minlength=1 << 16)),
        "missing": missing(words),
    }
    return {name for name, chance in chances.items() if chance < CHANCE}


def frequency(words):
    """As many ones as zeros."""
    bits = 16 * len(words)
    return two_sided((2 * ones(words) - bits) / math.sqrt(bits))


def runs(words):
    """Every second bit differs from the one before."""
    bits = 16 * len(words)
    # Bit 15 of each word's xor compares it with its successor.
    inside = ones((words ^ (words >> 1)) & 0x7FFF)
    between = ones((words[:-1] >> 15) ^ (words[1:] & 1))
    return two_sided((2 * (inside + between) - (bits - 1)) / math.sqrt(bits - 1))


def chi_square(counts):
    """All values as often; by Wilson and Hilferty's normal approximation."""
    expected = counts.sum() / len(counts)
    statistic, free = ((counts - expected) ** 2).sum() / expected, len(counts) - 1
    return two_sided(((statistic / free) ** (1 / 3) - 1 + 2 / (9 * free)) / math.sqrt(2 / 9 / free))


def missing(words):
    """No value that never occurs; of 2^20 words, one in 140 times one does by chance."""
    absent = int((np.bincount(words, minlength=1 << 16) == 0).sum())
    # Absent values are nearly Poisson, with mean 2^16 exp(-m / 2^16).
    return -math.expm1(-(2.0**16) * math.exp(-len(words) / 2**16)) if absent else 1.0


def alike(a, b):
    """The chance that two vectors' 16-bit words come of one law, by a two-sample chi-square."""
    one, two = (np.bincount(v.view("<u2"), minlength=1 << 16).astype(float) for v in (a, b))
    k = math.sqrt(two.sum() / one.sum())
    statistic, free = ((k * one - two / k) ** 2 / (one + two)).sum(), len(one) - 1
    return two_sided(((statistic / free) ** (1 / 3) - 1 + 2 / (9 * free)) / math.sqrt(2 / 9 / free))


def equal_words(a, b):
    """How many standard deviations more words of two vectors are equal than by chance."""
    bits = 8 * a.dtype.itemsize
    expected = len(a) / 2**bits
    return (int((a == b).sum()) - expected) / math.sqrt(max(expected, 1))


def ones(words):
    return int(np.unpackbits(np.ascontiguousarray(words).view("u1")).sum(dtype=np.int64))


def two_sided(z):
    return math.erfc(abs(z) / math.sqrt(2))


def dead_bits(seeds):
    """Bits of 32-byte seeds that are the same in all of them: none, in 200 random ones."""
    bits = np.unpackbits(np.frombuffer(b"".join(seeds), "u1").reshape(-1, 32), axis=1)
    return 256 - int((bits.any(axis=0) & ~bits.all(axis=0)).sum())


def deaf_bits(expand):
    """Bits of a seed that do not matter to its mask."""
    seed = int.from_bytes(bytes(range(32)), "little")
    first = expand(seed.to_bytes(32, "little"))
    turned = ((seed ^ 1 << bit).to_bytes(32, "little") for bit in range(256))
    return sum(expand(other) == first for other in turned)
