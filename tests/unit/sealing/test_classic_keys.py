from __future__ import annotations

import base64
import hashlib
import json
import textwrap
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    RSAPublicNumbers,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import SealError, TooLarge, Unopenable, WireError
from tokenplace.sealing.rsa import MAX_PARSED, ClassicKey, ClassicPublicKey, KeyCache, rejects_implicitly

few = settings(max_examples=40, deadline=None, database=None)

RECORDED: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[3] / "spec" / "vectors" / "classic.json").read_text("utf-8")
)["keys"]
A, B, JS = (ClassicKey.from_pem(RECORDED[name]["private_key_pem"]) for name in ("A", "B", "JS"))
LENIENT, ANOTHER_PROCESS = (ClassicKey.from_pem(RECORDED["A"]["private_key_pem"], pkcs1v15=True) for _ in range(2))
ODD = (1 << 2047) + 1
AES_KEY = bytes(range(32))


def library(name: str) -> RSAPublicKey:
    return cast("RSAPublicKey", load_pem_public_key(RECORDED[name]["public_key_pem"].encode()))


def shaped(bits: int, *, e: int = 65537, even: bool = False) -> str:
    """A public key of that shape; nobody has its private half."""
    public = RSAPublicNumbers(e, (1 << bits - 1) + (0 if even else 1)).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def wrapped(text: bytes) -> bytes:
    """Any text, under PKCS#1 v1.5 to the key A."""
    return library("A").encrypt(text, PKCS1v15())


def test_a_generated_key_has_the_shape_of_the_original() -> None:
    key = ClassicKey.generate()
    assert key.public.bits == 2048
    assert key.unwrap(key.public.wrap(AES_KEY)) == AES_KEY
    assert not key.pkcs1v15
    assert ClassicPublicKey.parse(key.public_pem) == key.public


def test_a_key_id_is_the_digest_of_the_spki() -> None:
    der = library("A").public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert A.key_id == A.public.key_id == hashlib.sha256(der).digest()[:8]
    assert A.key_id != B.key_id


def test_a_public_key_is_read_in_every_form_that_somebody_sends() -> None:
    spki, pkcs1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
    for format_ in (spki, pkcs1):
        pem = library("A").public_bytes(Encoding.PEM, format_)
        der = base64.b64encode(library("A").public_bytes(Encoding.DER, format_)).decode()
        forms: list[str | bytes] = [
            pem,
            pem.decode(),
            base64.b64encode(pem).decode(),
            der,
            "\n".join(textwrap.wrap(der, 64)) + "\n",
        ]
        forms += [f"\n  {pem.decode()}\r\n", pem.decode().replace("\n", "\r\n")]
        for form in forms:
            assert ClassicPublicKey.parse(form) == A.public
    assert base64.b64decode(A.public.wire) == A.public_pem.encode()


@pytest.mark.parametrize("format_", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_private_key_is_read_from_either_kind_of_pem(format_: PrivateFormat) -> None:
    private = load_pem_private_key(RECORDED["B"]["private_key_pem"].encode(), None)
    pem = private.private_bytes(Encoding.PEM, format_, NoEncryption())
    assert ClassicKey.from_pem(pem).public == ClassicKey.from_pem(pem.decode()).public == B.public


def not_rsa(private: bool) -> bytes:
    key = Ed25519PrivateKey.generate()
    if private:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-----BEGIN PUBLIC KEY-----",
        "not base64!",
        "é",
        b"\xff\xfe",
        base64.b64encode(b"neither PEM nor DER").decode(),
        RECORDED["A"]["public_key_pem"][:200],
        RECORDED["A"]["public_key_wire_b64"][:-40],
        RECORDED["A"]["private_key_pem"],
        base64.b64encode(RECORDED["A"]["private_key_pem"].encode()).decode(),
        not_rsa(private=False),
    ],
)
def test_what_is_no_public_key_is_refused(text: str | bytes) -> None:
    with pytest.raises(WireError) as refusal:
        ClassicPublicKey.parse(text)
    assert "PRIVATE" not in refusal.value.message


@few
@given(st.binary(max_size=300))
def test_no_bytes_at_all_bring_the_reader_of_keys_down(data: bytes) -> None:
    for text in (data, base64.b64encode(data), b"-----BEGIN " + data, base64.b64encode(b"-----BEGIN " + data)):
        with pytest.raises(WireError):
            ClassicPublicKey.parse(text)


@pytest.mark.parametrize(
    "text", ["", "é", RECORDED["A"]["public_key_pem"], RECORDED["A"]["private_key_pem"][:300], not_rsa(private=True)]
)
def test_what_is_no_private_key_is_refused(text: str | bytes) -> None:
    with pytest.raises(WireError):
        ClassicKey.from_pem(text)


def test_a_private_key_under_a_password_is_refused() -> None:
    private = load_pem_private_key(RECORDED["A"]["private_key_pem"].encode(), None)
    with pytest.raises(WireError, match="unencrypted"):
        ClassicKey.from_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")))


@pytest.mark.parametrize("bits", [1024, 1792, 2047, 2049, 2176, 8448, 16384])
def test_a_key_of_another_size_is_refused(bits: int) -> None:
    with pytest.raises(WireError, match=f"{bits}"):
        ClassicPublicKey.parse(shaped(bits))


@pytest.mark.parametrize("bits", [0, 1024, 2047, 2049, 8448])
def test_a_key_of_another_size_is_not_made(bits: int) -> None:
    with pytest.raises(ValueError, match="2048 to 8192"):
        ClassicKey.generate(bits=bits)


def test_a_small_private_key_is_refused() -> None:
    small = generate_private_key(65537, 1024)
    pem = small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(WireError, match="1024"):
        ClassicKey.from_pem(pem)


@pytest.mark.parametrize("bits", [2048, 2304, 8192])
def test_a_key_of_any_good_size_is_taken(bits: int) -> None:
    key = ClassicPublicKey.parse(shaped(bits))
    assert key.bits == bits
    assert len(key.wrap(AES_KEY)) * 8 == bits


def test_a_key_that_would_only_make_work_is_refused() -> None:
    for text in (shaped(2048, e=3), shaped(2048, e=(1 << 2000) + 1), shaped(2048, even=True)):
        with pytest.raises(WireError, match="exponent"):
            ClassicPublicKey.parse(text)
    with pytest.raises(TooLarge):
        ClassicPublicKey.parse("A" * 20_000)
    with pytest.raises(TooLarge):
        ClassicKey.from_pem("A" * 20_000)


def test_only_an_aes_256_key_is_wrapped() -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            A.public.wrap(bytes(size))


@few
@given(aes_key=st.binary(min_size=32, max_size=32))
def test_a_wrapped_key_comes_back(aes_key: bytes) -> None:
    assert A.unwrap(A.public.wrap(aes_key)) == aes_key
    assert LENIENT.unwrap(A.public.wrap(aes_key)) == aes_key
    assert LENIENT.unwrap(A.public.wrap(aes_key, pkcs1v15=True)) == aes_key
    with pytest.raises(Unopenable):
        A.unwrap(A.public.wrap(aes_key, pkcs1v15=True))
    with pytest.raises(Unopenable):
        B.unwrap(A.public.wrap(aes_key))


@few
@given(cipherkey=st.binary(min_size=256, max_size=256))
def test_nothing_tells_a_good_pkcs1v15_padding_from_a_bad_one(cipherkey: bytes) -> None:
    with pytest.raises(Unopenable):
        A.unwrap(cipherkey)
    made = LENIENT.unwrap(cipherkey)
    assert len(made) == 32
    assert LENIENT.unwrap(cipherkey) == made


CANONICAL = base64.b64encode(AES_KEY)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"short",
        AES_KEY,
        CANONICAL[:-1],
        CANONICAL + b"\n",
        CANONICAL + CANONICAL,
        b" " + CANONICAL[:-1],
        CANONICAL[:-1] + b"A",
        CANONICAL[:-2] + b"==",
        CANONICAL[:-2] + b"9=",  # the two bits that no key has
        b"-" + CANONICAL[1:],
        b"\0" * 44,
        b"\xff" * 44,
        b"A" * 44,
        b"A" * 245,
    ],
    ids=repr,
)
def test_a_well_padded_text_that_spells_no_key_becomes_a_key_that_nobody_has(text: bytes) -> None:
    cipherkey = wrapped(text)
    made = LENIENT.unwrap(cipherkey)
    assert len(made) == 32
    assert made == LENIENT.unwrap(cipherkey)
    assert made not in (LENIENT.unwrap(wrapped(text)), ANOTHER_PROCESS.unwrap(cipherkey))
    with pytest.raises(Unopenable):
        A.unwrap(cipherkey)


def test_a_wrapped_text_that_spells_no_key_is_unopenable_under_oaep() -> None:
    oaep = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
    for text in (b"", b"short", AES_KEY, b"A" * 44, CANONICAL + b"\n"):
        with pytest.raises(Unopenable):
            A.unwrap(library("A").encrypt(text, oaep))


@pytest.mark.parametrize("key", [A, LENIENT])
@pytest.mark.parametrize("size", [0, 255, 257, 512])
def test_a_cipherkey_of_another_length_is_unopenable(key: ClassicKey, size: int) -> None:
    with pytest.raises(Unopenable):
        key.unwrap(bytes(size))


def test_a_cipherkey_beyond_the_modulus_is_like_any_other_bad_one() -> None:
    with pytest.raises(Unopenable):
        A.unwrap(b"\xff" * 256)
    assert len(LENIENT.unwrap(b"\xff" * 256)) == 32


class OldLibrary:
    """A library that tells a bad padding: OpenSSL before 3.2."""

    key_size = 2048

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def decrypt(self, ciphertext: bytes, padding: object) -> bytes:
        self.seen.append(ciphertext)
        raise ValueError

    def public_key(self) -> RSAPublicKey:
        return library("A")


def test_a_library_that_tells_a_bad_padding_is_not_let_near_pkcs1v15() -> None:
    old = cast("RSAPrivateKey", OldLibrary())
    assert not rejects_implicitly(old)
    assert [len(each) for each in cast("OldLibrary", old).seen] == [256]
    with pytest.raises(SealError, match=r"OpenSSL"):
        ClassicKey(old, pkcs1v15=True)
    ClassicKey(old)


def test_this_library_does_not_tell() -> None:
    private = load_pem_private_key(RECORDED["A"]["private_key_pem"].encode(), None)
    assert rejects_implicitly(cast("RSAPrivateKey", private))


def test_the_private_half_is_in_no_representation() -> None:
    private = cast("RSAPrivateKey", load_pem_private_key(RECORDED["A"]["private_key_pem"].encode(), None))
    numbers = private.private_numbers()
    for key in (A, LENIENT):
        shown = f"{key!r} {key} {key.public!r}"
        assert key.key_id.hex() in shown
        for secret in (numbers.d, numbers.p, numbers.q):
            assert str(secret)[:12] not in shown
            assert f"{secret:x}"[:12] not in shown
        assert not hasattr(key, "__dict__")
    assert len(shown) < 150


def test_keys_are_equal_when_their_public_halves_are() -> None:
    again = ClassicPublicKey(library("A"))
    assert again == A.public
    assert hash(again) == hash(A.public)
    assert again != B.public
    assert again != "a text"


def test_the_memory_of_parsed_keys_is_bounded_and_keeps_what_is_used() -> None:
    cache = KeyCache(limit=2)
    texts = [RECORDED[name]["public_key_pem"].encode() for name in ("A", "B", "JS")]
    first = cache.parse(texts[0])
    cache.parse(texts[1])
    assert cache.parse(texts[0]) is first
    cache.parse(texts[2])
    assert len(cache) == 2
    assert cache.parse(texts[0]) is first
    assert MAX_PARSED == 256


def test_what_is_no_key_is_not_remembered() -> None:
    cache = KeyCache()
    for _ in range(2):
        with pytest.raises(WireError):
            cache.parse(b"no key")
    assert len(cache) == 0


def test_the_memory_of_parsed_keys_holds_digests_and_no_texts() -> None:
    cache = KeyCache()
    text = RECORDED["A"]["public_key_wire_b64"].encode()
    cache.parse(text)
    assert list(cache.__dict__["_keys"]) == [hashlib.sha256(text).digest()]
