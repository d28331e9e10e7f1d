from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import BadRecord, KeyUnknown, TooLarge, Truncated, Unopenable, WireError
from tokenplace.sealing import hpke
from tokenplace.sealing.exchange import (
    MAX_BODY,
    MAX_RECORD_DATA,
    OpenedRequest,
    PendingAnswer,
    RecordOpener,
    RecordSealer,
    open_request,
    seal_request,
)
from tokenplace.sealing.keys import KeyRing
from tokenplace.wire.limits import MAX_RECORD, MAX_REQUEST
from tokenplace.wire.request import Kem
from tokenplace.wire.stream import Record, RecordKind

NOW = 1_767_225_600_000
HEAD, DATA, FINAL, ABORT = RecordKind.HEAD, RecordKind.DATA, RecordKind.FINAL, RecordKind.ABORT
RINGS = {kem: KeyRing.generate(now_ms=NOW, kem=kem) for kem in Kem}

few = settings(max_examples=25, deadline=None, database=None)
both_kems = pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.name)


def exchange(body: bytes = b"words", kem: Kem = Kem.X25519_MLKEM768) -> tuple[PendingAnswer, OpenedRequest]:
    sealed, pending = seal_request(body, RINGS[kem].public_keys(NOW)[0], now_ms=NOW)
    return pending, open_request(sealed, RINGS[kem], now_ms=NOW)


def both_ends() -> tuple[RecordSealer, RecordOpener]:
    pending, opened = exchange(kem=Kem.X25519)
    sealer = opened.answer()
    return sealer, pending.accept(sealer.nonce)


@few
@given(body=st.binary(max_size=5000), kem=st.sampled_from(list(Kem)))
def test_the_node_reads_what_the_client_sealed(body: bytes, kem: Kem) -> None:
    pending, opened = exchange(body, kem)
    assert opened.body == body
    assert opened.job == pending.job
    assert opened.header == pending.header
    assert opened.header.time_ms == NOW


@few
@given(pieces=st.lists(st.binary(max_size=300), max_size=8), end=st.sampled_from([FINAL, ABORT]))
def test_the_client_reads_what_the_node_answered(pieces: list[bytes], end: RecordKind) -> None:
    sealer, opener = both_ends()
    parts = [(HEAD, b"{}"), *((DATA, piece) for piece in pieces), (end, b"the end")]
    records = [sealer.seal(kind, data) for kind, data in parts]
    assert [opener.open(record) for record in records] == [data for _, data in parts]
    assert sealer.ended
    assert opener.ended
    assert opener.next_number == sealer.next_number == len(parts)
    opener.finish()


@few
@given(data=st.data())
def test_no_rearrangement_of_an_answer_is_taken_for_the_answer(data: st.DataObject) -> None:
    sealer, opener = both_ends()
    records = [sealer.seal(HEAD), sealer.seal(DATA, b"same"), sealer.seal(DATA, b"same"), sealer.seal(FINAL)]
    stream = data.draw(st.lists(st.sampled_from(range(4)), max_size=6).filter(lambda order: order != [0, 1, 2, 3]))

    def read() -> None:
        for index in stream:
            opener.open(records[index])
        opener.finish()

    with pytest.raises((BadRecord, Truncated)):
        read()


@both_kems
def test_two_seals_of_the_same_words_have_nothing_in_common_but_their_key(kem: Kem) -> None:
    key = RINGS[kem].public_keys(NOW)[0]
    (first, one), (second, two) = (seal_request(b"words", key, now_ms=NOW) for _ in range(2))
    assert len(first) == len(second)
    assert first[40:] != second[40:]
    assert one.job != two.job


def test_an_answer_to_one_request_does_not_open_for_another() -> None:
    pending, _ = exchange()
    _, other = exchange()
    sealer = other.answer()
    with pytest.raises(BadRecord):
        pending.accept(sealer.nonce).open(sealer.seal(HEAD))


def test_a_second_answer_to_the_same_request_has_keys_of_its_own() -> None:
    pending, opened = exchange()
    first, second = opened.answer(), opened.answer()
    assert first.nonce != second.nonce
    assert first.seal(HEAD, b"{}") != second.seal(HEAD, b"{}")
    assert pending.accept(second.nonce).ended is False


def test_a_request_to_another_node_says_that_the_key_is_unknown() -> None:
    sealed, _ = seal_request(b"words", RINGS[Kem.X25519].public_keys(NOW)[0], now_ms=NOW)
    with pytest.raises(KeyUnknown):
        open_request(sealed, KeyRing.generate(now_ms=NOW), now_ms=NOW)


def test_a_key_that_hides_behind_the_id_of_another_kind_is_not_used() -> None:
    sealed, _ = seal_request(b"words", RINGS[Kem.X25519].public_keys(NOW)[0], now_ms=NOW)
    hybrid_id = RINGS[Kem.X25519_MLKEM768].public_keys(NOW)[0].key_id
    with pytest.raises(KeyUnknown):
        open_request(sealed[:2] + hybrid_id + sealed[10:], RINGS[Kem.X25519_MLKEM768], now_ms=NOW)


@both_kems
def test_the_largest_body_fits_and_one_more_byte_does_not(kem: Kem) -> None:
    key = RINGS[kem].public_keys(NOW)[0]
    body = b"x" * MAX_BODY
    sealed, _ = seal_request(body, key, now_ms=NOW)
    assert len(sealed) <= MAX_REQUEST
    assert open_request(sealed, RINGS[kem], now_ms=NOW).body == body
    with pytest.raises(TooLarge):
        seal_request(body + b"x", key, now_ms=NOW)


def test_the_largest_record_fits_and_one_more_byte_does_not() -> None:
    sealer, opener = both_ends()
    opener.open(sealer.seal(HEAD))
    with pytest.raises(TooLarge):
        sealer.seal(DATA, b"x" * (MAX_RECORD_DATA + 1))
    record = sealer.seal(DATA, b"x" * MAX_RECORD_DATA)
    assert len(record.payload) <= MAX_RECORD
    assert opener.open(record) == b"x" * MAX_RECORD_DATA


@both_kems
@pytest.mark.parametrize("change", [lambda public: public[:-1], lambda public: public + b"\0", lambda public: b""])
def test_a_card_with_a_misshapen_key_is_not_sealed_to(kem: Kem, change: Callable[[bytes], bytes]) -> None:
    key = RINGS[kem].public_keys(NOW)[0]
    with pytest.raises(WireError, match="sealing key"):
        seal_request(b"words", dataclasses.replace(key, public=change(key.public)), now_ms=NOW)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)], ids=["zero", "one"])
def test_a_point_that_would_give_everybody_the_same_secret_is_not_sealed_to(point: bytes) -> None:
    for kem in Kem:
        key = RINGS[kem].public_keys(NOW)[0]
        with pytest.raises(WireError, match="sealing key"):
            seal_request(b"words", dataclasses.replace(key, public=key.public[:-32] + point), now_ms=NOW)


@pytest.mark.parametrize("kem", list(Kem))
def test_bytes_that_nobody_sealed_are_unopenable(kem: Kem) -> None:
    sealed, _ = seal_request(b"words", RINGS[kem].public_keys(NOW)[0], now_ms=NOW)
    with pytest.raises(Unopenable):
        open_request(sealed[:40] + bytes(len(sealed) - 40), RINGS[kem], now_ms=NOW)


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ([], DATA),
        ([], FINAL),
        ([HEAD], HEAD),
        ([HEAD, DATA], HEAD),
        ([HEAD, FINAL], DATA),
        ([HEAD, FINAL], FINAL),
        ([HEAD, FINAL], ABORT),
        ([ABORT], HEAD),
        ([ABORT], ABORT),
        ([], RecordKind.NONCE),
        ([HEAD], RecordKind.NOTICE),
        ([HEAD], RecordKind.OUTCOME),
    ],
)
def test_a_record_out_of_its_order_is_neither_sealed_nor_opened(before: list[RecordKind], kind: RecordKind) -> None:
    sealer, opener = both_ends()
    for each in before:
        opener.open(sealer.seal(each))
    with pytest.raises(ValueError, match=kind.name):
        sealer.seal(kind)
    assert sealer.next_number == len(before)
    with pytest.raises(BadRecord):
        opener.open(Record(kind, bytes(80)))


def test_after_a_bad_record_even_the_right_one_is_refused() -> None:
    sealer, opener = both_ends()
    head, data = sealer.seal(HEAD, b"{}"), sealer.seal(DATA, b"words")
    opener.open(head)
    with pytest.raises(BadRecord) as first:
        opener.open(head)
    for step in (lambda: opener.open(data), opener.finish):
        with pytest.raises(BadRecord) as again:
            step()
        assert again.value.message == first.value.message
    assert opener.next_number == 1
    assert not opener.ended


def test_a_stream_without_its_end_is_truncated_until_the_end_comes() -> None:
    sealer, opener = both_ends()
    with pytest.raises(Truncated):
        opener.finish()
    opener.open(sealer.seal(HEAD))
    with pytest.raises(Truncated):
        opener.finish()
    opener.open(sealer.seal(FINAL))
    opener.finish()


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_a_nonce_of_another_length_is_refused(nonce: bytes) -> None:
    pending, opened = exchange()
    with pytest.raises(WireError, match="nonce"):
        pending.accept(nonce)
    with pytest.raises(WireError, match="nonce"):
        opened.answer(nonce)


def test_words_and_secrets_stay_out_of_representations() -> None:
    secret = b"S" * 32
    key = RINGS[Kem.X25519].public_keys(NOW)[0]
    sealed, pending = seal_request(b"the words", key, now_ms=NOW, random=lambda size: b"S" * size)
    opened = open_request(sealed, RINGS[Kem.X25519], now_ms=NOW)
    sealer = opened.answer()
    opener = pending.accept(sealer.nonce)
    for each in (pending, opened, sealer, opener):
        shown = f"{each!r} {each}"
        assert "the words" not in shown
        assert secret.decode() not in shown
        assert sealed[40:72].hex() not in shown
    assert pending.job in repr(pending)


def test_hpke_opens_only_under_the_same_info() -> None:
    raw = b"k" * 32
    sealed = hpke.seal(Kem.X25519, hpke.public_bytes(Kem.X25519, raw), info=b"this", plaintext=b"words")
    private = hpke.load_private(Kem.X25519, raw)
    assert hpke.unseal(Kem.X25519, private, info=b"this", sealed=sealed) == b"words"
    with pytest.raises(Unopenable):
        hpke.unseal(Kem.X25519, private, info=b"that", sealed=sealed)
