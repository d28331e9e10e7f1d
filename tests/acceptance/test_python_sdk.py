"""The Python client, blocking and not, and the transport under the stock OpenAI SDK."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from stage import Program, Stage, all_free, free_port, staged, until
from tokenplace.client.client import Client
from tokenplace.client.sync import SyncClient
from tokenplace.client.transport import AsyncTokenPlaceTransport, TokenPlaceTransport
from tokenplace.errors import NoNode

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]
LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 200}]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("sdk")) as stage:
        relay = stage.relay("--blind")
        stage.node(relay, delay=0.05)
        yield relay


def test_the_blocking_client_chats_streams_and_lists(relay: Program) -> None:
    with SyncClient([relay.url]) as client:
        assert [model.id for model in client.models()] == ["echo"]
        assert client.chat(HELLO)["choices"][0]["message"]["content"] == "echo: hello there"
        pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in client.stream(HELLO)]
        assert "".join(pieces) == "echo: hello there"
        with pytest.raises(NoNode):
            client.chat(HELLO, model="nobody")


def test_closing_a_blocking_stream_stops_the_node(relay: Program) -> None:
    with SyncClient([relay.url]) as client:
        stream = client.stream(LONG)
        next(stream)
        assert not all_free(relay)
        stream.close()  # type: ignore[attr-defined]
        until(lambda: all_free(relay), "the slot to be free", patience=4.0)


def test_the_stock_openai_sdk_runs_on_the_sealed_path(relay: Program) -> None:
    transport = TokenPlaceTransport([relay.url])
    with (
        httpx2.Client(transport=transport) as http,
        openai.OpenAI(base_url="https://token.place/v1", api_key="none", http_client=http, max_retries=0) as sdk,
    ):
        answer = sdk.chat.completions.create(model="echo", messages=HELLO)
        assert answer.choices[0].message.content == "echo: hello there"
        stream = sdk.chat.completions.create(model="echo", messages=LONG, stream=True)
        next(iter(stream))
        stream.close()
        until(lambda: all_free(relay), "the slot to be free", patience=4.0)
        assert [model.id for model in sdk.models.list()] == ["echo"]
        with pytest.raises(openai.BadRequestError) as bad:
            sdk.chat.completions.create(model="echo", messages=[])
        assert bad.value.param == "messages"
        with pytest.raises(openai.InternalServerError) as nobody:
            sdk.chat.completions.create(model="nobody", messages=HELLO)
        assert nobody.value.code == "no_node"


async def test_the_async_openai_sdk_streams_on_the_sealed_path(relay: Program) -> None:
    async with httpx2.AsyncClient(transport=AsyncTokenPlaceTransport([relay.url])) as http:
        sdk = openai.AsyncOpenAI(base_url="https://token.place/v1", api_key="none", http_client=http, max_retries=0)
        stream = await sdk.chat.completions.create(model="echo", messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "echo: hello there"


async def test_a_gateway_of_ones_own_passes_the_page_s_sealed_bytes_through(stage: Stage, relay: Program) -> None:
    """What the page does from the gateway's address: it seals by itself, and the gateway cannot read it."""
    dead = Program.__new__(Program)
    dead.url = f"http://127.0.0.1:{free_port()}"
    gateway = stage.gateway(dead, relay)
    async with Client([gateway.url]) as client:
        answer = await client.chat(HELLO, model="echo")
        assert answer["choices"][0]["message"]["content"] == "echo: hello there"
        stream = client.stream(LONG, model="echo")
        await anext(stream)
        assert not all_free(relay)
        await stream.aclose()
        until(lambda: all_free(relay), "the slot to be free", patience=4.0)
    async with httpx2.AsyncClient(base_url=gateway.url) as http:
        page = await http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        refused = await http.post("/relay/v2/jobs?node=x", content=b"junk")
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "bad_format"
