"""The few ASGI moves that the hot routes need, typed. No framework stands between a piece and the socket."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from tokenplace.errors import Refused, TokenPlaceError, TooLarge, WireError, whole_seconds

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

OPEN_TO_PAGES: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"retry-after, x-request-id, ratelimit, ratelimit-policy"),
]
"""Pages of other origins may speak to a relay: nothing here rests on cookies."""

ABORT = "token.place.abort"
"""Where the server leaves, in the scope's state, a callable that cuts the connection without ceremony."""

WRITE = "token.place.write"
"""Where the server leaves, in the scope's state, a way to write a piece of a begun answer at once.

It says whether it did: not while the socket is full, nor where an answer has no pieces of its own.
"""

WRITTEN = "token.place.written"
"""Where the server tells, in the scope's state, how many bytes of pieces a connection has been written that way."""

DIRECT = "token.place.direct"
"""Where the server leaves, in a WebSocket scope's state, a way to be handed messages without queue and task switch."""

STREAMS = "token.place.streams"
"""Where a relay leaves, in the scope's state, what counts a request that turns out to ask for a stream."""


class WrongMethod(Refused):
    """This route does not take that method; `allowed` lists those it does, as in the Allow header."""

    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This route takes {allowed}.")
        self.allowed = allowed


class ClientGone(Exception):
    """The client's connection ended while we were reading from it."""


def header(scope: Scope, name: bytes) -> str | None:
    """One request header, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def count_stream(scope: Scope) -> None:
    """Call where a request turns out to ask for a stream. Raises Refused where the client has begun enough of them."""
    count = scope.get("state", {}).get(STREAMS)
    if count is not None:
        await count()


def query(scope: Scope) -> dict[str, str]:
    """The query's parameters; the first of equal names counts. Raises WireError when it is not readable."""
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), max_num_fields=16)
    except ValueError:
        raise WireError("The query string cannot be read.") from None
    fields: dict[str, str] = {}
    for key, value in pairs:
        fields.setdefault(key, value)
    return fields


def request_id(scope: Scope) -> tuple[bytes, bytes]:
    """The header that names this request: the caller's own name for it, or one of ours."""
    given = header(scope, b"x-request-id")
    name = given[:128] if given and given.isprintable() else os.urandom(8).hex()
    return (b"x-request-id", name.encode("latin-1"))


def marked(scope: Scope, send: Send) -> Send:
    """A `send` that adds the request's name to the head of the answer."""

    async def with_name(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], request_id(scope)]
        await send(message)

    return with_name


async def respond(send: Send, status: int, body: bytes, content_type: bytes, extra: Headers | None = None) -> None:
    """One whole answer."""
    headers: Headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, content: object, extra: Headers | None = None) -> None:
    """One whole answer in JSON, readable by pages of any origin."""
    body = json.dumps(content, separators=(",", ":")).encode()
    await respond(send, status, body, b"application/json", [*OPEN_TO_PAGES, *(extra or [])])


async def respond_error(send: Send, error: TokenPlaceError) -> None:
    """A refusal in OpenAI's error shape, with Retry-After where waiting helps."""
    extra: Headers = []
    if isinstance(error, WrongMethod):
        extra.append((b"allow", error.allowed.encode()))
    match error:
        case Refused(status=status, retry_after=retry_after):
            if retry_after is not None:
                extra.append((b"retry-after", whole_seconds(retry_after).encode()))
        case TooLarge():
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        case WireError():
            status = HTTPStatus.BAD_REQUEST
        case _:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
    body = error_body(status, error.code, error.message)
    await respond(send, status, body, b"application/json", [*OPEN_TO_PAGES, *extra])


def error_body(status: int, code: str, message: str) -> bytes:
    """An error in OpenAI's shape, as every door here tells it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    shape = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json.dumps(shape, separators=(",", ":")).encode()
