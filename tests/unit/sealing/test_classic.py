from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenplace.errors import BadRecord, SealError, TooLarge, Unopenable, WireError
from tokenplace.sealing import classic
from tokenplace.sealing.classic import (
    CipherMode,
    ClassicStreamOpener,
    ClassicStreamSealer,
    Envelope,
    open_classic,
    seal_classic,
)
from tokenplace.sealing.rsa import ClassicKey

few = settings(max_examples=30, deadline=None, database=None)
modes = st.sampled_from(list(CipherMode))
each_mode = pytest.mark.parametrize("mode", list(CipherMode))

RECORDED: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[3] / "spec" / "vectors" / "classic.json").read_text("utf-8")
)["keys"]
A, B = (ClassicKey.from_pem(RECORDED[name]["private_key_pem"]) for name in ("A", "B"))
LENIENT = ClassicKey.from_pem(RECORDED["A"]["private_key_pem"], pkcs1v15=True)
PRIVATE = cast("RSAPrivateKey", load_pem_private_key(RECORDED["A"]["private_key_pem"].encode(), None))
CBC_MODE, GCM_MODE = CipherMode.CBC, CipherMode.GCM


def as_the_original_reads(envelope: Envelope, associated_data: bytes = b"") -> bytes:
    """The original's steps, written again: RSA-OAEP, base64, AES, padding."""
    fields = {name: base64.b64decode(value) for name, value in envelope.fields().items() if name != "mode"}
    text = PRIVATE.decrypt(fields["cipherkey"], OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None))
    assert len(text) == 44
    if "tag" in fields:
        gcm = Cipher(AES(base64.b64decode(text)), GCM(fields["iv"], fields["tag"])).decryptor()
        gcm.authenticate_additional_data(associated_data)
        return gcm.update(fields["ciphertext"]) + gcm.finalize()
    cbc = Cipher(AES(base64.b64decode(text)), CBC(fields["iv"])).decryptor()
    padded = cbc.update(fields["ciphertext"]) + cbc.finalize()
    assert padded.endswith(bytes([padded[-1]]) * padded[-1])
    return padded[: -padded[-1]]


@few
@given(words=st.binary(max_size=3000), mode=modes, pkcs1v15=st.booleans())
def test_one_end_reads_what_the_other_sealed(words: bytes, mode: CipherMode, pkcs1v15: bool) -> None:
    envelope = seal_classic(words, A.public, mode=mode, pkcs1v15=pkcs1v15)
    assert open_classic(Envelope.parse(envelope.fields()), LENIENT) == words
    if not pkcs1v15:
        assert open_classic(envelope, A) == words


@few
@given(words=st.binary(max_size=100), mode=modes)
def test_the_original_reads_what_is_sealed_here(words: bytes, mode: CipherMode) -> None:
    assert as_the_original_reads(seal_classic(words, A.public, mode=mode)) == words


@few
@given(words=st.binary(max_size=100), said=st.binary(max_size=40), heard=st.binary(max_size=40))
def test_associated_data_must_be_the_same_at_both_ends(words: bytes, said: bytes, heard: bytes) -> None:
    assume(said != heard)
    envelope = seal_classic(words, A.public, mode=GCM_MODE, associated_data=said)
    assert open_classic(envelope, A, associated_data=said) == words
    assert as_the_original_reads(envelope, said) == words
    with pytest.raises(Unopenable):
        open_classic(envelope, A, associated_data=heard)


def test_cbc_is_never_taken_where_associated_data_is_expected() -> None:
    with pytest.raises(ValueError, match="GCM"):
        seal_classic(b"words", A.public, associated_data=b"context")
    with pytest.raises(Unopenable):
        open_classic(seal_classic(b"words", A.public), A, associated_data=b"context")


def test_every_message_has_a_key_and_an_iv_of_its_own() -> None:
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    fixed = seal_classic(b"words", A.public, random=random)
    assert asked == [32, 16]
    assert fixed.cipherkey is not None
    assert A.unwrap(fixed.cipherkey) == bytes(range(32))
    first, second = (seal_classic(b"words", A.public) for _ in range(2))
    for field in ("ciphertext", "iv", "cipherkey"):
        assert getattr(first, field) != getattr(second, field)


@few
@given(bit=st.integers(0, 8 * 32 - 1), field=st.sampled_from(["ciphertext", "iv", "tag", "cipherkey"]))
def test_no_bit_of_a_gcm_message_may_change(bit: int, field: str) -> None:
    envelope = seal_classic(b"words" * 10, A.public, mode=GCM_MODE)
    altered = flipped(envelope, field, bit)
    for key in (A, LENIENT):
        with pytest.raises(Unopenable):
            open_classic(altered, key)


@few
@given(bit=st.integers(0, 2047))
def test_no_bit_of_the_cipherkey_may_change(bit: int) -> None:
    with pytest.raises(Unopenable):
        open_classic(flipped(seal_classic(b"words", A.public), "cipherkey", bit), A)


def flipped(envelope: Envelope, field: str, bit: int) -> Envelope:
    data = bytearray(getattr(envelope, field))
    data[bit // 8 % len(data)] ^= 0x80 >> bit % 8
    changed: dict[str, Any] = {field: bytes(data)}
    return dataclasses.replace(envelope, **changed)


def test_a_flipped_iv_changes_a_cbc_message_unseen_as_the_docstring_says() -> None:
    envelope = flipped(seal_classic(b"pay 10", A.public), "iv", 4 * 8 + 7)
    assert open_classic(envelope, A) == b"pay 00"
    assert "not authenticated" in (classic.__doc__ or "")


@pytest.mark.parametrize("ciphertext", [b"", bytes(15), bytes(17), bytes(16)])
def test_a_cbc_message_of_the_wrong_shape_is_unopenable(ciphertext: bytes) -> None:
    envelope = seal_classic(b"words", A.public, random=lambda size: bytes(size))
    with pytest.raises(Unopenable):
        open_classic(dataclasses.replace(envelope, ciphertext=ciphertext), A)


def test_every_reason_not_to_open_sounds_the_same() -> None:
    cbc, gcm = seal_classic(b"words", A.public), seal_classic(b"words", A.public, mode=GCM_MODE)
    assert gcm.tag is not None
    bad = [
        dataclasses.replace(cbc, ciphertext=cbc.ciphertext[:-1]),
        dataclasses.replace(cbc, cipherkey=b""),
        dataclasses.replace(gcm, cipherkey=bytes(256)),
        dataclasses.replace(gcm, tag=bytes(16)),
        dataclasses.replace(gcm, cipherkey=B.public.wrap(bytes(32))),
    ]
    said = set()
    for key in (A, LENIENT):
        for envelope in bad:
            with pytest.raises(Unopenable) as refusal:
                open_classic(envelope, key)
            said.add((refusal.value.message, refusal.value.__cause__))
    assert len(said) == 1


def test_pkcs1v15_is_off_unless_it_is_switched_on_at_both_ends() -> None:
    plain = seal_classic(b"words", A.public)
    assert open_classic(plain, A) == b"words"
    old = seal_classic(b"words", A.public, pkcs1v15=True)
    assert open_classic(old, LENIENT) == b"words"
    with pytest.raises(Unopenable):
        open_classic(old, A)


def test_a_message_without_its_key_is_not_whole() -> None:
    with pytest.raises(WireError, match="cipherkey"):
        open_classic(dataclasses.replace(seal_classic(b"words", A.public), cipherkey=None), A)


def test_threads_share_a_key() -> None:
    envelopes = [seal_classic(b"%d" % number, A.public) for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda each: open_classic(each, A), envelopes)) == [b"%d" % each for each in range(16)]


# --- as JSON ---------------------------------------------------------------------------------------------------


@few
@given(words=st.binary(max_size=50), mode=modes)
def test_an_envelope_survives_the_wire(words: bytes, mode: CipherMode) -> None:
    envelope = seal_classic(words, A.public, mode=mode)
    again = Envelope.parse(json.loads(json.dumps(envelope.fields())))
    assert again == envelope
    if mode is CBC_MODE:
        relayed = envelope.relay_fields()
        assert set(relayed) == {"chat_history", "cipherkey", "iv"}
        assert Envelope.parse(relayed) == envelope
    else:
        with pytest.raises(ValueError, match="CBC"):
            envelope.relay_fields()


GOOD: dict[str, object] = {"ciphertext": "AAAA", "cipherkey": "AAAA", "iv": base64.b64encode(bytes(16)).decode()}
SHORT_IV = base64.b64encode(bytes(12)).decode()
TAG = base64.b64encode(bytes(16)).decode()


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({**GOOD}, CBC_MODE),
        ({**GOOD, "tag": None, "mode": None}, CBC_MODE),
        ({**GOOD, "mode": "cbc"}, CBC_MODE),
        ({**GOOD, "iv": SHORT_IV, "tag": TAG}, GCM_MODE),
        ({**GOOD, "iv": SHORT_IV, "tag": TAG, "mode": "gcm"}, GCM_MODE),
        ({**GOOD, "iv": SHORT_IV, "tag": TAG, "mode": "GCM", "encrypted": True}, GCM_MODE),
    ],
)
def test_the_mode_is_what_the_fields_say_or_show(fields: dict[str, object], mode: CipherMode) -> None:
    assert Envelope.parse(fields).mode is mode
    assert Envelope.parse(fields, mode=mode).mode is mode
    with pytest.raises(WireError):
        Envelope.parse(fields, mode=GCM_MODE if mode is CBC_MODE else CBC_MODE)


@pytest.mark.parametrize(
    "change",
    [
        {"ciphertext": None},
        {"iv": None},
        {"chat_history": "AAAA"},
        {"ciphertext": "AAA"},
        {"ciphertext": "AA A"},
        {"ciphertext": "AAA-"},
        {"ciphertext": "é"},
        {"ciphertext": 7},
        {"cipherkey": ["AAAA"]},
        {"iv": SHORT_IV},
        {"iv": ""},
        {"mode": "ECB"},
        {"mode": ""},
        {"mode": 1},
        {"mode": "GCM"},
        {"mode": "CBC", "tag": TAG},
        {"iv": SHORT_IV, "tag": ""},
        {"iv": SHORT_IV, "tag": TAG[:-4]},
        {"tag": TAG},
    ],
    ids=repr,
)
def test_fields_that_are_no_envelope_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(WireError):
        Envelope.parse({**GOOD, **change})


# --- streams ---------------------------------------------------------------------------------------------------


@few
@given(pieces=st.lists(st.binary(max_size=200), min_size=1, max_size=8), mode=modes, data=st.data())
def test_a_stream_is_read_piece_by_piece(pieces: list[bytes], mode: CipherMode, data: st.DataObject) -> None:
    associated_data = data.draw(st.binary(max_size=20)) if mode is GCM_MODE else b""
    sealer = ClassicStreamSealer(A.public, mode=mode, associated_data=associated_data)
    opener = ClassicStreamOpener(A, associated_data=associated_data)
    sealed = [sealer.seal(piece) for piece in pieces]
    assert [each.cipherkey is None for each in sealed] == [False] + [True] * (len(pieces) - 1)
    assert len({each.iv for each in sealed}) == len(pieces)
    assert [opener.open(Envelope.parse(each.fields())) for each in sealed] == pieces


def two_pieces(mode: CipherMode = GCM_MODE) -> tuple[ClassicStreamOpener, Envelope, Envelope]:
    sealer = ClassicStreamSealer(A.public, mode=mode)
    return ClassicStreamOpener(A), sealer.seal(b"one"), sealer.seal(b"two")


@each_mode
def test_the_first_piece_needs_its_key(mode: CipherMode) -> None:
    opener, _, second = two_pieces(mode)
    with pytest.raises(WireError, match="cipherkey"):
        opener.open(second)


@each_mode
def test_a_piece_that_came_before_is_refused(mode: CipherMode) -> None:
    opener, first, second = two_pieces(mode)
    opener.open(first)
    assert opener.open(second) == b"two"
    with pytest.raises(BadRecord, match="twice"):
        opener.open(second)


@each_mode
def test_an_iv_that_came_before_is_refused_whatever_it_is_with(mode: CipherMode) -> None:
    opener, first, second = two_pieces(mode)
    opener.open(first)
    with pytest.raises(BadRecord, match="twice"):
        opener.open(dataclasses.replace(second, iv=first.iv))


def test_a_later_piece_brings_no_key() -> None:
    opener, first, second = two_pieces()
    opener.open(first)
    with pytest.raises(BadRecord, match="key again"):
        opener.open(dataclasses.replace(second, cipherkey=first.cipherkey))


def test_a_later_piece_is_in_the_mode_of_the_first() -> None:
    opener, first, second = two_pieces()
    opener.open(first)
    with pytest.raises(BadRecord, match="mode"):
        opener.open(dataclasses.replace(second, iv=bytes(16), tag=None, mode=CBC_MODE))


def test_a_piece_of_another_stream_is_refused_under_gcm() -> None:
    opener, first, _ = two_pieces()
    _, _, stranger = two_pieces()
    opener.open(first)
    with pytest.raises(BadRecord):
        opener.open(stranger)


def test_after_a_bad_piece_even_a_good_one_is_refused() -> None:
    opener, first, second = two_pieces()
    opener.open(first)
    with pytest.raises(BadRecord):
        opener.open(flipped(second, "tag", 0))
    with pytest.raises(BadRecord):
        opener.open(second)
    fresh = ClassicStreamOpener(A)
    with pytest.raises(Unopenable):
        fresh.open(flipped(first, "tag", 0))
    with pytest.raises(BadRecord):
        fresh.open(first)


def test_pieces_that_change_places_are_not_noticed_as_the_docstring_says() -> None:
    sealer, opener = ClassicStreamSealer(A.public), ClassicStreamOpener(A)
    first, second, third = (sealer.seal(each) for each in (b"1", b"2", b"3"))
    assert [opener.open(each) for each in (first, third, second)] == [b"1", b"3", b"2"]
    assert "not counted" in (classic.__doc__ or "")


@each_mode
def test_a_source_of_randomness_that_repeats_itself_is_not_used(mode: CipherMode) -> None:
    sealer = ClassicStreamSealer(A.public, mode=mode, random=lambda size: bytes(size))
    sealer.seal(b"one")
    with pytest.raises(SealError, match="randomness"):
        sealer.seal(b"two")


def test_a_stream_has_a_bound() -> None:
    sealer, opener = ClassicStreamSealer(A.public), ClassicStreamOpener(A)
    opener.open(sealer.seal(b""))
    ivs = {number.to_bytes(16, "big") for number in range(classic.MAX_PIECES - 2)}
    sealer._ivs |= ivs
    opener._ivs |= ivs
    last = sealer.seal(b"the last")
    assert opener.open(last) == b"the last"
    with pytest.raises(TooLarge):
        sealer.seal(b"")
    with pytest.raises(BadRecord, match="more than"):
        opener.open(dataclasses.replace(last, iv=b"\xff" * 16))


def test_words_and_keys_stay_out_of_representations() -> None:
    envelope = seal_classic(b"the words", A.public, random=lambda size: b"Q" * size)
    sealer = ClassicStreamSealer(A.public, random=lambda size: b"Q" * size)
    opener = ClassicStreamOpener(A)
    opener.open(envelope)
    things: list[Any] = [envelope, sealer, opener]
    for each in things:
        shown = f"{each!r} {each}"
        for secret in (b"Q" * 8, b"the words"):
            assert secret.decode() not in shown
            assert secret.hex() not in shown
            assert base64.b64encode(secret).decode()[:8] not in shown
    assert repr(envelope) == "<Envelope CBC 16 bytes>"


@few
@given(data=st.data())
def test_no_fields_bring_the_reader_down(data: st.DataObject) -> None:
    values = st.none() | st.text(max_size=8) | st.integers() | st.sampled_from([TAG, SHORT_IV, "AAAA", "GCM", "CBC"])
    names = st.sampled_from(["ciphertext", "chat_history", "cipherkey", "iv", "tag", "mode", "other"])
    fields = data.draw(st.dictionaries(names, values))
    with contextlib.suppress(WireError, Unopenable):
        open_classic(Envelope.parse(fields), A)
