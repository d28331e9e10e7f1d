from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from original import OriginalKeys, text
from tokenplace.node.api import NodeApi
from tokenplace.node.build import ECHO
from tokenplace.node.classic import ClassicDoor, ClassicKeys
from tokenplace.node.classic.door import REFUSED_AFTER
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.openai.events import EventParser
from tokenplace.openai.screening import PhraseScreen
from tokenplace.sealing.classic import Envelope, open_classic
from tokenplace.sealing.rsa import ClassicKey
from tokenplace.wire.classic import ClassicCard, ClassicRequest, Door

FILE: dict[str, Any] = json.loads((Path(__file__).parents[4] / "spec" / "vectors" / "classic.json").read_text("utf-8"))
VECTORS: dict[str, dict[str, Any]] = {each["id"]: each for each in FILE["vectors"]}
OURS = {
    old: {name: ClassicKey.from_pem(FILE["keys"][name]["private_key_pem"], pkcs1v15=old) for name in ("A", "B")}
    for old in (False, True)
}
THEM, OTHER = OriginalKeys(), OriginalKeys()
HELLO = [{"role": "user", "content": "Hello you"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


async def a_door(*, key: str = "A", old: bool = False, blocked: tuple[str, ...] = ()) -> ClassicDoor:
    """A door before the echo engine, with a key of the vectors."""
    engine = EchoEngine()
    await engine.start()
    api = NodeApi(engine, traits=ECHO, screen=PhraseScreen(blocked) if blocked else None)
    keys = ClassicKeys(pkcs1v15=old, make=lambda pkcs1v15: OURS[pkcs1v15][key])
    await keys.rotate()
    return ClassicDoor(api, engine, keys)


def key_of(door: ClassicDoor) -> str:
    card = door.keys.card()
    assert card is not None
    return card.key


class Heard:
    """The answer to a call that came inside the exchange."""

    def __init__(self, status: int, content_type: str, body: bytes, usage: dict[str, Any]) -> None:
        self.status, self.content_type, self.body, self.usage = status, content_type, body, usage

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


async def ask(door: ClassicDoor, path: str, **fields: Any) -> Heard:
    async with door.answer(path, json.dumps(fields).encode()) as answer:
        body = b"".join([chunk async for chunk in answer.body()])
        return Heard(answer.status, answer.content_type, body, answer.usage)


async def chat(door: ClassicDoor, sealed: Mapping[str, Any], **fields: Any) -> Heard:
    asked = {"model": "echo", "encrypted": True, "client_public_key": THEM.key, "messages": sealed, **fields}
    return await ask(door, CHAT, **{name: value for name, value in asked.items() if value is not ...})


async def relay_lines(door: ClassicDoor, body: Mapping[str, Any], **fields: Any) -> tuple[int, list[Any], Any]:
    """Status, messages and error of a request in the open."""
    async with door.answer_open(ClassicRequest(Door.RELAY, body, **fields).pack()) as reply:
        return reply.status, [message async for message in reply.messages], reply.error


# ── Requests of an API ───────────────────────────────────────────────────────────────────────────────────────────


async def test_an_encrypted_chat_is_answered_with_the_whole_response_sealed_to_the_asker() -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door)))
    assert (heard.status, heard.json["encrypted"], heard.json["data"]["encrypted"]) == (200, True, True)
    assert set(heard.json["data"]) == {"encrypted", "ciphertext", "cipherkey", "iv"}
    response = THEM.open(heard.json["data"])
    assert response["object"] == "chat.completion"
    assert response["choices"][0]["message"]["content"] == "echo: Hello you"
    assert heard.usage["total_tokens"] == response["usage"]["total_tokens"] > 0
    assert b"Hello" not in heard.body


@pytest.mark.parametrize("spelt", [THEM.key, THEM.pem, text(THEM.der)], ids=["base64 of PEM", "PEM", "base64 of DER"])
async def test_the_askers_key_may_be_spelt_in_three_ways(spelt: str) -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door)), client_public_key=spelt)
    assert THEM.open(heard.json["data"])["object"] == "chat.completion"


async def test_options_beside_the_sealed_words_are_honoured() -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door)), max_tokens=1, metadata={"mine": "yes"})
    response = THEM.open(heard.json["data"])
    assert (response["choices"][0]["finish_reason"], response["metadata"]) == ("length", {"mine": "yes"})


@pytest.mark.parametrize("associated", [b"", b"session 7"])
async def test_a_gcm_request_gets_a_gcm_answer_with_its_associated_data(associated: bytes) -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door), gcm=associated))
    data = heard.json["data"]
    assert data["mode"] == "GCM"
    assert base64.b64decode(data.get("associated_data", "")) == associated
    assert THEM.open(data)["choices"][0]["message"]["content"] == "echo: Hello you"


@pytest.mark.parametrize("gcm", [None, b"bound"])
async def test_a_stream_is_one_envelope_for_each_chunk_and_one_key_for_all(gcm: bytes | None) -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door), gcm=gcm), stream=True)
    assert heard.content_type.startswith("text/event-stream")
    *events, done = EventParser().feed(heard.body)
    assert done.done
    told = [json.loads(event.data) for event in events]
    assert {(each["event"], each["encrypted"], each["stream_session_id"]) for each in told} == {
        ("delta", True, told[0]["data"]["stream_session_id"])
    }
    assert ["cipherkey" in each["data"] for each in told] == [True] + [False] * (len(told) - 1)
    chunks = [THEM.open(each["data"]) for each in told]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "echo: Hello you"


async def test_the_sizes_of_a_streams_pieces_do_not_spell_the_words() -> None:
    door = await a_door()
    words = "a antidisestablishmentarianism of incomprehensibilities"
    heard = await chat(door, THEM.seal([{"role": "user", "content": words}], key_of(door)), stream=True)
    told = [json.loads(event.data) for event in EventParser().feed(heard.body) if not event.done]
    with_words = told[1:-1]
    assert len({len(each["data"]["ciphertext"]) for each in with_words}) == 1


async def test_of_a_completion_only_the_answer_is_sealed() -> None:
    door = await a_door()
    asked = {"model": "echo", "prompt": "once", "encrypted": True, "client_public_key": THEM.key}
    heard = await ask(door, COMPLETIONS, **asked)
    assert THEM.open(heard.json["data"])["choices"][0]["text"] == "echo: once"
    streamed = await ask(door, COMPLETIONS, **asked, stream=True)
    events = [event for event in EventParser().feed(streamed.body) if not event.done]
    assert {THEM.open(json.loads(event.data)["data"])["object"] for event in events} == {"text_completion"}


async def test_plain_calls_pass_as_if_there_were_no_door() -> None:
    door = await a_door()
    heard = await ask(door, CHAT, model="echo", messages=[{"role": "user", "content": 'say "encrypted" twice'}])
    assert heard.json["choices"][0]["message"]["content"] == 'echo: say "encrypted" twice'
    assert (await ask(door, "/v1/none", encrypted=True)).error["code"] == "unknown_url"


# ── Requests of a relay ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_chat_over_a_relay_is_answered_with_the_whole_history() -> None:
    door = await a_door()
    body = {"client_public_key": THEM.key, **THEM.seal_relay(HELLO, key_of(door))}
    status, messages, error = await relay_lines(door, body)
    assert (status, error) == (200, None)
    assert set(messages[0]) == {"chat_history", "cipherkey", "iv"}
    assert THEM.open(messages[0]) == [*HELLO, {"role": "assistant", "content": "echo: Hello you"}]


async def test_one_string_over_a_relay_is_what_the_user_says() -> None:
    door = await a_door()
    _, messages, _ = await relay_lines(
        door, {"client_public_key": THEM.key, **THEM.seal_relay("Hello you", key_of(door))}
    )
    assert THEM.open(messages[0])[-1]["content"] == "echo: Hello you"


async def test_a_stream_over_a_relay_is_pieces_of_one_stream() -> None:
    door = await a_door()
    body = {"client_public_key": THEM.key, **THEM.seal_relay(HELLO, key_of(door))}
    _, messages, _ = await relay_lines(door, body, stream=True)
    assert len(messages) > 2
    chunks = [THEM.open(message) for message in messages]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "echo: Hello you"


async def test_what_the_original_client_sent_to_a_relay_is_answered() -> None:
    vector = VECTORS["wire-faucet-request"]
    door = await a_door(key="B")
    status, messages, error = await relay_lines(door, vector["json"])
    assert (status, error) == (200, None)
    opened = json.loads(open_classic(Envelope.parse(messages[0]), OURS[False]["A"]))
    assert opened[:-1] == vector["plaintext_json"]
    assert (opened[-1]["role"], opened[-1]["content"][:5]) == ("assistant", "echo:")


@pytest.mark.parametrize(
    "name", ["cbc-json-chat-long", "cbc-json-chat-unicode-escaped", "gcm-json", "cbc-pkcs1v15", "js-cbc-chat"]
)
async def test_chats_that_the_original_sealed_open_here(name: str) -> None:
    vector = VECTORS[name]
    if vector["key"] not in ("A", "B"):
        pytest.skip("sealed to a key of another length")
    door = await a_door(key=vector["key"], old=vector["rsa_padding"] == "PKCS1v15")
    names: tuple[str, ...] = ("ciphertext", "cipherkey", "iv", "tag")
    parts = {part: vector[part] for part in names if part in vector}
    heard = await chat(door, parts)
    assert heard.status == 200
    words = json.loads(base64.b64decode(vector["plaintext_b64"]))
    said = (THEM.open(heard.json["data"], pkcs1v15="PKCS1" in vector["rsa_padding"]))["choices"][0]["message"]
    assert said["content"].endswith(words[-1]["content"].split()[-1])


# ── One answer to whatever does not open ─────────────────────────────────────────────────────────────────────────


def flipped(parts: dict[str, Any], name: str, place: int) -> dict[str, Any]:
    data = bytearray(base64.b64decode(parts[name]))
    data[place] ^= 1
    return {**parts, name: text(bytes(data))}


def faults(to: str) -> dict[str, dict[str, Any]]:
    """Requests with one fault each."""
    good = THEM.seal(HELLO, to)
    gcm = THEM.seal(HELLO, to, gcm=b"bound")
    return {
        "another key": THEM.seal(HELLO, OTHER.key),
        "altered key": flipped(good, "cipherkey", 40),
        "altered padding": flipped(THEM.seal(HELLO, to), "ciphertext", -1),
        "altered block": flipped(THEM.seal(HELLO, to), "ciphertext", 3),
        "no JSON": THEM.seal(b"\x00\xff plain", to),
        "no list": THEM.seal({"role": "user"}, to),
        "a key smuggled in": THEM.seal(b'[], "model": "other"', to),
        "empty": {**THEM.seal(HELLO, to), "ciphertext": ""},
        "short key": {**THEM.seal(HELLO, to), "cipherkey": text(b"short")},
        "altered tag": flipped(gcm, "tag", 0),
        "other associated data": {**THEM.seal(HELLO, to, gcm=b"bound"), "associated_data": text(b"other")},
    }


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("fault", list(faults(THEM.key)))
async def test_whatever_does_not_open_has_one_answer_and_takes_as_long(fault: str, old: bool) -> None:
    door = await a_door(old=old)
    parts = faults(key_of(door))[fault]
    began = time.monotonic()
    heard = await chat(door, parts)
    assert time.monotonic() - began >= REFUSED_AFTER
    again = THEM.seal(HELLO, key_of(door))
    await chat(door, again)
    began = time.monotonic()
    replayed = await chat(door, again)
    assert time.monotonic() - began >= REFUSED_AFTER
    assert (heard.status, heard.body, heard.content_type) == (400, replayed.body, replayed.content_type)
    assert heard.error["code"] == heard.error["type"] == "encryption_error"


async def test_a_request_is_answered_once_also_for_who_copies_it_with_a_key_of_his_own() -> None:
    door = await a_door()
    captured = THEM.seal(HELLO, key_of(door))
    assert (await chat(door, captured)).status == 200
    stolen = await chat(door, captured, client_public_key=OTHER.key)
    assert stolen.error["code"] == "encryption_error"
    relayed = {"client_public_key": OTHER.key, "chat_history": captured["ciphertext"]}
    _, _, error = await relay_lines(door, {**relayed, "cipherkey": captured["cipherkey"], "iv": captured["iv"]})
    assert error is not None
    assert error.code == "encryption_error"


async def test_many_copies_at_once_are_answered_once() -> None:
    door = await a_door()
    captured = THEM.seal(HELLO, key_of(door))
    heard = await asyncio.gather(*(chat(door, captured) for _ in range(8)))
    assert sorted(each.status for each in heard) == [200] + [400] * 7


# ── What anybody can see is told by name ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"client_public_key": ...}, "client_public_key"),
        ({"client_public_key": 7}, "client_public_key"),
        ({"client_public_key": "not a key"}, "client_public_key"),
        ({"client_public_key": "A" * 20_000}, "client_public_key"),
        ({"messages": ...}, "messages"),
        ({"messages": HELLO}, "messages"),
        ({"messages": "words"}, "messages"),
        ({"key_id": 7}, "key_id"),
        ({"key_id": "xyz"}, "key_id"),
        ({"key_id": "A" * 16}, "key_id"),
        ({"encrypted": "yes"}, "encrypted"),
    ],
)
async def test_a_field_that_cannot_be_is_named(change: dict[str, Any], param: str) -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door)), **change)
    assert (heard.status, heard.error["param"]) == (400, param)


@pytest.mark.parametrize("name", ["ciphertext", "cipherkey", "iv"])
@pytest.mark.parametrize("value", [None, 7, ["QUJD"], "%%%", "QUJD\n", "QUI", "Ä"])
async def test_a_part_that_is_no_strict_base64_is_named(name: str, value: Any) -> None:
    door = await a_door()
    heard = await chat(door, {**THEM.seal(HELLO, key_of(door)), name: value})
    assert (heard.status, heard.error["param"]) == (400, f"messages.{name}")


@pytest.mark.parametrize(
    "change",
    [
        {"iv": text(bytes(12))},
        {"mode": "ECB"},
        {"mode": "GCM"},
        {"tag": text(bytes(16))},
        {"mode": "CBC", "tag": text(bytes(16))},
        {"associated_data": text(b"bound")},
    ],
)
async def test_an_envelope_that_contradicts_itself_is_told_so(change: dict[str, Any]) -> None:
    door = await a_door()
    heard = await chat(door, {**THEM.seal(HELLO, key_of(door)), **change})
    assert heard.status == 400
    assert heard.error["param"].startswith("messages")
    assert heard.error["code"] == "invalid_value"


@pytest.mark.parametrize("bits", [1024, 8192 + 256])
async def test_an_askers_key_that_is_too_small_or_too_large_is_refused_and_leaves_the_message_unread(bits: int) -> None:
    door = await a_door()
    parts = THEM.seal(HELLO, key_of(door))
    if bits == 1024:
        bad = OriginalKeys(bits).key
    else:
        numbers = bytes([0x80]) + os.urandom(bits // 8 - 2) + b"\1"
        bad = _der_of(int.from_bytes(numbers, "big"))
    heard = await chat(door, parts, client_public_key=bad)
    assert (heard.status, heard.error["param"]) == (400, "client_public_key")
    assert (await chat(door, parts)).status == 200


def _der_of(modulus: int) -> str:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = RSAPublicNumbers(65537, modulus).public_key()
    return text(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


async def test_an_askers_key_for_something_else_than_rsa_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    door = await a_door()
    pem = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    heard = await chat(door, THEM.seal(HELLO, key_of(door)), client_public_key=pem.decode())
    assert (heard.status, heard.error["param"]) == (400, "client_public_key")


async def test_bytes_that_are_no_request_are_refused_in_the_open() -> None:
    door = await a_door()
    deep = b'{"door":"api","path":"/v1/chat/completions","body":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"
    for data in (
        b"\1\0" + bytes(16) + b"junk",
        b"\1\0" + bytes(16) + deep,
        b"\1\0" + bytes(16) + deep.replace(b"[", b"[" * 200).replace(b"]", b"]" * 200),
        ClassicRequest(Door.API, {}, "/v1/embeddings").pack(),
        ClassicRequest(Door.API, {}, "/v1/chat/completions").pack(),
        ClassicRequest(Door.RELAY, {}).pack(),
    ):
        async with door.answer_open(data) as reply:
            assert reply.status >= 400
            assert reply.error is not None


# ── Refusals of what was opened ──────────────────────────────────────────────────────────────────────────────────


async def test_a_refusal_of_sealed_words_quotes_none_of_them() -> None:
    door = await a_door()
    for secret in (
        [{"role": "the secret role", "content": "x"}],
        [{"role": "user", "content": "x", "the secret field": 1}],
        [{"role": "user", "content": [{"type": "the secret type"}]}],
    ):
        heard = await chat(door, THEM.seal(secret, key_of(door)))
        assert heard.status == 400
        assert b"secret" not in heard.body
        assert heard.error["param"] == "messages[0]"


async def test_options_that_cannot_be_honoured_and_unknown_models_are_told_as_ever() -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door)), logprobs=True)
    assert (heard.status, heard.error["param"]) == (400, "logprobs")
    heard = await chat(door, THEM.seal(HELLO, key_of(door)), model="none")
    assert (heard.status, heard.error["code"]) == (404, "model_not_found")


async def test_blocked_words_are_refused_though_they_were_sealed() -> None:
    door = await a_door(blocked=("forbidden fruit",))
    sealed = THEM.seal([{"role": "user", "content": "Forbidden  FRUIT"}], key_of(door))
    assert (await chat(door, sealed)).error["code"] == "content_blocked"


# ── Old padding ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_old_padding_does_not_open_unless_it_is_switched_on() -> None:
    door = await a_door()
    heard = await chat(door, THEM.seal(HELLO, key_of(door), pkcs1v15=True))
    assert heard.error["code"] == "encryption_error"


async def test_who_asks_with_the_old_padding_is_answered_with_it_and_named_in_the_log() -> None:
    door = await a_door(old=True)
    with capture_logs() as logs:
        old = await chat(door, THEM.seal(HELLO, key_of(door), pkcs1v15=True))
        new = await chat(door, THEM.seal(HELLO, key_of(door)))
    assert THEM.open(old.json["data"], pkcs1v15=True)["choices"][0]["message"]["content"] == "echo: Hello you"
    assert THEM.open(new.json["data"])["choices"][0]["message"]["content"] == "echo: Hello you"
    assert [each for each in logs if each["event"] == "classic.old_padding"] == [
        {"event": "classic.old_padding", "door": "api", "log_level": "warning"}
    ]
    assert (door.counts["opened"], door.counts["pkcs1v15"]) == (2, 1)


async def test_a_node_that_takes_the_old_padding_warns_at_its_start_and_says_so_in_its_card() -> None:
    door = await a_door(old=True)
    with capture_logs() as logs:
        keeping = asyncio.create_task(door.keys.keep())
        await asyncio.sleep(0)
        keeping.cancel()
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["classic.pkcs1v15"]
    card = ClassicCard.of(door.card_fields())
    assert card is not None
    assert card.pkcs1v15
