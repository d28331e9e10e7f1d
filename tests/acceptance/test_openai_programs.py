"""Unmodified OpenAI programs over the whole sealed path, against the embedded real model."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from stage import EMBEDDED, Program, Stage, all_free, staged, until

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("openai")) as stage:
        relay = stage.relay()
        stage.node(relay, engine="llama", flags=["--slots", "4"])
        yield relay


def sdk(gateway: Program, version: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/{version}", api_key="not needed", max_retries=0)


SAY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


@pytest.mark.parametrize("version", ["v1", "api/v1", "v2", "api/v2"])
def test_the_openai_sdk_gets_an_answer_in_json(gateway: Program, version: str) -> None:
    with sdk(gateway, version) as client:
        answer = client.chat.completions.create(model=EMBEDDED, messages=SAY, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == EMBEDDED


@pytest.mark.parametrize("version", ["v2", "api/v2"])
def test_the_openai_sdk_streams_token_by_token(gateway: Program, version: str) -> None:
    with sdk(gateway, version) as client:
        chunks = list(
            client.chat.completions.create(
                model=EMBEDDED,
                messages=SAY,
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3


def test_version_one_refuses_to_stream_and_names_version_two(gateway: Program) -> None:
    with sdk(gateway, "v1") as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=EMBEDDED, messages=SAY, stream=True)
    assert caught.value.param == "stream"
    assert "/v2" in str(caught.value)


def test_models_are_listed_the_served_one_first_and_found_by_alias(gateway: Program) -> None:
    with sdk(gateway, "v1") as client:
        models = client.models.list().data
        assert models[0].id == EMBEDDED
        assert models[0].nodes == 1  # type: ignore[attr-defined]
        assert {"llama-3-8b-instruct", "llama-3-8b-instruct:alignment"} <= {model.id for model in models}
        assert client.models.retrieve("gpt-3.5-turbo").id == "llama-3-8b-instruct"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nobody-made-this")


def test_a_model_nobody_serves_is_503_and_an_unknown_one_404(gateway: Program) -> None:
    with sdk(gateway, "v1") as client:
        with pytest.raises(openai.InternalServerError) as away:
            client.chat.completions.create(model="gpt-3.5-turbo", messages=SAY)
        assert away.value.status_code == 503
        assert EMBEDDED in str(away.value)
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="nobody-made-this", messages=SAY)
        assert unknown.value.code == "model_not_found"


def test_leaving_a_stream_frees_the_slot(gateway: Program) -> None:
    with sdk(gateway, "v2") as client:
        stream = client.chat.completions.create(
            model=EMBEDDED,
            messages=[{"role": "user", "content": "Count from one to two thousand in words."}],
            max_tokens=3000,
            stream=True,
        )
        next(iter(stream))
        assert not all_free(gateway)
        stream.close()
    until(lambda: all_free(gateway), "the slot to be free", patience=10.0)


def test_the_privacy_header_tells_where_words_are_readable(gateway: Program) -> None:
    body = {"model": EMBEDDED, "messages": SAY, "max_tokens": 2}
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["x-token-place-privacy"] == "gateway"
    assert len(answer.headers["x-token-place-node"]) == 32
    assert answer.headers["x-request-id"]


def test_a_gateway_of_ones_own_says_end_to_end(stage: Stage) -> None:
    relay = stage.relay("--blind")
    stage.node(relay)
    own = stage.gateway(relay)
    body = {"model": "echo", "messages": SAY}
    answer = httpx2.post(f"{own.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["x-token-place-privacy"] == "end-to-end"
    assert answer.json()["choices"][0]["message"]["content"] == "echo: Say hello."


BAD = {
    "not JSON": (b"{", 400),
    "no body": (b"", 400),
    "a list": (b"[]", 400),
    "no model": (b'{"messages":[]}', 400),
    "a number for a model": (b'{"model":7,"messages":[]}', 400),
    "no messages": (b'{"model":"%s"}' % EMBEDDED.encode(), 400),
    "an unknown role": (b'{"model":"%s","messages":[{"role":"wizard","content":"x"}]}' % EMBEDDED.encode(), 400),
    "a hot temperature": (
        b'{"model":"%s","messages":[{"role":"user","content":"x"}],"temperature":9}' % EMBEDDED.encode(),
        400,
    ),
    "too much": (b'{"model":"x","messages":"' + b"a" * (9 << 20) + b'"}', 413),
    "deep nesting": (b'{"model":"x","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_get_openai_errors(gateway: Program, name: str) -> None:
    body, status = BAD[name]
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", content=body, timeout=60)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]


def test_unknown_paths_and_methods_are_json_too(gateway: Program) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/inference", 404),
    ):
        answer = httpx2.request(method, f"{gateway.url}{path}", timeout=10)
        assert answer.status_code == status
        assert answer.json()["error"]["code"]
