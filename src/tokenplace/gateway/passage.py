"""Lets the page that a gateway serves reach a relay: sealed bytes pass through, unread and unchanged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from http import HTTPStatus

import httpx2 as httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from tokenplace.client.faults import as_api_error
from tokenplace.community.routes import is_notice
from tokenplace.errors import ApiError, TokenPlaceError
from tokenplace.gateway.forward import gone
from tokenplace.openai import jsontext
from tokenplace.relay.address import client_address
from tokenplace.relay.asgi import ClientGone
from tokenplace.relay.body import OwnMemory, read_body
from tokenplace.relay.fairness import Shares
from tokenplace.wire import routes
from tokenplace.wire.address import relay_address
from tokenplace.wire.limits import MAX_QUEUED_BYTES, MAX_REQUEST

_TOLD = ("content-type", "cache-control", "retry-after", "x-accel-buffering", "x-request-id")
"""What of a relay's answer the page hears."""

_SILENCE = 25.0

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_-]+)+/?")
"""A path without dots, marks and control characters: it goes to the relay decoded, and must mean the same there."""


class Passage:
    """Hands the relay's own routes and its notice board on to the first relay that answers; all else to `otherwise`."""

    def __init__(self, relays: Sequence[str], otherwise: ASGIApp) -> None:
        self._relays = [relay_address(relay).geturl() for relay in relays]
        self._otherwise = otherwise
        self._memory = OwnMemory(Shares(MAX_QUEUED_BYTES))
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(30.0, connect=5.0, read=_SILENCE, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        path = scope.get("path", "")
        ours = path == routes.NODES or path == routes.JOBS or path.startswith(f"{routes.JOBS}/") or is_notice(path)
        if scope["type"] != "http" or not (ours and _PLAIN.fullmatch(path)):
            await self._otherwise(scope, receive, send)
            return
        client = client_address(scope).key
        try:
            body = await read_body(scope, receive, "A request", MAX_REQUEST, self._memory, client)
        except ClientGone:
            return
        except TokenPlaceError as error:
            told = as_api_error(error)
            await _refuse(send, HTTPStatus(told.status), told.code, told.message)
            return
        self._memory.release(len(body), client)  # it is whole: from here on it is the relay that bounds what waits
        async with asyncio.TaskGroup() as group:
            passing = group.create_task(self._pass(scope, body, send))
            watching = group.create_task(gone(receive, passing))
            passing.add_done_callback(lambda _: watching.cancel())

    async def aclose(self) -> None:
        """Give connections back."""
        await self._http.aclose()

    async def _pass(self, scope: Scope, body: bytes, send: Send) -> None:
        query = scope["query_string"].decode("ascii", "replace")
        given = dict(scope["headers"]).get(b"content-type", b"")
        headers = {"content-type": given.decode("latin-1"), "accept-encoding": "identity"} if given else {}
        for relay in self._relays:
            url = f"{relay}{scope['path']}{'?' if query else ''}{query}"
            try:
                async with self._http.stream(scope["method"], url, content=body, headers=headers) as answer:
                    await _hand_on(answer, send)
                return
            except httpx.TransportError:
                continue
        await _refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, "relay_unreachable", "No relay can be reached from here.")


async def _hand_on(answer: httpx.Response, send: Send) -> None:
    headers = [(name.encode(), answer.headers[name].encode("latin-1")) for name in _TOLD if name in answer.headers]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    try:
        async for chunk in answer.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except httpx.HTTPError:
        pass  # the page sees a stream without its sealed end, and comes back for the rest
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, status: HTTPStatus, code: str, message: str) -> None:
    body = jsontext.write(ApiError(message, status=status, type="server_error", code=code).as_json())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
