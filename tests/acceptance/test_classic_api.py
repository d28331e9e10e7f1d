"""Encrypted requests of the original's API, from its client's side of the wire to a node and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from original import OriginalKeys, text
from stage import EMBEDDED, Program, Stage, all_free, get_json, metric, staged, until
from tokenplace.wire.classic import CONTENT_TYPE, ClassicRequest, Door, LineReader
from tokenplace.wire.stream import RecordKind, RecordSplitter

TOKEN = "a token of the operator"
HELLO = [{"role": "user", "content": "Hello you"}]
PREFIXES = ("v1", "api/v1", "v2", "api/v2")


def key_at(gateway: Program, headers: dict[str, str] | None = None, prefix: str = "v1") -> dict[str, Any]:
    """The key that a program is given, once there is one."""

    def given() -> Any:
        answer = httpx2.get(f"{gateway.url}/{prefix}/public-key", headers=headers, timeout=10)
        return answer.json() if answer.status_code == 200 else None

    key: dict[str, Any] = until(given, "a classic key")
    return key


def ask(gateway: Program, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return httpx2.post(f"{gateway.url}/{path}", headers=headers, timeout=30, json={"encrypted": True, **fields})


def chat(gateway: Program, me: OriginalKeys, to: str, path: str = "v1/chat/completions", **fields: Any) -> Any:
    sealed = fields.pop("sealed", None) or me.seal(fields.pop("words", HELLO), to)
    asked = {"model": "echo", "client_public_key": me.key, "messages": sealed, **fields}
    return ask(gateway, path, **asked)


def said(me: OriginalKeys, answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    response = me.open(answer.json()["data"])
    return str(response["choices"][0]["message"]["content"])


def pieces(me: OriginalKeys, lines: list[str]) -> list[dict[str, Any]]:
    """The chunks of an encrypted stream, opened one by one as they stand in it."""
    return [me.open(json.loads(line[6:])["data"]) for line in lines if line.startswith("data: {")]


@pytest.fixture(scope="module")
def me() -> OriginalKeys:
    return OriginalKeys()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A relay with its gateway, and a node of the same operator."""
    with staged(tmp_path_factory.mktemp("classic")) as stage:
        env = {"TOKEN_PLACE_OPERATOR_TOKEN": TOKEN}
        relay = stage.relay(env=env)
        stage.node(relay, env=env)
        key_at(relay)
        yield relay


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_encrypted_chat_is_opened_by_the_node_and_answered_sealed(
    gateway: Program, me: OriginalKeys, prefix: str
) -> None:
    key = key_at(gateway, prefix=prefix)
    assert key["key_id"] == key["fingerprint"][:16]
    answer = chat(gateway, me, key["public_key"], f"{prefix}/chat/completions", metadata={"mine": "yes"})
    assert (answer.headers["x-token-place-privacy"], answer.headers["x-token-place-node"]) == ("classic", key["node"])
    response = me.open(answer.json()["data"])
    assert response["choices"][0]["message"]["content"] == "echo: Hello you"
    assert response["metadata"] == {"mine": "yes"}
    assert "Hello" not in answer.text


def test_the_key_may_be_spelt_in_three_ways_and_the_words_sealed_in_two(gateway: Program, me: OriginalKeys) -> None:
    to = key_at(gateway)["public_key"]
    for spelt in (me.key, me.pem, text(me.der)):
        assert said(me, chat(gateway, me, to, client_public_key=spelt)) == "echo: Hello you"
    answer = chat(gateway, me, to, sealed=me.seal(HELLO, to, gcm=b"bound"))
    assert answer.json()["data"]["mode"] == "GCM"
    assert said(me, answer) == "echo: Hello you"


def test_an_encrypted_stream_has_the_contracts_events_and_its_end_in_clear(gateway: Program, me: OriginalKeys) -> None:
    to = key_at(gateway)["public_key"]
    answer = chat(gateway, me, to, "v2/chat/completions", stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    chunks = pieces(me, lines)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "echo: Hello you"
    refused = chat(gateway, me, to, "v1/chat/completions", stream=True)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_of_a_completion_the_answer_is_sealed_to_the_asker(gateway: Program, me: OriginalKeys, prefix: str) -> None:
    answer = ask(gateway, f"{prefix}/completions", model="echo", prompt="once", client_public_key=me.key)
    assert me.open(answer.json()["data"])["choices"][0]["text"] == "echo: once"
    assert answer.headers["x-token-place-privacy"] == "gateway"


def test_encrypted_answers_are_counted_like_others(gateway: Program, me: OriginalKeys) -> None:
    before = metric(gateway, "tokenplace_gateway_answers_total"), metric(gateway, "tokenplace_gateway_tokens_total")
    said(me, chat(gateway, me, key_at(gateway)["public_key"]))
    assert metric(gateway, "tokenplace_gateway_answers_total") == before[0] + 1
    assert metric(gateway, "tokenplace_gateway_tokens_total") > before[1]


# ── What cannot be answered ──────────────────────────────────────────────────────────────────────────────────────


def test_another_key_a_copy_and_altered_words_have_one_answer(gateway: Program, me: OriginalKeys) -> None:
    to = key_at(gateway)["public_key"]
    good = me.seal(HELLO, to)
    said(me, chat(gateway, me, to, sealed=good))
    other = OriginalKeys()
    answers = [
        chat(gateway, me, to, sealed=me.seal(HELLO, other.key)),
        chat(gateway, me, to, sealed=good),
        chat(gateway, other, to, sealed=good),
        chat(gateway, me, to, sealed={**me.seal(HELLO, to), "ciphertext": good["ciphertext"]}),
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(400, answers[0].text)}
    assert answers[0].json()["error"]["code"] == "encryption_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": {"ciphertext": 1, "cipherkey": "AA==", "iv": "AA=="}}, "messages.ciphertext"),
        ({"messages": HELLO}, "messages"),
        ({"messages": None}, "messages"),
        ({"client_public_key": {}}, "client_public_key"),
        ({"client_public_key": None}, "client_public_key"),
        ({"key_id": 1}, "key_id"),
        ({"key_id": "x" * 1_000_000}, "key_id"),
        ({"encrypted": "yes"}, "encrypted"),
        ({"encrypted": False}, "client_public_key"),
        ({"model": 7}, "model"),
    ],
)
@pytest.mark.parametrize("prefix", ["v1", "v2"])
def test_a_field_that_cannot_be_is_named(
    gateway: Program, me: OriginalKeys, prefix: str, fields: dict[str, Any], param: str
) -> None:
    answer = chat(gateway, me, key_at(gateway)["public_key"], f"{prefix}/chat/completions", **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_huge_envelopes_are_bounded_and_the_node_goes_on(gateway: Program, me: OriginalKeys) -> None:
    to = key_at(gateway)["public_key"]
    sealed = me.seal(HELLO, to)
    for fields in (
        {"messages": {**sealed, "ciphertext": "A" * (9 << 20)}},
        {"messages": {**sealed, "cipherkey": "A" * (4 << 20)}},
        {"client_public_key": "A" * (4 << 20)},
    ):
        assert chat(gateway, me, to, **fields).status_code in (400, 413)
    assert said(me, chat(gateway, me, to)) == "echo: Hello you"


def test_only_chat_and_completions_can_be_encrypted_so(gateway: Program) -> None:
    for path in ("embeddings", "responses", "images/generations"):
        answer = ask(gateway, f"v1/{path}", model="echo", input="x", prompt="x")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "encrypted")


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "operator_token_invalid"),
        ({"X-Token-Place-Operator": "wrong"}, "operator_token_invalid"),
        ({"Authorization": f"bearer {TOKEN}"}, "operator_token_invalid"),
    ],
)
def test_nobody_else_can_rotate(gateway: Program, headers: dict[str, str], code: str) -> None:
    before = key_at(gateway)["key_id"]
    answer = httpx2.post(f"{gateway.url}/v1/public-key/rotate", headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.json()["error"]["type"] == "authentication_error"
    assert key_at(gateway)["key_id"] == before


def test_the_operator_rotates_and_what_was_sealed_before_still_opens(gateway: Program, me: OriginalKeys) -> None:
    for prefix, headers in (
        ("v1", {"X-Token-Place-Operator": TOKEN}),
        ("api/v2", {"Authorization": f"Bearer {TOKEN}"}),
    ):
        former = key_at(gateway)
        sealed, unnamed = me.seal(HELLO, former["public_key"]), me.seal(HELLO, former["public_key"])
        rotated = httpx2.post(f"{gateway.url}/{prefix}/public-key/rotate", headers=headers, timeout=30)
        assert rotated.status_code == 200, rotated.text
        fresh = rotated.json()
        assert fresh["public_key"] != former["public_key"]
        assert key_at(gateway)["public_key"] == fresh["public_key"]
        assert said(me, chat(gateway, me, "", sealed=sealed, key_id=former["key_id"])) == "echo: Hello you"
        assert said(me, chat(gateway, me, "", sealed=unnamed)) == "echo: Hello you"
        assert said(me, chat(gateway, me, fresh["public_key"], key_id=fresh["key_id"])) == "echo: Hello you"


def test_a_stream_goes_on_under_a_rotation_and_stops_when_the_asker_leaves(stage: Stage, me: OriginalKeys) -> None:
    env = {"PUBLIC_KEY_ROTATION_TOKEN": TOKEN, "TOKEN_PLACE_OPERATOR_TOKEN": " "}
    relay = stage.relay(env=env)
    stage.node(relay, delay=0.1, env=env)
    to = key_at(relay)["public_key"]
    words = [{"role": "user", "content": "one two three four five six seven eight"}]
    asked = {"model": "echo", "encrypted": True, "stream": True, "client_public_key": me.key}
    url = f"{relay.url}/v2/chat/completions"
    with httpx2.Client(timeout=30) as http:
        with http.stream("POST", url, json={**asked, "messages": me.seal(words, to)}) as answer:
            lines = answer.iter_lines()
            begun = [next(lines), next(lines)]
            headers = {"X-Token-Place-Operator": TOKEN}
            assert httpx2.post(f"{relay.url}/v1/public-key/rotate", headers=headers, timeout=30).status_code == 200
            chunks = pieces(me, [*begun, *lines])
        told = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert told == "echo: one two three four five six seven eight"
        long = [{"role": "user", "content": "word " * 2000}]
        with http.stream("POST", url, json={**asked, "messages": me.seal(long, key_at(relay)["public_key"])}) as answer:
            lines = answer.iter_lines()  # held: dropping it would close the connection
            assert next(lines).startswith("data: ")
            until(lambda: not all_free(relay), "the slot to be taken")
    until(lambda: all_free(relay), "the node to stop decoding for nobody")


def test_who_seals_to_a_key_that_is_gone_gets_the_fresh_one_with_the_error(stage: Stage, me: OriginalKeys) -> None:
    relay = stage.relay()
    first = stage.node(relay, name="first")
    gone = key_at(relay)
    first.end()
    until(lambda: not get_json(f"{relay.url}/api/v1/relay/server-nodes")["nodes"], "the node to be gone")
    nobody = httpx2.get(f"{relay.url}/v1/public-key", timeout=10)
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (503, "no_classic_node")
    assert nobody.headers["retry-after"]
    stage.node(relay, name="second")
    until(lambda: httpx2.get(f"{relay.url}/v1/public-key?model=echo", timeout=10).status_code == 200, "another key")
    for named in ({"key_id": gone["key_id"]}, {"key_id": "0" * 16}):
        answer = chat(relay, me, gone["public_key"], **named)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "key_expired")
        assert said(me, chat(relay, me, error["public_key"], key_id=error["key_id"])) == "echo: Hello you"
    refused = httpx2.post(f"{relay.url}/v1/public-key/rotate", headers={"X-Token-Place-Operator": "x"}, timeout=10)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "operator_auth_not_configured")


def test_with_several_nodes_a_request_goes_to_the_one_whose_key_it_is_sealed_to(stage: Stage, me: OriginalKeys) -> None:
    keys = [f"key {number}" for number in range(8)]
    digests = ",".join(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    relay = stage.relay(env={"TOKEN_PLACE_API_KEYS": digests, "TOKEN_PLACE_OPERATOR_TOKEN": TOKEN})
    own = stage.node(relay, name="own", env={"TOKEN_PLACE_KEY_ROTATION_TOKEN": TOKEN})
    strange = stage.node(relay, name="strange")
    stage.node(relay, name="shut", flags=["--no-classic"])
    programs = [{"Authorization": f"Bearer {key}"} for key in keys]
    until(lambda: "classic.key" in own.text and "classic.key" in strange.text, "both nodes to have keys")
    given = [key_at(relay, program) for program in programs[:-1]]
    for program, key in zip(programs, given, strict=False):
        asked = {"model": "echo", "client_public_key": me.key, "messages": me.seal(HELLO, key["public_key"])}
        answer = ask(relay, "v1/chat/completions", program, **asked)
        assert answer.headers["x-token-place-node"] == key["node"]
        assert said(me, answer) == "echo: Hello you"
    asked = {"model": "echo", "client_public_key": me.key, "messages": me.seal(HELLO, given[0]["public_key"])}
    unknown = ask(relay, "v1/chat/completions", programs[-1], **asked)
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "key_id")
    named = ask(relay, "v1/chat/completions", programs[-1], **asked, key_id=given[0]["key_id"])
    assert said(me, named) == "echo: Hello you"
    rotated = httpx2.post(
        f"{relay.url}/v1/public-key/rotate", headers={"X-Token-Place-Operator": TOKEN}, timeout=30
    ).json()
    assert rotated["rotated"] == 1
    assert strange.text.count("classic.key") == 1
    assert own.text.count("classic.key") == 2


# ── Elsewhere ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_blind_relay_reads_no_encrypted_api_requests_and_a_gateway_of_ones_own_serves_them(
    stage: Stage, me: OriginalKeys
) -> None:
    relay = stage.relay("--blind")
    stage.node(relay)
    assert httpx2.get(f"{relay.url}/v1/public-key", timeout=10).json()["error"]["code"] == "blind_relay"
    assert httpx2.post(f"{relay.url}/v1/public-key/rotate", timeout=10).status_code == 403
    assert chat(relay, me, me.key).status_code == 403
    gateway = stage.gateway(relay)
    answer = chat(gateway, me, key_at(gateway)["public_key"])
    assert answer.headers["x-token-place-privacy"] == "classic"
    assert said(me, answer) == "echo: Hello you"
    completion = ask(gateway, "v2/completions", model="echo", prompt="once", client_public_key=me.key)
    assert completion.headers["x-token-place-privacy"] == "end-to-end"


def open_request(relay: Program, node: str, request: ClassicRequest) -> list[dict[str, Any]]:
    """Hand a request in the open to the relay's job door, and read the lines of its answer."""
    answer = httpx2.post(
        f"{relay.url}/relay/v2/jobs?node={node}",
        content=request.pack(),
        headers={"content-type": CONTENT_TYPE},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    reader, lines = LineReader(), []
    for record in RecordSplitter().feed(answer.content):
        if record.kind is RecordKind.CLASSIC:
            lines += reader.feed(record.payload)
    return lines


def test_requests_in_the_open_are_answered_in_lines(gateway: Program, me: OriginalKeys) -> None:
    key = key_at(gateway)
    chat_body = {"client_public_key": me.key, **me.seal_relay(HELLO, key["public_key"])}
    status, message, end = open_request(gateway, key["node"], ClassicRequest(Door.RELAY, chat_body))
    assert (status, end["end"]) == ({"status": 200}, True)
    assert end["usage"]["completion_tokens"] > 0
    assert me.open(message["message"])[-1] == {"role": "assistant", "content": "echo: Hello you"}

    refused = open_request(gateway, key["node"], ClassicRequest(Door.RELAY, chat_body))
    assert refused[0] == {"status": 400}
    assert refused[1]["error"]["code"] == "encryption_error"
    assert len(refused) == 2

    api = {
        "model": "echo",
        "encrypted": True,
        "client_public_key": me.key,
        "messages": me.seal(HELLO, key["public_key"]),
    }
    request = ClassicRequest(Door.API, api, "/v1/chat/completions", stream=True, key_id=key["key_id"])
    lines = open_request(gateway, key["node"], request)
    chunks = [me.open(line["message"]["data"]) for line in lines[1:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "echo: Hello you"
    assert lines[-1]["end"] is True

    late = ClassicRequest(Door.RELAY, {"client_public_key": me.key, **me.seal_relay(HELLO, me.key)}, key_id="0" * 16)
    assert open_request(gateway, key["node"], late)[1]["error"]["key_id"] == key["key_id"]


@pytest.mark.model
def test_a_real_model_answers_encrypted_requests(stage: Stage, me: OriginalKeys) -> None:
    relay = stage.relay()
    stage.node(relay, engine="llama", flags=["--slots", "2"])
    to = key_at(relay)["public_key"]
    words = [{"role": "user", "content": "Say hello."}]
    assert said(me, chat(relay, me, to, model=EMBEDDED, words=words, max_tokens=8))
    answer = chat(relay, me, to, "v2/chat/completions", model=EMBEDDED, words=words, max_tokens=12, stream=True)
    chunks = pieces(me, answer.text.splitlines())
    assert sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in chunks) > 3
    assert answer.text.rstrip().endswith("data: [DONE]")
    body = {"client_public_key": me.key, **me.seal_relay(words, to)}
    lines = open_request(relay, key_at(relay)["node"], ClassicRequest(Door.RELAY, body))
    assert me.open(lines[1]["message"])[-1]["content"]
