"""Signatures over files: minisign's and the original's."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import minisign
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tokenplace.errors import SignatureError, WrongSignature
from tokenplace.sealing.minisign import WHOLE, PublicKey, SecretKey, Signature, shown
from tokenplace.sealing.signature import check, hash_of, plain_text, read_public_key, read_signature

CHEAP = (32768, 1 << 20)
"""A password's cost for tests."""

FILE = [b"one ", b"file"]
VECTORS = json.loads((Path(__file__).parents[3] / "spec" / "vectors" / "classic.json").read_text())["vectors"]
[VECTOR] = [vector for vector in VECTORS if vector["kind"] == "signature"]
ARTIFACT = base64.b64decode(VECTOR["artifact_b64"])


@pytest.fixture
def key() -> SecretKey:
    return SecretKey(bytes(range(32)), b"\x01\x02\x03\x04\x05\x06\x07\x08")


def signed(key: SecretKey, comment: str = "a comment") -> Signature:
    return key.sign(hash_of(FILE), comment)


# -- minisign's ----------------------------------------------------------------------------------------------------


def test_what_we_sign_holds_and_brings_its_comment(key: SecretKey) -> None:
    text = signed(key, "timestamp:1\tfile:x").text
    assert check(PublicKey.parse(key.public.text), read_signature(text), FILE).trusted_comment == "timestamp:1\tfile:x"


def test_another_implementation_verifies_what_we_sign(key: SecretKey, tmp_path: Path) -> None:
    theirs = minisign.PublicKey.from_bytes(key.public.text.encode())
    theirs.verify(b"".join(FILE), minisign.Signature.from_bytes(signed(key).text.encode()))


def test_we_verify_what_another_implementation_signs() -> None:
    pair = minisign.KeyPair.generate()
    ours = read_public_key(bytes(pair.public_key).decode())
    for hashed in (True, False):
        signature = pair.secret_key.sign(b"".join(FILE), trusted_comment="theirs", prehash=hashed)
        read = read_signature(bytes(signature).decode())
        assert isinstance(read, Signature)
        assert (read.hashed, check(ours, read, FILE).trusted_comment) == (hashed, "theirs")
        with pytest.raises(WrongSignature):
            check(ours, read, [b"another file"])


@pytest.mark.parametrize("password", [None, "", "a pässword"])
def test_a_secret_key_comes_back_from_its_file(key: SecretKey, password: str | None) -> None:
    text = key.to_text(password, CHEAP)
    read = SecretKey.parse(text, lambda: password or "")
    assert read.public == key.public
    assert signed(read) == signed(key)


def test_a_wrong_password_is_told(key: SecretKey) -> None:
    with pytest.raises(SignatureError, match="password is wrong"):
        SecretKey.parse(key.to_text("right", CHEAP), lambda: "wrong")


def test_another_implementation_opens_our_secret_key(key: SecretKey) -> None:
    theirs = minisign.SecretKey.from_bytes(key.to_text("word", CHEAP).encode())
    theirs.decrypt("word")
    signature = theirs.sign(b"".join(FILE), trusted_comment="x", prehash=True)
    assert check(key.public, read_signature(bytes(signature).decode()), FILE)


def test_a_key_that_asks_for_absurd_memory_is_refused(key: SecretKey) -> None:
    raw = bytearray(base64.b64decode(key.to_text("word", CHEAP).splitlines()[1]))
    raw[46:54] = (1 << 50).to_bytes(8, "little")
    with pytest.raises(SignatureError, match="more memory than it should"):
        SecretKey.parse(f"untrusted comment: x\n{base64.b64encode(raw).decode()}\n", lambda: "word")


def test_a_secret_key_shows_nothing_of_itself(key: SecretKey) -> None:
    assert repr(key) == f"<SecretKey {shown(key.public.key_id)}>"


@pytest.mark.parametrize("line", [1, 2, 3])
def test_one_altered_letter_is_refused(key: SecretKey, line: int) -> None:
    lines = signed(key).text.splitlines()
    middle = 40
    for replaced in "AB":
        changed = lines[line][:middle] + replaced + lines[line][middle + 1 :]
        if line == 2:
            changed = lines[2] + replaced
        if changed != lines[line]:
            text = "\n".join([*lines[:line], changed, *lines[line + 1 :]]) + "\n"
            with pytest.raises(WrongSignature):
                check(key.public, read_signature(text), FILE)


def test_the_untrusted_comment_is_just_that(key: SecretKey) -> None:
    lines = signed(key).text.splitlines()
    text = "\n".join(["untrusted comment: anything", *lines[1:]]) + "\n"
    assert check(key.public, read_signature(text), FILE)


def test_another_key_is_named_by_its_id(key: SecretKey) -> None:
    other = SecretKey(bytes(32), bytes(8))
    with pytest.raises(WrongSignature, match="Another key signed it: 0807060504030201, not 0000000000000000"):
        check(other.public, signed(key), FILE)


def test_a_signature_by_a_key_that_only_says_the_same_id_is_wrong(key: SecretKey) -> None:
    other = SecretKey(bytes(32), key.public.key_id)
    with pytest.raises(WrongSignature):
        check(other.public, signed(key), FILE)


@pytest.mark.parametrize("comment", ["two\nlines", "return\r", "x" * 9000, "\x1b[2J"])
def test_a_comment_is_one_printable_line(key: SecretKey, comment: str) -> None:
    with pytest.raises(SignatureError):
        key.sign(bytes(64), comment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "untrusted comment: x\n",
        "untrusted comment: x\nnot base64!\ntrusted comment: y\nAAAA\n",
        "untrusted comment: x\nAAAA\ntrusted comment: y\nAAAA\n",
        f"untrusted comment: x\n{base64.b64encode(b'XX' + bytes(72)).decode()}\ntrusted comment: y\n"
        f"{base64.b64encode(bytes(64)).decode()}\n",
        "hello",
        base64.b64encode(bytes(63)).decode(),
        "ä",
    ],
)
def test_what_is_no_signature_is_not_called_bad_but_unreadable(text: str) -> None:
    with pytest.raises(SignatureError) as caught:
        read_signature(text)
    assert not isinstance(caught.value, WrongSignature)


@pytest.mark.parametrize(
    "text", ["", "RW", "hello", base64.b64encode(b"XX" + bytes(40)).decode(), "-----BEGIN PUBLIC KEY-----\nAAAA\n"]
)
def test_what_is_no_public_key_is_told(text: str) -> None:
    with pytest.raises(SignatureError):
        read_public_key(text)


def test_a_key_of_another_algorithm_is_told() -> None:
    pem = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureError, match="not an Ed25519 key"):
        read_public_key(pem.decode())


def test_a_minisign_key_file_begins_as_minisign_writes_it(key: SecretKey) -> None:
    first, second = key.public.text.splitlines()
    assert first == "untrusted comment: minisign public key 0807060504030201"
    assert base64.b64decode(second)[:2] == WHOLE


# -- the original's ------------------------------------------------------------------------------------------------


def test_the_vector_of_the_original_holds() -> None:
    key = read_public_key(VECTOR["public_key_pem"])
    assert check(key, read_signature(VECTOR["signature_file_text"]), [ARTIFACT]).trusted_comment is None


def test_any_other_file_is_wrong_under_the_vector() -> None:
    key = read_public_key(VECTOR["public_key_pem"])
    with pytest.raises(WrongSignature):
        check(key, read_signature(VECTOR["signature_file_text"]), [ARTIFACT, b"\n"])


def test_our_plain_signature_is_the_vectors_own() -> None:
    private = load_pem_private_key(VECTOR["private_key_pem"].encode(), None)
    assert isinstance(private, Ed25519PrivateKey)
    key = SecretKey(private.private_bytes_raw(), bytes(8))
    assert plain_text(key.sign_plain(ARTIFACT)) == VECTOR["signature_file_text"]


def test_either_kind_of_key_checks_either_kind_of_signature(key: SecretKey) -> None:
    pem = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    text = pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert check(read_public_key(text), signed(key), FILE)
    assert check(key.public, read_signature(plain_text(key.sign_plain(b"".join(FILE)))), FILE)
