"""The cryptography that the protocol is made of, each under the name of what it is used for.

X25519 (RFC 7748) agrees on keys, HKDF-SHA256 (RFC 5869) derives from them, AES-256-GCM (NIST
SP 800-38D) seals shares, AES-128 in counter mode (SP 800-38A) stretches a seed to a mask, Ed25519
(RFC 8032) signs. All of it is the library `cryptography`, that is OpenSSL; this file alone imports
it. All that is random comes from one function, `entropy`, and so from the operating system.
"""

import hashlib
import os
from typing import TYPE_CHECKING, Any, NoReturn

from folkmoot.core.errors import SettingsError

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError:
    # Secure sums are an extra, and all else must run without it: said when it is used.
    class _Absent:
        """Stands for whatever is imported above."""

        def __getattr__(self, name: str) -> NoReturn:
            refuse_absent()
            raise AttributeError(name)

        def __call__(self, *given: Any) -> NoReturn:
            refuse_absent()
            raise TypeError("absent")

        def __or__(self, other: Any) -> Any:
            return self

        __ror__ = __or__

    if not TYPE_CHECKING:
        AESGCM = Cipher = Ed25519PrivateKey = Ed25519PublicKey = HKDF = SHA256 = _Absent()
        X25519PrivateKey = X25519PublicKey = algorithms = modes = AESGCM
        InvalidSignature = InvalidTag = ValueError

__all__ = ["Ed25519PrivateKey", "X25519PrivateKey"]

KEY_BYTES = 32
"""Of every key, public key and seed."""
TAG_BYTES = 16
"""By which a sealed text is longer than its plain text."""
SIGNATURE_BYTES = 64

_MASK = b"folkmoot secure sum 1, mask"
_CIPHER_KEY_BYTES = 16
_NONCE_BYTES = 12

_FIELD = 2**255 - 19
_LOW_ORDER = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
"""The u-coordinates of all points of order 1, 2, 4 and 8 of the curve and of its twist."""


def refuse_absent() -> None:
    """Refuse to go on where the library `cryptography` is not installed.

    Raises:
        SettingsError: With the command that installs it.
    """
    if not isinstance(Cipher, type):
        raise SettingsError(
            "Secure aggregation needs the library cryptography, which is not installed: "
            "pip install 'folkmoot[secure]'."
        )


def entropy(size: int) -> bytes:
    """Return random bytes of the operating system: everything secret begins here."""
    return os.urandom(size)


def exchange_key() -> X25519PrivateKey:
    """Return a fresh key for agreeing with others."""
    return X25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))


def signing_key() -> Ed25519PrivateKey:
    """Return a fresh key for signing, a client's identity."""
    return Ed25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))


def public(key: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of a key that others may see."""
    found: bytes = key.public_key().public_bytes_raw()
    return found


def full_order(key: bytes) -> bool:
    """Whether this is a public key, and none with which all agree on the same few secrets.

    RFC 7748 ignores the highest bit and reads the rest modulo the field's prime. Here each point
    has one form: what pairs derive is bound to the bytes, and must not differ for one key.
    """
    u = int.from_bytes(key, "little")
    return len(key) == KEY_BYTES and u < _FIELD and u not in _LOW_ORDER


def agree(mine: X25519PrivateKey, theirs: bytes) -> bytes:
    """Return the 32 secret bytes that two keys share.

    Raises:
        ValueError: If the other key is not of full order.
    """
    found: bytes = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    return found


def derive(secret: bytes, info: bytes) -> bytes:
    """Return 32 bytes derived from a secret for one purpose, which `info` names."""
    found: bytes = HKDF(SHA256(), KEY_BYTES, None, info).derive(secret)
    return found


def seal(key: bytes, nonce: bytes, text: bytes, bound: bytes) -> bytes:
    """Encrypt a text and bind it to what both sides know.

    Args:
        key: 32 bytes.
        nonce: 12 bytes, never twice with one key.
        text: What is sealed.
        bound: What the opener has to know too; it is authenticated, not sent.
    """
    found: bytes = AESGCM(key).encrypt(nonce, text, bound)
    return found


def unseal(key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes | None:
    """Return the text again; None if anything about it is not as it was."""
    try:
        found: bytes = AESGCM(key).decrypt(nonce, sealed, bound)
    except InvalidTag:
        return None
    return found


def sign(key: Ed25519PrivateKey, text: bytes) -> bytes:
    """Return a signature of 64 bytes."""
    found: bytes = key.sign(text)
    return found


def signed(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether a signature is by this public key and over this text."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def keystream(seed: bytes) -> Any:
    """Return a cipher that adds (xor) the mask of a 32-byte seed, from its beginning, to bytes.

    The seed, all of it, is hashed to a key of 16 bytes and a nonce of 12. To tell the mask from
    random bytes takes 2^128 steps, as many as to break X25519, from which seeds come; and as nonces
    differ, work on one mask helps with no other. AES-256 would take a sixth longer.
    """
    hashed = hashlib.sha256(_MASK + seed).digest()
    return counter_mode(hashed[:_CIPHER_KEY_BYTES], hashed[_CIPHER_KEY_BYTES:][:_NONCE_BYTES])


def counter_mode(key: bytes, nonce: bytes) -> Any:
    """Return a cipher in counter mode: from block 2 on, of a key and a nonce of 12 bytes.

    It is Galois counter mode, which begins there, without its tag: for that OpenSSL has wider
    instructions than for counter mode alone, and is a quarter faster.
    """
    return Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()


def stream(seed: bytes, size: int) -> bytes:
    """Return the first bytes of a seed's mask."""
    found: bytes = keystream(seed).update(bytes(size))
    return found
