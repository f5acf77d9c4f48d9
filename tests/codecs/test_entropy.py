"""Words for noise: uniform, never twice the same, whatever is seeded, forked or threaded."""

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from folkmoot.codecs.entropy import seeded, system
from folkmoot.core.errors import SettingsError

CHI_SQUARE_255 = 400.0  # 255 degrees of freedom pass this with a chance of 1e-8.


@pytest.mark.parametrize("source", [system(), seeded(7)], ids=["system", "seeded"])
def test_all_bytes_come_alike_often(source):
    found = source(1 << 18)

    assert (found.dtype, found.shape) == (np.uint32, (1 << 18,))
    counts = np.bincount(found.view(np.uint8), minlength=256)
    expected = found.nbytes / 256
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE_255


def test_no_two_calls_share_words():
    words = system()

    found = [words(2).tobytes() for _ in range(1_000)]

    assert len(set(found)) == 1_000


def test_global_seeds_change_nothing():
    words, found = system(), []

    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        found.append(words(4).tobytes())

    assert found[0] != found[1]


def test_threads_do_not_share_words():
    words = system()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: words(2).tobytes(), range(400)))

    assert len(set(found)) == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_repeat_its_parent():
    words = system()
    words(1)
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        os.write(writing, words(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 16)
    os.close(reading)
    os.close(writing)

    assert len(theirs) == 16
    assert words(4).tobytes() != theirs


def test_seeded_words_follow_from_their_key_alone():
    assert seeded(5)(9).tolist() == seeded(5)(9).tolist()
    assert seeded(5)(9).tolist() != seeded(6)(9).tolist()


def test_without_the_library_noise_is_refused_and_a_simulation_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)

    with pytest.raises(SettingsError, match=r"pip install 'folkmoot\[privacy\]'"):
        system()
    assert len(seeded(0)(3)) == 3
