"""CryptoClient by the contract: its names, its Nones, its patience, and what it does when servers change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import tokenplace.client as room
from tokenplace.client import CryptoClient
from tokenplace.sealing.classic import ClassicStreamSealer, Envelope, open_classic, seal_classic
from tokenplace.sealing.rsa import ClassicKey, ClassicPublicKey
from unit.client.classic_double import Double, Reply, serving

ASK = [{"role": "user", "content": "hello"}]
ANSWER = [*ASK, {"role": "assistant", "content": "good day"}]
CHUNKS = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("good ", "day")]
NOTHING = {"error": "No response available for the given public key"}


@pytest.fixture(scope="module")
def keys() -> list[ClassicKey]:
    """Making them takes the longest: the client's, and two of servers."""
    return [ClassicKey.generate() for _ in range(3)]


class Server:
    """The far end: seals and opens as a node does, and lets a test decide the rest."""

    def __init__(self, key: ClassicKey) -> None:
        self.key = key
        self.slept: list[float] = []
        self.asked: list[Any] = []

    def opened(self, content: dict[str, Any]) -> Any:
        words = json.loads(open_classic(Envelope.parse(content), self.key))
        self.asked.append(words)
        return words

    def sealed(self, content: Any, to: str) -> Envelope:
        return seal_classic(json.dumps(content).encode(), ClassicPublicKey.parse(to))

    def client(self, double: Double, key: ClassicKey, **options: Any) -> CryptoClient:
        return CryptoClient(double.url, key=key, sleep=self.slept.append, **options)


def test_importing_the_room_does_not_import_the_client() -> None:
    code = "import sys, tokenplace.client; sys.exit('cryptography' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="NothingOfTheKind"):
        _ = room.NothingOfTheKind


@pytest.mark.parametrize("url", ["relay.example", "ftp://relay.example", "", "http://"])
def test_a_base_url_is_http(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        CryptoClient(url)


def test_a_slash_at_the_end_of_the_base_url_is_cut(keys: list[ClassicKey]) -> None:
    assert CryptoClient("http://relay.example/", key=keys[0]).base_url == "http://relay.example"


@pytest.mark.parametrize("field", ["server_public_key", "public_key"])
def test_a_server_s_key_is_fetched_under_either_name(keys: list[ClassicKey], field: str) -> None:
    with serving(lambda *_: (200, {field: keys[1].public.wire})) as double:
        client = CryptoClient(double.url, key=keys[0])
        assert not client.has_server_public_key()
        assert client.fetch_server_public_key("/some/where") is True
        assert client.has_server_public_key()
        assert client.server_public_key == keys[1].public_pem
        assert double.paths() == ["/some/where"]


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"error": {"message": "nobody", "code": 503}}),
        (200, {"server_public_key": "nonsense"}),
        (200, {}),
        (200, b"<html>"),
        (200, []),
    ],
)
def test_no_key_is_false(keys: list[ClassicKey], reply: Reply) -> None:
    with serving(lambda *_: reply) as double:
        client = CryptoClient(double.url, key=keys[0])
        assert client.fetch_server_public_key() is False
        assert client.last_error is not None


def test_a_relay_that_is_not_there_is_none_and_false(keys: list[ClassicKey]) -> None:
    client = CryptoClient("http://127.0.0.1:9", key=keys[0])
    assert client.fetch_server_public_key() is False
    assert client.send_chat_message("hello") is None
    assert client.send_api_request(ASK) is None
    assert client.send_encrypted_message("/faucet", {}) is None
    assert client.last_error is not None
    assert client.last_error.code == "relay_unreachable"


def test_messages_are_sealed_to_the_server_and_opened_by_us(keys: list[ClassicKey]) -> None:
    with serving(lambda *_: (200, {"server_public_key": keys[1].public.wire})) as double:
        client = CryptoClient(double.url, key=keys[0])
        with pytest.raises(ValueError, match="fetch_server_public_key"):
            client.encrypt_message("too early")
        client.fetch_server_public_key()
        for message in ({"a": 1}, [1, "é"], "text", b"bytes"):
            sealed = client.encrypt_message(message)
            assert set(sealed) == {"ciphertext", "cipherkey", "iv"}
            words = open_classic(Envelope.parse(sealed), keys[1])
            assert json.loads(words) == message if isinstance(message, dict | list) else words in (b"text", b"bytes")
        with pytest.raises(ValueError, match="no message"):
            client.encrypt_message(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            client.encrypt_message(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("words", "read"), [(b'{"a": 1}', {"a": 1}), (b"text", "text"), (b"", ""), (b"[1]    ", [1])])
def test_what_is_sealed_to_us_is_json_or_text(keys: list[ClassicKey], words: bytes, read: object) -> None:
    client = CryptoClient("http://relay.example", key=keys[0])
    to_us = ClassicPublicKey.parse(client.client_public_key_b64)
    assert client.decrypt_message(seal_classic(words, to_us).fields()) == read
    assert client.decrypt_message(seal_classic(words, to_us).relay_fields()) == read


def test_what_is_not_sealed_to_us_is_none_and_what_is_no_text_is_an_error(keys: list[ClassicKey]) -> None:
    client = CryptoClient("http://relay.example", key=keys[0])
    assert client.decrypt_message(seal_classic(b"{}", keys[1].public).fields()) is None
    assert client.decrypt_message({"ciphertext": "nonsense"}) is None
    with pytest.raises(UnicodeDecodeError):
        client.decrypt_message(seal_classic(b"\xff", keys[0].public).fields())


def test_at_an_original_relay_it_polls_as_the_original_did(keys: list[ClassicKey]) -> None:
    server, polls = Server(keys[1]), 0

    def answer(path: str, content: dict[str, Any]) -> Reply:
        nonlocal polls
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            server.opened(content)
            return 200, {"message": "Request received"}
        polls += 1
        if polls < 3:
            return 200, NOTHING
        return 200, server.sealed(ANSWER, content["client_public_key"]).relay_fields()

    with serving(answer) as double:
        client = server.client(double, keys[0])
        assert client.send_chat_message("hello") == ANSWER
        assert server.asked == [ASK]
        assert server.slept == [3.0, 2.0, 2.0]
        assert double.heard[-1][1] == {"client_public_key": client.client_public_key_b64}


def test_at_an_original_relay_it_gives_up_after_its_tries(keys: list[ClassicKey]) -> None:
    server = Server(keys[1])

    def answer(path: str, _: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        return 200, {"message": "ok"} if path == "/faucet" else NOTHING

    with serving(answer) as double:
        client = server.client(double, keys[0])
        assert client.send_chat_message(ASK, max_retries=3) is None
        assert double.paths().count("/retrieve") == 3
        assert client.retrieve_chat_response(max_retries=2, retry_delay=0.5) is None
        assert server.slept == [3.0, 2.0, 2.0, 0.5]


def test_at_our_relay_it_waits_there_and_shows_its_token(keys: list[ClassicKey]) -> None:
    server = Server(keys[1])

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            assert content["bound"] is True
            return 200, {"message": "ok", "request_id": "r1", "retrieve_token": "t1"}
        assert (content["request_id"], content["retrieve_token"]) == ("r1", "t1")
        assert content["wait"] > 1
        if len(double.heard) < 5:
            return 200, {**NOTHING, "reason": "pending", "state": "waiting"}
        return 200, server.sealed(ANSWER, content["client_public_key"]).relay_fields()

    with serving(answer) as double:
        assert server.client(double, keys[0]).send_chat_message("hello", max_retries=1) == ANSWER
        assert server.slept == []


def test_connections_that_break_while_it_waits_cost_nothing_but_time(keys: list[ClassicKey]) -> None:
    server = Server(keys[1])

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            return 200, {"message": "ok", "request_id": "r", "retrieve_token": "t"}
        if len(double.heard) < 6:
            return None
        return 200, server.sealed(ANSWER, content["client_public_key"]).relay_fields()

    with serving(answer) as double:
        assert server.client(double, keys[0]).send_chat_message("hello") == ANSWER
        assert server.slept == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("/faucet", (404, {"error": "No server with this key.", "reason": "node_unknown"})),
        ("/faucet", (404, {"error": "Server not found"})),
        ("/retrieve", (200, {"error": "The node vanished.", "reason": "node_lost"})),
        ("/retrieve", (200, {"error": "The key was replaced.", "reason": "key_expired"})),
    ],
)
def test_a_server_that_is_gone_is_exchanged_for_another(
    keys: list[ClassicKey], first: str, told: tuple[int, Any]
) -> None:
    server, left = Server(keys[2]), [keys[1], keys[2]]

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": left.pop(0).public.wire}
        if path == first and left:
            return told
        if path == "/faucet":
            return 200, {"message": "ok", "request_id": "r", "retrieve_token": "t"}
        return 200, server.sealed(ANSWER, content["client_public_key"]).relay_fields()

    with serving(answer) as double:
        assert server.client(double, keys[0]).send_chat_message("hello") == ANSWER
        assert not left


def test_a_refusal_that_no_other_server_would_change_is_none_at_once(keys: list[ClassicKey]) -> None:
    def answer(path: str, _: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            return 200, {"message": "ok", "request_id": "r", "retrieve_token": "t"}
        return 200, {"error": "It does not open.", "reason": "encryption_error"}

    with serving(answer) as double:
        client = CryptoClient(double.url, key=keys[0])
        assert client.send_chat_message("hello") is None
        assert client.last_error is not None
        assert (client.last_error.code, client.last_error.message) == ("encryption_error", "It does not open.")
        assert double.paths() == ["/next_server", "/faucet", "/retrieve"]


def test_a_full_relay_is_asked_again_in_a_while(keys: list[ClassicKey]) -> None:
    server = Server(keys[1])

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            full = len(double.heard) < 4
            told = {"error": {"message": "full", "code": 429}, "reason": "queue_full"}
            return (429, told) if full else (200, {"message": "ok", "request_id": "r", "retrieve_token": "t"})
        return 200, server.sealed(ANSWER, content["client_public_key"]).relay_fields()

    with serving(answer) as double:
        assert server.client(double, keys[0]).send_chat_message("hello") == ANSWER
        assert server.slept == [2.0, 2.0]


def test_a_stream_through_the_relay_is_opened_piece_by_piece(keys: list[ClassicKey]) -> None:
    rest: list[list[dict[str, Any]]] = []

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            assert content["stream"] is True
            sealer = ClassicStreamSealer(ClassicPublicKey.parse(content["client_public_key"]))
            rest.extend([{"encrypted": True, **sealer.seal(json.dumps(chunk).encode()).fields()}] for chunk in CHUNKS)
            return 200, {"message": "ok", "request_id": "r", "retrieve_token": "t"}
        return 200, {"stream": True, "session_id": "s", "chunks": rest.pop(0), **({} if rest else {"final": True})}

    with serving(answer) as double:
        events = list(CryptoClient(double.url, key=keys[0]).stream_chat_message("hello"))
        assert events == [{"event": "delta", "data": chunk} for chunk in CHUNKS]


def test_leaving_a_stream_cancels_the_question(keys: list[ClassicKey]) -> None:
    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            return 200, {"message": "ok", "request_id": "r", "retrieve_token": "t"}
        if path == "/retrieve":
            return 200, {"message": "Cancelled"}
        piece = seal_classic(json.dumps(CHUNKS[0]).encode(), keys[0].public).fields()
        return 200, {"stream": True, "session_id": "s", "chunks": [piece]}

    with serving(answer) as double:
        stream = CryptoClient(double.url, key=keys[0]).stream_chat_message("hello")
        assert next(iter(stream))["event"] == "delta"
        stream.close()  # type: ignore[attr-defined]
        path, content = double.heard[-1]
        assert path == "/retrieve"
        assert (content["cancel"], content["request_id"]) == (True, "r")


def test_a_stream_that_breaks_off_ends_in_an_error(keys: list[ClassicKey]) -> None:
    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/next_server":
            return 200, {"server_public_key": keys[1].public.wire}
        if path == "/faucet":
            return 200, {"message": "ok", "request_id": "r", "retrieve_token": "t"}
        if len(double.heard) == 3:
            piece = seal_classic(json.dumps(CHUNKS[0]).encode(), keys[0].public).fields()
            return 200, {"stream": True, "session_id": "s", "chunks": [piece]}
        return 200, {"error": "The node vanished.", "reason": "node_lost"}

    with serving(answer) as double:
        events = list(CryptoClient(double.url, key=keys[0]).stream_chat_message("hello"))
        assert [event["event"] for event in events] == ["delta", "error"]
        assert events[-1]["data"]["reason"] == "node_lost"


# -- the API -----------------------------------------------------------------------------------------------------------

COMPLETION = {"object": "chat.completion", "choices": [{"message": ANSWER[-1]}]}


@pytest.mark.parametrize("field", ["data", "encrypted_content"])
def test_an_api_request_is_sealed_and_its_answer_opened(keys: list[ClassicKey], field: str) -> None:
    server = Server(keys[1])

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/api/v1/public-key":
            return 200, {"public_key": keys[1].public.wire}
        assert (content["model"], content["encrypted"], content["key_id"]) == ("m", True, keys[1].key_id.hex())
        server.opened(content["messages"])
        sealed = server.sealed(COMPLETION, content["client_public_key"]).fields()
        return 200, {"encrypted": True, field: {"encrypted": True, **sealed}}

    with serving(answer) as double:
        assert CryptoClient(double.url, key=keys[0]).send_api_request(ASK, "m") == COMPLETION
        assert server.asked == [ASK]
        assert double.paths() == ["/api/v1/public-key", "/api/v1/chat/completions"]


def test_a_key_that_was_rotated_is_taken_from_the_error_that_says_so(keys: list[ClassicKey]) -> None:
    server = Server(keys[2])

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/api/v1/public-key":
            return 200, {"public_key": keys[1].public.wire}
        if content["key_id"] == keys[1].key_id.hex():
            fresh = {"public_key": keys[2].public.wire, "key_id": keys[2].key_id.hex()}
            return 400, {"error": {"message": "replaced", "type": "encryption_error", "code": "key_expired", **fresh}}
        server.opened(content["messages"])
        return 200, {"data": server.sealed(COMPLETION, content["client_public_key"]).fields()}

    with serving(answer) as double:
        assert CryptoClient(double.url, key=keys[0]).send_api_request(ASK) == COMPLETION
        assert len(double.heard) == 3


def lines(to: str, chunks: list[Any], *, done: bool = True) -> bytes:
    sealer = ClassicStreamSealer(ClassicPublicKey.parse(to))
    body = b""
    for chunk in chunks:
        data = {"encrypted": True, **sealer.seal(json.dumps(chunk).encode()).fields()}
        body += b"data: " + json.dumps({"event": "delta", "encrypted": True, "data": data}).encode() + b"\n\n"
    return body + (b"data: [DONE]\n\n" if done else b"")


def streamed(keys: list[ClassicKey], replies: Iterator[Any]) -> list[dict[str, Any]]:
    """The events of a stream whose requests are answered by these, one after the other."""

    def answer(path: str, content: dict[str, Any]) -> Reply:
        if path == "/api/v1/public-key":
            return 200, {"public_key": keys[1].public.wire}
        if path == "/api/v1/chat/completions":
            sealed = seal_classic(json.dumps(COMPLETION).encode(), keys[0].public).fields()
            return 200, {"encrypted": True, "data": sealed}
        assert content["stream"] is True
        reply: Reply = next(replies)
        return reply

    with serving(answer) as double:
        client = CryptoClient(double.url, key=keys[0], sleep=lambda _: None)
        return list(client.stream_chat_completion(ASK, model="m"))


def test_an_encrypted_stream_gives_opened_deltas(keys: list[ClassicKey]) -> None:
    events = streamed(keys, iter([lines(keys[0].public.wire, CHUNKS)]))
    assert events == [{"event": "delta", "data": chunk} for chunk in CHUNKS]


def test_a_stream_that_never_began_is_asked_for_again_and_then_whole(keys: list[ClassicKey]) -> None:
    events = streamed(keys, iter([(503, {"error": {"message": "later", "code": "queue_full"}}), b"data: [DONE]\n\n"]))
    assert [event["event"] for event in events] == ["reconnect", "error", "fallback", "response"]
    assert events[0]["data"] == {"attempt": 1, "reason": "bad_status"}
    assert events[1]["data"]["reason"] == "empty_response"
    assert events[3]["data"] == COMPLETION


def test_a_stream_that_broke_gives_what_came_and_is_not_asked_for_again(keys: list[ClassicKey]) -> None:
    events = streamed(keys, iter([lines(keys[0].public.wire, CHUNKS, done=False)]))
    assert [event["event"] for event in events] == ["delta", "delta", "partial_response", "error"]
    assert events[2]["data"] == {"chunks": CHUNKS, "text": "good day"}
    assert events[3]["data"]["reason"] == "connection_lost"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'data: {"event": "delta", "encrypted": true}\n\n', "invalid_encrypted_chunk"),
        (b'data: {"event": "delta", "encrypted": true, "data": {"iv": "?"}}\n\n', "invalid_encrypted_chunk"),
        (b'data: {"choices": []}\n\n', "invalid_encrypted_chunk"),
        (b'data: {"event": "error", "reason": "encryption_failed"}\n\n', "encryption_failed"),
    ],
)
def test_a_piece_that_is_none_is_told_by_name(keys: list[ClassicKey], body: bytes, reason: str) -> None:
    events = streamed(keys, iter([body]))
    assert [event["event"] for event in events] == ["error", "fallback", "response"]
    assert events[0]["data"]["reason"] == reason


def test_a_piece_that_is_sealed_to_somebody_else_is_told_by_name(keys: list[ClassicKey]) -> None:
    events = streamed(keys, iter([lines(keys[2].public.wire, CHUNKS)]))
    assert events[0]["data"]["reason"] == "decrypt_failed"


def test_in_the_open_chunks_and_lines_of_text_come_as_they_are(keys: list[ClassicKey]) -> None:
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in CHUNKS) + b"data: hello\n\n"
    with serving(lambda *_: body + b"data: [DONE]\n\n") as double:
        events = list(CryptoClient(double.url, key=keys[0]).stream_chat_completion(ASK, model="m", encrypted=False))
        assert events == [*({"event": "chunk", "data": chunk} for chunk in CHUNKS), {"event": "text", "data": "hello"}]
        assert double.heard[0][1] == {"model": "m", "messages": ASK, "stream": True}
