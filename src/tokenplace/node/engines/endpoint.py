"""Speaks HTTP to one server that speaks OpenAI's API, over TCP or a unix socket.

This is the door of the node's HTTP client: its errors become ours here and nowhere else. The body's bytes pass
unread, except for one question: a stream of completions that lacks its `[DONE]` did not end, it broke.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx

from tokenplace.errors import EngineCrashed, EngineError
from tokenplace.node.engines.base import JsonObject

CONNECT_TIMEOUT = 5.0
"""Seconds. A server that does not even accept is down; one that thinks for minutes about a long prompt is not."""

MAX_JSON = 16 * 1024 * 1024
"""Bytes of an answer read whole (model lists, slots): far more than any has."""

_ENDS_IN_DONE = ("/chat/completions", "/completions")
_DONE = (b"data: [DONE]", b"data:[DONE]")
_TAIL = 32


class Endpoint:
    """One OpenAI server. `root` is its URL without `/v1`; `key` goes into the Authorization header only."""

    def __init__(self, root: str, *, key: str | None = None, socket: str | None = None) -> None:
        self._root = root.rstrip("/")
        self._own = socket is not None  # a child of ours: when nobody answers there, it has just died
        transport = httpx.AsyncHTTPTransport(
            uds=socket,
            # The environment's proxies are not asked: a node's words take no way that nobody told it to take.
            trust_env=False,
            # A connection is used once. llama.cpp's server closes one behind an answer of more than 5 s without
            # saying so, and a request that is sent into that closing is lost; connecting costs less than a token.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
        )

    @asynccontextmanager
    async def open(self, path: str, body: JsonObject) -> AsyncIterator[HttpAnswer]:
        """POST `body` and hand over the answer as it comes; leaving the block closes the connection.

        Raises EngineError when nothing listens, EngineCrashed when the server dies before its answer's head.
        """
        request = self._client.build_request(
            "POST",
            self._root + path,
            content=json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass"),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        )
        response = await self._send(request)
        try:
            yield HttpAnswer(response, path)
        finally:
            await response.aclose()

    async def get_json(self, path: str, *, timeout: float = 10.0) -> Any:
        """GET something small. Raises EngineError unless the answer is 200 and JSON within `timeout` seconds."""
        request = self._client.build_request("GET", self._root + path, timeout=timeout)
        response = await self._send(request)
        try:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_JSON:
                    raise EngineError(f"{self._root}{path} answers with more than {MAX_JSON} bytes.")
            if response.status_code != httpx.codes.OK:
                raise EngineError(f"{self._root}{path} answers with status {response.status_code}.")
            return json.loads(content)
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(f"{self._root}{path} gives no proper answer ({type(error).__name__}).") from error
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if self._own:
                raise EngineCrashed from error
            raise EngineError(f"Nothing answers at {self._root}. Is the model server running there?") from error
        except httpx.TimeoutException as error:
            raise EngineError(f"{self._root} took too long to answer.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EngineCrashed from error


class HttpAnswer:
    """An answer on its way. Its bytes are read once."""

    def __init__(self, response: httpx.Response, path: str) -> None:
        self._response = response
        self.status = response.status_code
        self.content_type = response.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        self._needs_done = (
            self.status == httpx.codes.OK and self.content_type == "text/event-stream" and path.endswith(_ENDS_IN_DONE)
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as the socket gave them. Raises EngineCrashed when they stop before their end."""
        tail = b""
        try:
            async for chunk in self._response.aiter_raw():
                tail = (tail + chunk[-_TAIL:])[-_TAIL:]
                yield chunk
        except httpx.HTTPError as error:
            raise EngineCrashed from error
        if self._needs_done and not tail.rstrip().endswith(_DONE):
            raise EngineCrashed
