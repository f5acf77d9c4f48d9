"""Known answers of what the library does for us, and refusals of what it must not accept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.secagg import primitives

FILE = Path(__file__).parents[1] / "vectors/secagg_primitives.json"
VECTORS = json.loads(FILE.read_text("utf-8"))
KNOWN = VECTORS["x25519"]
FIELD = 2**255 - 19
ORDER_8 = 325606250916557431795983626356110631294008115727848805560023387167927233504
ORDER_8_TOO = 39382357235489614581723060781553021112529911719440698176882885853963445705823


def key(name):
    return primitives.X25519PrivateKey.from_private_bytes(bytes.fromhex(KNOWN[name]))


def test_two_keys_agree_on_the_known_secret():
    a, b = key("sk_a"), key("sk_b")

    assert primitives.public(a).hex() == KNOWN["pk_a"]
    assert primitives.public(b).hex() == KNOWN["pk_b"]
    shared = bytes.fromhex(KNOWN["shared"])
    assert primitives.agree(a, primitives.public(b)) == shared
    assert primitives.agree(b, primitives.public(a)) == shared


def test_derived_bytes_are_the_known_ones():
    shared = bytes.fromhex(KNOWN["shared"])

    assert primitives.derive(shared, b"mask").hex() == KNOWN["hkdf_sha256_len32_nosalt_info_mask"]


@pytest.mark.parametrize("u", [0, 1, FIELD - 1, FIELD, FIELD + 1, ORDER_8, ORDER_8_TOO])
@pytest.mark.parametrize("highest_bit", [0, 1])
def test_a_point_of_low_order_is_noticed_and_agrees_with_nobody(u, highest_bit):
    point = (u | highest_bit << 255).to_bytes(32, "little")

    assert not primitives.full_order(point)
    with pytest.raises(ValueError, match="shared key"):
        primitives.agree(primitives.exchange_key(), point)


@pytest.mark.parametrize("u", range(2, 19))
def test_a_point_has_one_form(u):
    # u + FIELD and a set highest bit name the same point by other bytes.
    assert primitives.full_order(u.to_bytes(32, "little"))
    assert not primitives.full_order((u + FIELD).to_bytes(32, "little"))
    assert not primitives.full_order((u | 1 << 255).to_bytes(32, "little"))


def test_fresh_public_keys_are_of_full_order():
    keys = [primitives.public(primitives.exchange_key()) for _ in range(50)]

    assert all(map(primitives.full_order, keys))
    assert not primitives.full_order(keys[0][:-1])


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        (128, "aes128_ctr_zero_iv_key_000102..0f_u32le"),
        (256, "aes256_ctr_zero_iv_key_000102..1f_u32le"),
    ],
)
def test_counter_mode_gives_the_known_key_stream_from_block_two_on(bits, name):
    stream = primitives.counter_mode(bytes(range(bits // 8)), bytes(12)).update(bytes(32))

    words = [int.from_bytes(stream[at : at + 4], "little") for at in range(0, 32, 4)]
    assert words == VECTORS[name][8:]


def test_counter_mode_gives_the_known_word_far_in():
    stream = primitives.counter_mode(bytes(range(16)), bytes(12)).update(bytes(4_000_000))

    at = 4 * (1_000_000 - 8)  # Two blocks of four words are left out.
    known = VECTORS["aes128_ctr_word_index_1000000"]
    assert int.from_bytes(stream[at : at + 4], "little") == known


def test_a_sealed_text_opens_only_as_it_was_bound():
    k, nonce = bytes(32), bytes(12)
    sealed = primitives.seal(k, nonce, b"text", b"bound")

    assert primitives.unseal(k, nonce, sealed, b"bound") == b"text"
    assert primitives.unseal(k, nonce, sealed, b"bounds") is None
    assert primitives.unseal(k, nonce, sealed[:-1], b"bound") is None
    assert primitives.unseal(b"\1" + k[1:], nonce, sealed, b"bound") is None


def test_a_signature_holds_for_its_text_and_its_key_alone():
    mine, other = primitives.signing_key(), primitives.signing_key()
    signature = primitives.sign(mine, b"text")

    assert primitives.signed(primitives.public(mine), signature, b"text")
    assert not primitives.signed(primitives.public(mine), signature, b"texts")
    assert not primitives.signed(primitives.public(other), signature, b"text")
    assert not primitives.signed(b"no key", signature, b"text")


def test_without_the_library_one_sentence_says_what_to_install():
    program = "import sys; sys.modules['cryptography'] = None; "
    program += "from folkmoot.secagg import primitives; primitives.exchange_key()"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "SettingsError: Secure aggregation needs the library cryptography" in ran.stderr
    assert "pip install 'folkmoot[secure]'" in ran.stderr
