from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from tokenplace.client.client import Client
from tokenplace.errors import ApiError, NoNode, QueueFull, TokenPlaceError
from tokenplace.gateway.app import create_gateway
from unit.gateway.doubles import ToldClient
from unit.relay.web import Exchange, http_scope

MODELS = ["/v1/models", "/api/v1/models", "/v2/models", "/api/v2/models"]
ASKING = ["chat/completions", "completions", "responses", "embeddings"]
SSE = "text/event-stream; charset=utf-8"


def gateway(client: ToldClient | None = None, *, hosted: bool = False, **options: Any) -> TestClient:
    app = create_gateway(cast("Client", client or ToldClient()), hosted=hosted, service="here", **options)
    return TestClient(app)


def post(http: TestClient, path: str, **fields: Any) -> Any:
    return http.post(path, json={"model": "tiny", **fields})


# ── What is asked, and of whom ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", "/v2", "/api/v2"])
@pytest.mark.parametrize("path", ASKING)
def test_every_path_is_put_to_the_node_under_v1(prefix: str, path: str) -> None:
    client = ToldClient()
    assert post(gateway(client), f"{prefix}/{path}").json() == {"ok": True}
    assert client.asked == [(f"/v1/{path}", b'{"model":"tiny"}', "tiny")]


def test_pictures_are_drawn_in_version_one_by_any_node_whatever_the_model() -> None:
    client = ToldClient()
    http = gateway(client)
    for prefix in ("/v1", "/api/v1"):
        assert http.post(f"{prefix}/images/generations", json={"prompt": "sea", "model": "dall-e-2"}).status_code == 200
    assert http.post("/v2/images/generations", json={"prompt": "sea"}).status_code == 404
    assert [(path, model) for path, _, model in client.asked] == [("/v1/images/generations", None)] * 2


def test_an_alias_is_sent_as_the_model_behind_it() -> None:
    client = ToldClient()
    post(gateway(client), "/v2/chat/completions", model="gpt-3.5-turbo")
    assert json.loads(client.asked[0][1])["model"] == "llama-3-8b-instruct"
    assert client.asked[0][2] == "llama-3-8b-instruct"


def test_an_adapter_with_a_charter_is_asked_of_those_who_serve_its_base() -> None:
    client = ToldClient()
    post(gateway(client), "/v2/chat/completions", model="llama-3-8b-instruct:alignment")
    assert json.loads(client.asked[0][1])["model"] == "llama-3-8b-instruct:alignment"
    assert client.asked[0][2] == "llama-3-8b-instruct"


def test_a_stand_in_is_asked_for_catalogue_models_that_nobody_serves_and_for_nothing_else() -> None:
    client = ToldClient(serves={"tiny": 9, "smollm2-135m-instruct": 1, "llama-3-8b-instruct": 1})
    http = gateway(client, stand_in=True)
    for model in ("gpt-oss-20b", "gpt-3.5-turbo", "llama-3-8b-instruct:alignment", "unknown"):
        post(http, "/v2/chat/completions", model=model)
    chosen = [model for _, _, model in client.asked]
    assert chosen == ["smollm2-135m-instruct", "llama-3-8b-instruct", "llama-3-8b-instruct", "unknown"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/completions", "/v1/responses"])
def test_version_one_does_not_stream(path: str) -> None:
    error = post(gateway(), path, stream=True).json()["error"]
    assert (error["param"], error["code"]) == ("stream", "unsupported_parameter")
    assert "/v2" in error["message"]


@pytest.mark.parametrize("fields", [{"client_public_key": None}, {"encrypted": False, "key_id": None}])
def test_a_request_that_says_it_is_not_encrypted_is_a_plain_one(fields: dict[str, Any]) -> None:
    client = ToldClient()
    assert post(gateway(client), "/v1/chat/completions", **fields).status_code == 200
    assert client.asked[0][1] == b'{"model":"tiny"}'


# ── Models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def listed(http: TestClient, path: str = "/v2/models") -> dict[str, Any]:
    return {model["id"]: model for model in http.get(path).json()["data"]}


def test_served_models_come_first_then_the_catalogue() -> None:
    models = listed(gateway())
    assert next(iter(models)) == "tiny"
    assert (models["tiny"]["nodes"], models["tiny"]["loaded"]) == (2, True)
    assert (models["gpt-oss-20b"]["nodes"], models["gpt-oss-20b"]["loaded"]) == (0, False)


def test_the_versions_list_what_the_contract_says() -> None:
    http = gateway(ToldClient(serves={}))
    assert list(listed(http, "/v1/models")) == [
        "smollm2-135m-instruct",
        "llama-3-8b-instruct",
        "llama-3-8b-instruct:alignment",
    ]
    assert len(listed(http)) == 13


def test_an_adapter_is_served_by_the_nodes_of_its_base() -> None:
    entry = listed(gateway(ToldClient(serves={"llama-3-8b-instruct": 3})))["llama-3-8b-instruct:alignment"]
    assert (entry["nodes"], entry["loaded"], entry["parent"]) == (3, True, "llama-3-8b-instruct")
    assert entry["context_length"] == 2048
    assert entry["metadata"]["adapter"]["id"] == "llama-3-8b-instruct:alignment"


def test_the_listing_says_who_stands_in() -> None:
    client = ToldClient(serves={"smollm2-135m-instruct": 1})
    models = listed(gateway(client, stand_in=True))
    assert models["gpt-oss-20b"]["stand_in"] == "smollm2-135m-instruct"
    assert models["gpt-oss-20b"]["nodes"] == 0
    assert "stand_in" not in models["smollm2-135m-instruct"]
    assert "stand_in" not in listed(gateway(client))["gpt-oss-20b"]


def test_one_model_is_found_by_id_and_alias() -> None:
    http = gateway()
    assert http.get("/v2/models/gpt-5-chat-latest").json()["id"] == "llama-3-8b-instruct"
    assert http.get("/v1/models/llama-3-8b-instruct:alignment").json()["parent"] == "llama-3-8b-instruct"
    assert http.get("/v1/models/none").json()["error"]["code"] == "model_not_found"


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/inference", 404, "not_found"),
    ],
)
def test_unknown_paths_and_methods_are_openais_errors(method: str, path: str, status: int, code: str) -> None:
    answer = gateway().request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert (status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_is_no_json_is_415(kind: str) -> None:
    answer = gateway().post("/v1/chat/completions", content=b"{}", headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_a_compressed_body_is_415() -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert gateway().post("/v1/chat/completions", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/x+json"])
def test_json_is_json_however_it_is_called(kind: str) -> None:
    answer = gateway().post("/v1/chat/completions", content=b'{"model":"tiny"}', headers={"content-type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", [*MODELS, "/v1/health", "/v1/models/tiny", "/openapi.json", "/docs"])
def test_head_has_the_headers_and_no_body(path: str) -> None:
    http = gateway()
    answer = http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_options_tells_the_methods_and_lets_no_strangers_page_in() -> None:
    answer = gateway().options("/v1/models", headers={"origin": "https://evil.example"})
    assert answer.status_code == 204
    assert "GET" in answer.headers["allow"]
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert "POST" in gateway().options("/v1/responses").headers["allow"]


@pytest.mark.parametrize(("hosted", "privacy"), [(True, "gateway"), (False, "end-to-end")])
def test_every_answer_says_where_its_words_could_be_read(hosted: bool, privacy: str) -> None:
    http = gateway(hosted=hosted)
    answers = [
        http.get("/v1/models"),
        http.get("/v1/health"),
        http.get("/openapi.json"),
        http.get("/docs"),
        http.get("/nothing"),
        http.post("/v1/responses", content=b"{"),
        post(http, "/v1/responses"),
    ]
    assert [answer.headers["x-token-place-privacy"] for answer in answers] == [privacy] * len(answers)
    assert all(answer.headers["x-request-id"] for answer in answers)
    assert answers[-1].headers["x-token-place-node"] == "n" * 32


def test_a_request_id_comes_back_unless_it_is_a_trick() -> None:
    http = gateway()
    assert http.get("/v1/health", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    assert len(http.get("/v1/health", headers={"x-request-id": "a\tb"}).headers["x-request-id"]) == 16


def test_errors_of_the_node_keep_their_shape_and_status() -> None:
    told = ApiError("Too hot.", param="temperature", code="decimal_above_max_value").as_json()
    client = ToldClient(json.dumps(told).encode(), status=400)
    answer = post(gateway(client), "/v1/chat/completions")
    assert (answer.status_code, answer.json()) == (400, told)


@pytest.mark.parametrize(
    ("model", "status", "code"), [("gpt-oss-20b", 503, "model_not_served"), ("x", 404, "model_not_found")]
)
def test_a_model_that_is_away_is_503_and_one_that_never_was_404(model: str, status: int, code: str) -> None:
    answer = post(gateway(ToldClient(fails=NoNode("Nobody."))), "/v1/chat/completions", model=model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize("path", ["/v2/chat/completions", "/v2/responses"])
def test_a_stream_that_breaks_ends_in_an_error_event_and_no_done(path: str) -> None:
    broken = ApiError("The node is gone.", status=502, type="server_error", code="node_lost")
    client = ToldClient(b"data: {}\n\n", broken, content_type=SSE)
    answer = post(gateway(client), path, stream=True)
    last = answer.text.strip().split("\n\n")[-1].splitlines()
    assert last[0] == "event: error"
    told = json.loads(last[1].removeprefix("data: "))
    assert told["error"] == broken.as_json()["error"]
    assert (told.get("type") == "error") == path.endswith("responses")
    assert "[DONE]" not in answer.text


# ── API keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

KEY = "tp-a-long-random-string"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (f"Basic {KEY}", 401),
        (f"Bearer {DIGEST}", 401),
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY} ", 200),
    ],
)
def test_a_gateway_with_keys_lets_only_those_ask(header: str | None, status: int) -> None:
    client = ToldClient()
    http = gateway(client, api_keys=["0" * 64, f"sha256:{DIGEST.upper()}"])
    headers = {"authorization": header} if header else {}
    for answer in (
        http.post("/v1/chat/completions", json={"model": "tiny"}, headers=headers),
        http.get("/v1/models", headers=headers),
    ):
        assert answer.status_code == status
        if status == 401:
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
    assert bool(client.asked) == (status == 200)


def test_health_and_the_document_need_no_key() -> None:
    http = gateway(api_keys=[DIGEST])
    assert [http.get(path).status_code for path in ("/v1/health", "/openapi.json", "/docs")] == [200] * 3


def test_keys_are_configured_as_digests_never_as_themselves() -> None:
    with pytest.raises(TokenPlaceError):
        gateway(api_keys=[KEY])


# ── Moderation ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "zxqj"}]}),
        ("/v1/completions", {"prompt": "zxqj"}),
        ("/v2/responses", {"instructions": "zxqj", "input": "x"}),
        ("/v1/embeddings", {"input": ["x", "zxqj"]}),
        ("/v1/images/generations", {"prompt": "zxqj"}),
    ],
)
def test_a_gateway_that_is_told_to_refuses_words_before_it_seals_them(path: str, fields: dict[str, Any]) -> None:
    client = ToldClient()
    answer = post(gateway(client, phrases=["zxqj"]), path, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_blocked")
    assert "zxqj" not in answer.text
    assert client.asked == []
    assert post(gateway(client), path, **fields).status_code == 200


def test_token_ids_are_no_way_around_a_gateway_that_reads() -> None:
    answer = post(gateway(phrases=["zxqj"]), "/v1/completions", prompt=[[1, 2]])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


# ── Pages of strangers ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("headers", "status"), [({}, 200), ({"origin": "https://evil.example"}, 415)])
def test_a_page_of_another_origin_cannot_ask_by_leaving_the_type_out(headers: dict[str, str], status: int) -> None:
    """A browser sends such a request without asking first; programs, which name no origin, may leave it out."""
    client = ToldClient()
    http = gateway(client)
    request = http.build_request("POST", "/v1/chat/completions", content=b'{"model":"tiny"}', headers=headers)
    assert "content-type" not in request.headers
    assert http.send(request).status_code == status
    assert len(client.asked) == (1 if status == 200 else 0)


# ── Memory for bodies ────────────────────────────────────────────────────────────────────────────────────────────


class Held:
    """Counts what bodies take, and has so much."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.taken = 0

    def reserve(self, size: int, client: str = "") -> None:
        if size > self.left:
            raise QueueFull("no room", retry_after=2)
        self.left -= size
        self.taken += size

    def release(self, size: int, client: str = "") -> None:
        self.left += size


def test_a_body_takes_memory_while_it_is_received_and_gives_it_back() -> None:
    held = Held(1000)
    http = gateway(memory=held)
    assert post(http, "/v1/chat/completions", user="a" * 500).status_code == 200
    refused = post(http, "/v1/chat/completions", user="a" * 5000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "2"
    assert http.post("/v1/chat/completions", json=[]).status_code == 400
    assert (held.left, held.taken > 500) == (1000, True)


async def test_bodies_that_do_not_end_cannot_take_all_the_memory() -> None:
    app = create_gateway(cast("Client", ToldClient()), hosted=True, service="here")
    headers = [("content-type", "application/json")]
    async with AsyncExitStack() as stack:
        trickling = []
        for _ in range(12):
            exchange = Exchange()
            exchange.upload(b'{"a":"' + b"a" * (7 << 20), more=True)
            scope = http_scope("POST", "/v1/chat/completions", headers)
            task = asyncio.ensure_future(app({**scope, "client": ("192.0.2.1", 1)}, exchange.receive, exchange.send))
            stack.push_async_callback(asyncio.wait, [task])
            stack.callback(exchange.leave)
            trickling.append(exchange)
        async with asyncio.timeout(20):
            while sum(bool(each.reply.ended) for each in trickling) < 8:
                await asyncio.sleep(0.01)
        assert {each.reply.status for each in trickling if each.reply.ended} == {429}
        reply = Exchange()
        reply.upload(b'{"model":"tiny","messages":[]}')
        scope = http_scope("POST", "/v1/chat/completions", headers)
        await app({**scope, "client": ("192.0.2.2", 1)}, reply.receive, reply.send)
        assert reply.reply.status == 200
