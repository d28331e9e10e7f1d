"""Every vector of spec/vectors/exchange.json holds at both ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenplace.errors import BadRecord, TokenPlaceError
from tokenplace.sealing import padding
from tokenplace.sealing.exchange import PendingAnswer, RecordOpener, answer_keys, open_request
from tokenplace.sealing.identity import Identity, verify, verify_card
from tokenplace.sealing.keys import KeyRing, SealingPrivateKey
from tokenplace.sealing.replay import ReplayGuard
from tokenplace.wire.card import Card, hello_signing_input
from tokenplace.wire.ids import NodeId
from tokenplace.wire.request import HEADER_BYTES, Kem, RequestHeader
from tokenplace.wire.stream import Record, RecordKind, RecordSplitter

VECTORS = Path(__file__).parents[3] / "spec" / "vectors"
FILE: dict[str, Any] = json.loads((VECTORS / "exchange.json").read_text("utf-8"))
REQUESTS: dict[str, dict[str, Any]] = {each["name"]: each for each in FILE["requests"]}
ANSWERS: dict[str, dict[str, Any]] = {each["name"]: each for each in FILE["answers"]}
KEYS: dict[str, SealingPrivateKey] = {
    each["name"]: SealingPrivateKey(
        Kem(each["kem"]), bytes.fromhex(each["private"]), each["not_before_ms"], each["not_after_ms"]
    )
    for each in FILE["keys"]
}


def ring(key: str) -> KeyRing:
    return KeyRing(KEYS[key])


def code_of(step: Callable[[], object]) -> str | None:
    try:
        step()
    except TokenPlaceError as error:
        return error.code
    return None


def named(*vectors: dict[str, Any]) -> list[Any]:
    return [pytest.param(each, id=each["name"]) for each in vectors]


def each_based(*vectors: dict[str, Any]) -> list[Any]:
    return [pytest.param(each, id=f"{each.get('base', 'x25519')}: {each['name']}") for each in vectors]


def test_the_recorded_vectors_are_what_their_maker_makes() -> None:
    check = [sys.executable, str(VECTORS / "make_exchange.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_sizes_are_padded_as_the_tables_say() -> None:
    for row in FILE["padding"]["request_sizes"]:
        assert padding.request_size(row["data"]) == row["padded"]
    for row in FILE["padding"]["record_sizes"]:
        assert padding.record_size(row["data"]) == row["padded"]


@pytest.mark.parametrize("vector", named(*FILE["padding"]["request_faults"]))
def test_a_wrongly_padded_request_is_refused(vector: dict[str, Any]) -> None:
    assert code_of(lambda: padding.unpad_request(bytes.fromhex(vector["padded"]))) == vector["expect"]


@pytest.mark.parametrize("vector", named(*FILE["padding"]["record_faults"]))
def test_a_wrongly_padded_record_is_refused(vector: dict[str, Any]) -> None:
    assert code_of(lambda: padding.unpad_record(bytes.fromhex(vector["padded"]))) == vector["expect"]


@pytest.mark.parametrize("vector", named(*FILE["keys"]))
def test_a_key_has_the_recorded_public_half_and_id(vector: dict[str, Any]) -> None:
    public = KEYS[vector["name"]].public()
    assert public.public.hex() == vector["public"]
    assert public.key_id.hex() == vector["key_id"]


@pytest.mark.parametrize("vector", named(*FILE["requests"]))
def test_a_recorded_request_opens(vector: dict[str, Any]) -> None:
    sealed = bytes.fromhex(vector["sealed"])
    opened = open_request(sealed, ring(vector["key"]), now_ms=vector["time_ms"])
    assert opened.body.hex() == vector["body"]
    assert opened.header.request_id.hex() == opened.job == vector["request_id"]
    assert opened.header.time_ms == vector["time_ms"]
    assert opened.header.pack().hex() == vector["header"] == sealed[:HEADER_BYTES].hex()
    assert sealed[HEADER_BYTES : HEADER_BYTES + opened.header.kem.enc_bytes].hex() == vector["enc"]
    room = len(sealed) - HEADER_BYTES - opened.header.kem.enc_bytes - 32 - 16
    assert room == vector["padded_size"] == padding.request_size(len(opened.body))


def edited(vector: dict[str, Any]) -> Iterator[bytes]:
    """The faulty requests that one rule of the file describes."""
    if "sealed" in vector:
        yield bytes.fromhex(vector["sealed"])
        return
    base = bytes.fromhex(REQUESTS[vector["base"]]["sealed"])
    if "bits_from" in vector:
        for bit in range(vector["bits_from"], vector["bits_to"]):
            changed = bytearray(base)
            changed[bit // 8] ^= 0x80 >> bit % 8
            yield bytes(changed)
    elif "keep" in vector:
        yield base[: vector["keep"]]
    elif "append" in vector:
        yield base + bytes.fromhex(vector["append"])
    else:
        yield base.ljust(vector["extend_to"], b"\0")


@pytest.mark.parametrize("vector", each_based(*FILE["request_faults"]))
def test_a_faulty_request_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    base = REQUESTS[vector.get("base", "x25519: chat")]
    keys = ring(base["key"])
    codes = {code_of(lambda: open_request(bad, keys, now_ms=base["time_ms"])) for bad in edited(vector)}  # noqa: B023
    assert codes == {vector["expect"]}


@pytest.mark.parametrize("base", ["hybrid: chat", "x25519: chat"])
def test_the_rules_flip_every_bit_of_the_header(base: str) -> None:
    rules = [each for each in FILE["request_faults"] if each.get("base") == base and "bits_from" in each]
    bits = [bit for each in rules for bit in range(each["bits_from"], each["bits_to"])]
    assert set(range(HEADER_BYTES * 8)) <= set(bits)
    assert len(bits) == len(set(bits))


@pytest.mark.parametrize("vector", named(*FILE["clock"]["fresh"]))
def test_a_request_is_taken_while_it_is_fresh(vector: dict[str, Any]) -> None:
    header = RequestHeader.parse(bytes.fromhex(REQUESTS[FILE["clock"]["request"]]["sealed"]))
    assert code_of(lambda: ReplayGuard().admit(header, vector["now_ms"])) == vector["expect"]


@pytest.mark.parametrize("vector", named(*FILE["clock"]["replayed"]))
def test_a_request_is_taken_once(vector: dict[str, Any]) -> None:
    header = RequestHeader.parse(bytes.fromhex(REQUESTS[FILE["clock"]["request"]]["sealed"]))
    guard = ReplayGuard()
    assert [code_of(lambda: guard.admit(header, at_ms)) for at_ms in vector["at_ms"]] == vector["expect"]  # noqa: B023


def asker(answer: dict[str, Any]) -> PendingAnswer:
    """The client that sent the request of a recorded answer."""
    request = REQUESTS[answer["request"]]
    header = RequestHeader.parse(bytes.fromhex(request["sealed"]))
    return PendingAnswer(header, bytes.fromhex(answer["enc"]), bytes.fromhex(answer["response_secret"]))


@pytest.mark.parametrize("vector", named(*FILE["answers"]))
def test_a_recorded_answer_opens_at_the_client(vector: dict[str, Any]) -> None:
    keys = answer_keys(*(bytes.fromhex(vector[name]) for name in ("enc", "nonce", "response_secret")))
    assert [each.hex() for each in keys] == [vector["key"], vector["base_nonce"]]
    stream = bytes.fromhex(vector["nonce_record"] + "".join(each["wire"] for each in vector["records"]))
    nonce, *records = RecordSplitter().feed(stream)
    assert nonce == Record(RecordKind.NONCE, bytes.fromhex(vector["nonce"]))
    opener = asker(vector).accept(nonce.payload)
    for record, expected in zip(records, vector["records"], strict=True):
        assert opener.next_number == expected["number"]
        assert opener.open(record).hex() == expected["data"]
    opener.finish()


@pytest.mark.parametrize("vector", named(*FILE["answers"]))
def test_the_node_seals_the_recorded_answer_byte_for_byte(vector: dict[str, Any]) -> None:
    request = REQUESTS[vector["request"]]
    opened = open_request(bytes.fromhex(request["sealed"]), ring(request["key"]), now_ms=request["time_ms"])
    sealer = opened.answer(bytes.fromhex(vector["nonce"]))
    assert sealer.nonce_record().pack().hex() == vector["nonce_record"]
    for expected in vector["records"]:
        record = sealer.seal(RecordKind(expected["kind"]), bytes.fromhex(expected["data"]))
        assert record.pack().hex() == expected["wire"]


@pytest.mark.parametrize("vector", named(*FILE["answer_faults"]))
def test_a_faulty_answer_opens_up_to_its_fault_and_no_further(vector: dict[str, Any]) -> None:
    pending = asker(ANSWERS[vector["base"]])
    nonce, *records = [record for wire in vector["wire"] for record in RecordSplitter().feed(bytes.fromhex(wire))]
    assert nonce.kind is RecordKind.NONCE
    opened: list[bytes] = []

    def read() -> None:
        opener = pending.accept(nonce.payload)
        try:
            for record in records:
                if record.kind.sealed:
                    opened.append(opener.open(record))
            opener.finish()
        except BadRecord:
            assert_sticks(opener, records)
            raise

    assert code_of(read) == vector["expect"]
    assert len(opened) == vector["opens"]


def assert_sticks(opener: RecordOpener, records: list[Record]) -> None:
    for record in records:
        assert code_of(lambda: opener.open(record)) == "bad_record"  # noqa: B023
    assert code_of(opener.finish) == "bad_record"


@pytest.mark.parametrize("vector", named(*FILE["cards"]["identities"]))
def test_a_node_id_follows_from_its_identity(vector: dict[str, Any]) -> None:
    identity = Identity.from_bytes(bytes.fromhex(vector["seed"]))
    assert identity.public.hex() == vector["public"]
    assert identity.node == vector["node"]


@pytest.mark.parametrize("vector", named(*FILE["cards"]["good"]))
def test_a_good_card_is_believed(vector: dict[str, Any]) -> None:
    card = Card.parse(vector["text"])
    assert card.text == vector["text"]
    assert card.signed.hex() == vector["signed"]
    assert card.signature.hex() == vector["signature"]
    assert card.signing_input().hex() == FILE["cards"]["signing_prefix"] + vector["signed"]
    body = verify_card(card, NodeId(vector["expected_node"]))
    assert body.identity.hex() == vector["identity"]
    assert body.sequence == vector["sequence"]
    assert [key.key_id.hex() for key in body.keys] == vector["key_ids"]
    assert [model.id for model in body.models] == vector["models"]


def test_our_node_signs_the_recorded_card_byte_for_byte() -> None:
    seed = next(each["seed"] for each in FILE["cards"]["identities"] if each["name"] == "node")
    vector = next(each for each in FILE["cards"]["good"] if each["name"] == "two keys")
    body = Card.parse(vector["text"]).body
    assert Identity.from_bytes(bytes.fromhex(seed)).sign_card(body).text == vector["text"]


@pytest.mark.parametrize("vector", named(*FILE["cards"]["faults"]))
def test_a_faulty_card_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    expected = NodeId(vector["expected_node"])
    assert code_of(lambda: verify_card(Card.parse(vector["text"]), expected)) == vector["expect"]


@pytest.mark.parametrize("vector", named(*FILE["hello"]["cases"]))
def test_a_challenge_is_answered_by_its_node_for_its_relay_only(vector: dict[str, Any]) -> None:
    nonce, signature = bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["signature"])
    message = hello_signing_input(nonce, vector["authority"])
    assert message.hex() == vector["signing_input"]
    assert verify(bytes.fromhex(vector["identity"]), signature, message) is vector["valid"]
    if vector["valid"]:
        node = Identity.from_bytes(bytes.fromhex(FILE["hello"]["seed"]))
        assert node.sign_hello(nonce, vector["authority"]) == signature
