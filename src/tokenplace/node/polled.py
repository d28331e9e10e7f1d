"""The link to a relay where no WebSocket passes: the same messages, polled for and told in plain requests.

Requests of one link come one after the other in each direction; one that fails breaks the link. A proxy that this
machine is set up for is used.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import httpx2 as httpx

from tokenplace.wire import routes
from tokenplace.wire.frames import CONTENT_TYPE
from tokenplace.wire.limits import MAX_MESSAGE

_PATIENCE = httpx.Timeout(10.0, read=40.0)
"""Seconds; a poll may wait half of the reading time at the relay."""

_TYPE = {"content-type": CONTENT_TYPE}


class LinkClosed(Exception):
    """The relay closed the link; `code` as a WebSocket's closing has it, `reason` for the owner."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class PolledSocket:
    """One open link: what the WebSocket client offers of one, as far as a node uses it."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def send(self, message: bytes) -> None:
        """Tell the relay one message. Raises LinkClosed or OSError."""
        _check(await _ask(self._http, "POST", self._url, message))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The relay's messages. Raises LinkClosed or OSError."""
        while True:
            answer = await _ask(self._http, "GET", self._url)
            _check(answer)
            if answer.status_code == HTTPStatus.OK:
                yield answer.content


@asynccontextmanager
async def open_polled(relay: str) -> AsyncIterator[PolledSocket]:
    """A polled link to a relay's base URL. Raises OSError when there is none to be had."""
    async with httpx.AsyncClient(timeout=_PATIENCE, headers={"accept-encoding": "identity"}) as http:
        url = relay.rstrip("/") + routes.LINK
        answer = await _ask(http, "POST", url)
        _check(answer)
        try:
            token = _token(json.loads(answer.content)["link"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OSError("it gives no link") from error
        socket = PolledSocket(http, f"{url}/{token}")
        try:
            yield socket
        finally:
            with suppress(OSError, LinkClosed):
                await _ask(http, "DELETE", f"{url}/{token}")


def _token(text: str) -> str:
    if not (text.isascii() and text.isalnum() and len(text) <= 64):
        raise ValueError
    return text


async def _ask(http: httpx.AsyncClient, method: str, url: str, body: bytes = b"") -> httpx.Response:
    try:
        async with http.stream(method, url, content=body or None, headers=_TYPE) as answer:
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > MAX_MESSAGE:
                    raise OSError("the relay's message is too long")
            return httpx.Response(answer.status_code, content=content)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise OSError(type(error).__name__) from error


def _check(answer: httpx.Response) -> None:
    if answer.status_code in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
        return
    if answer.status_code == HTTPStatus.GONE:
        try:
            error = json.loads(answer.content)["error"]
            code, reason = int(error.get("close", 0)), str(error["message"])[:400]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            code, reason = 0, ""
        raise LinkClosed(code, reason if reason.isprintable() else "")
    raise OSError(f"the relay answers {answer.status_code}")
