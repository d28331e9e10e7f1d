"""The sealed path under the stock OpenAI SDK: an httpx2 transport that asks nodes instead of a server.

client = openai.OpenAI(
    base_url="https://token.place/v1",   # any host: nothing goes there
    api_key="none",
    http_client=httpx2.Client(transport=TokenPlaceTransport(["https://relay.example"])),
)
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from http import HTTPStatus
from typing import Any

import httpx2 as httpx

from tokenplace.client.answer import Answer
from tokenplace.client.client import Client, Served
from tokenplace.client.faults import as_api_error
from tokenplace.client.sync import SyncClient
from tokenplace.errors import ApiError, TokenPlaceError, whole_seconds
from tokenplace.openai.models import ListedModel, listing, one

_MODELS = "/v1/models"


class AsyncTokenPlaceTransport(httpx.AsyncBaseTransport):
    """For `openai.AsyncOpenAI`. `relays` as `Client` takes them, or a client, which stays open afterwards."""

    def __init__(self, relays: Sequence[str] | Client) -> None:
        self._own = not isinstance(relays, Client)
        self._client = relays if isinstance(relays, Client) else Client(relays)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One call of the SDK."""
        body = await request.aread()
        async with AsyncExitStack() as stack:
            try:
                path = _path(request)
                if path.startswith(_MODELS):
                    return _listed(path, await self._client.models())
                answer = await stack.enter_async_context(self._client.ask(path, body, model=_model(body)))
            except TokenPlaceError as error:
                return _refused(error)
            return _begun(answer, _AsyncBody(answer.chunks(), stack.pop_all()))
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Give connections back."""
        if self._own:
            await self._client.aclose()


class TokenPlaceTransport(httpx.BaseTransport):
    """For `openai.OpenAI`."""

    def __init__(self, relays: Sequence[str]) -> None:
        self._client = SyncClient(relays).__enter__()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One call of the SDK."""
        body = request.read()
        with ExitStack() as stack:
            try:
                path = _path(request)
                if path.startswith(_MODELS):
                    return _listed(path, self._client.models())
                answer, chunks = stack.enter_context(self._client.ask(path, body, model=_model(body)))
            except TokenPlaceError as error:
                return _refused(error)
            return _begun(answer, _Body(chunks, stack.pop_all()))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Give connections and the thread back."""
        self._client.close()


class _AsyncBody(httpx.AsyncByteStream):
    """An answer's bytes; closing it early cancels the answer."""

    def __init__(self, chunks: AsyncGenerator[bytes], stack: AsyncExitStack) -> None:
        self._chunks = chunks
        self._stack = stack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks:
                yield chunk
        except TokenPlaceError as error:
            raise httpx.RemoteProtocolError(error.message) from error

    async def aclose(self) -> None:
        await self._stack.aclose()


class _Body(httpx.SyncByteStream):
    def __init__(self, chunks: Iterator[bytes], stack: ExitStack) -> None:
        self._chunks = chunks
        self._stack = stack

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except TokenPlaceError as error:
            raise httpx.RemoteProtocolError(error.message) from error

    def close(self) -> None:
        self._stack.close()


def _path(request: httpx.Request) -> str:
    """OpenAI's path behind whatever base URL: `/anything/v1/chat/completions` → `/v1/chat/completions`."""
    for version in ("/v1/", "/v2/"):
        _, found, rest = request.url.path.partition(version)
        if found:
            return f"/v1/{rest}"
    raise ApiError("The base URL ends in /v1.", status=HTTPStatus.NOT_FOUND, code="not_found")


def _model(body: bytes) -> str | None:
    try:
        model = json.loads(body).get("model")
    except (ValueError, AttributeError, RecursionError):
        return None
    return model if isinstance(model, str) else None


def _begun(answer: Answer, stream: Any) -> httpx.Response:
    headers = {
        "content-type": answer.head.content_type,
        "x-token-place-privacy": "end-to-end",
        "x-token-place-node": answer.node,
    }
    return httpx.Response(answer.head.status, headers=headers, stream=stream)


def _listed(path: str, served: Sequence[Served]) -> httpx.Response:
    models: dict[str, ListedModel] = {model.id: model.listed() for model in served}
    if path == _MODELS:
        return httpx.Response(HTTPStatus.OK, json=listing(models.values()))
    return httpx.Response(HTTPStatus.OK, json=one(models, path.removeprefix(_MODELS + "/")))


def _refused(error: TokenPlaceError) -> httpx.Response:
    told = as_api_error(error)
    headers = {} if told.retry_after is None else {"retry-after": whole_seconds(told.retry_after)}
    return httpx.Response(told.status, json=told.as_json(), headers=headers)
