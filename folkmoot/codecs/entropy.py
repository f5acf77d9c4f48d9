"""Random words for noise: from the operating system where privacy hangs on them.

A source is a function `words(n)` that returns n uniform 32-bit words. The system's own generator
gives 150 MB/s here, which would be most of the cost of noise. So 32 bytes of it key AES-128 in
counter mode (key and first counter), for each call anew: there is no state that a fork or a second
thread could use twice, and nothing to reseed. Telling such words from uniform ones takes breaking
AES; what the noise protects, it protects against everybody who can't.
"""

import os
from collections.abc import Callable

import numpy as np

from folkmoot.core import rng
from folkmoot.core.errors import SettingsError

Words = Callable[[int], np.ndarray]
"""From a number of words to that many: (n,), uint32."""

_KEY_BYTES = 16


def system() -> Words:
    """Return the source of words that nobody can guess or repeat.

    Raises:
        SettingsError: If the library `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        raise SettingsError(
            "Noise that hides anybody is drawn with the library cryptography, which is not "
            "installed: pip install 'folkmoot[privacy]'. A simulation, whose result is not to be "
            "released, does without: simulation=True."
        ) from error

    def words(n: int) -> np.ndarray:
        seed = os.urandom(2 * _KEY_BYTES)
        cipher = Cipher(algorithms.AES(seed[:_KEY_BYTES]), modes.CTR(seed[_KEY_BYTES:]))
        return np.frombuffer(cipher.encryptor().update(bytes(4 * n)), dtype=np.uint32)

    return words


def seeded(key: int) -> Words:
    """Return a source whose words follow from a key: for simulations, whose noise hides nobody.

    Args:
        key: 64 bits, of a stream that is used for nothing else.
    """
    generator = rng.generator(key)

    def words(n: int) -> np.ndarray:
        return generator.integers(1 << 32, size=n, dtype=np.uint32)

    return words
