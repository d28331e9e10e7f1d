"""The notice board over HTTP. Plain ASGI, so that a relay without a gateway has it too.

What is written here comes as `application/json` only: a page of another origin can send that nowhere without asking
first, and nobody here says yes.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, ParamSpec, TypeAlias
from urllib.parse import parse_qsl

import structlog

from tokenplace.community import routes
from tokenplace.community.allowance import Allowance
from tokenplace.community.board import Board, Known
from tokenplace.community.counts import Counts
from tokenplace.community.faults import bad
from tokenplace.community.live import Live
from tokenplace.community.texts import MAX_BODY, Fields, read_object
from tokenplace.errors import ApiError, whole_seconds

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]
Answer: TypeAlias = tuple[HTTPStatus, dict[str, Any]]

P = ParamSpec("P")

_BODY_PATIENCE = 20.0
_THREADS = 4
"""Of our own: whoever waits for a file here keeps nobody else in this process waiting for a thread."""

_log = structlog.get_logger("tokenplace.community")


class _Gone(Exception):
    """The client left while we were reading."""


class Noticeboard:
    """Answers what is the notice board's; everything else goes to `otherwise`.

    `live` tells who is connected, `known` which models there are, `who` names whoever asks: for the limit (an address)
    and for one vote a day (an API key that is known here, else the address).
    """

    def __init__(
        self,
        board: Board,
        otherwise: App,
        *,
        live: Callable[[], Live],
        known: Known,
        address: Callable[[Scope], str],
        voter: Callable[[Scope], str] | None = None,
        allowance: Allowance,
        counts: Counts,
    ) -> None:
        self._board = board
        self._otherwise = otherwise
        self._live = live
        self._known = known
        self._address = address
        self._voter = voter or address
        self._allowance = allowance
        self._counts = counts
        self._threads = ThreadPoolExecutor(_THREADS, "noticeboard")
        read = ("GET", "HEAD")
        self._routes: dict[str, tuple[tuple[str, ...], Callable[[Scope, Receive], Awaitable[Answer]]]] = {
            **dict.fromkeys(routes.PROVIDERS, (read, self._providers)),
            **dict.fromkeys(routes.SERVER_PROVIDERS, (read, self._server_providers)),
            routes.LEADERBOARD: (read, self._leaderboard),
            routes.SUMMARY: (read, self._summary),
            routes.FEEDBACK: (("POST",), self._feedback),
            routes.CONTRIBUTIONS: (("POST",), self._contributions),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not routes.is_notice(scope["path"]):
            await self._otherwise(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except _Gone:
            return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra: Headers = []
        try:
            methods, handle = self._routes.get(scope["path"], ((), None))
            if handle is None:
                raise ApiError("There is nothing here.", status=HTTPStatus.NOT_FOUND, code="not_found")
            if scope["method"] not in methods:
                extra.append((b"allow", ", ".join(methods).encode()))
                if scope["method"] == "OPTIONS":
                    await _respond(scope, send, HTTPStatus.NO_CONTENT, None, extra)
                    return
                raise ApiError(
                    f"This takes {' and '.join(methods)}.",
                    status=HTTPStatus.METHOD_NOT_ALLOWED,
                    code="method_not_allowed",
                )
            status, content = await handle(scope, receive)
        except ApiError as error:
            if error.retry_after is not None:
                extra.append((b"retry-after", whole_seconds(error.retry_after).encode()))
            status, content = HTTPStatus(error.status), dict(error.as_json())
        await _respond(scope, send, status, content, extra)

    async def _providers(self, scope: Scope, _: Receive) -> Answer:
        limit, offset = _paging(scope)
        return HTTPStatus.OK, await self._in_thread(self._board.providers, self._live(), limit, offset)

    async def _server_providers(self, scope: Scope, _: Receive) -> Answer:
        limit, offset = _paging(scope)
        return HTTPStatus.OK, await self._in_thread(self._board.server_providers, self._live(), limit, offset)

    async def _leaderboard(self, scope: Scope, _: Receive) -> Answer:
        limit, offset = _paging(scope)
        return HTTPStatus.OK, await self._in_thread(self._board.leaderboard, limit, offset)

    async def _summary(self, _: Scope, __: Receive) -> Answer:
        return HTTPStatus.OK, await self._in_thread(self._board.summary)

    async def _feedback(self, scope: Scope, receive: Receive) -> Answer:
        async def rate(fields: Fields) -> dict[str, Any]:
            models = {name: self._known(name) for name in _names(fields)}  # asked here, not in the thread
            return await self._in_thread(self._board.rate, fields, self._voter(scope), models.get)

        return HTTPStatus.CREATED, await self._written("feedback", scope, receive, rate)

    async def _contributions(self, scope: Scope, receive: Receive) -> Answer:
        async def contribute(fields: Fields) -> dict[str, Any]:
            return await self._in_thread(self._board.contribute, fields)

        return HTTPStatus.ACCEPTED, await self._written("contribution", scope, receive, contribute)

    async def _in_thread(self, ask: Callable[P, dict[str, Any]], *values: P.args, **named: P.kwargs) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(ask, *values, **named))

    async def _written(
        self, kind: str, scope: Scope, receive: Receive, write: Callable[[Fields], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        try:
            fields = read_object(await _body(scope, receive))
            self._allowance.take(self._address(scope))
            answer = await write(fields)
        except ApiError as error:
            self._counts.add(kind, error.code)
            if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                _log.warning("community.not_written", kind=kind, code=error.code)
            raise
        outcome = "duplicate" if answer.get("duplicate") else "kept"
        self._counts.add(kind, outcome)
        _log.info("community.written", kind=kind, outcome=outcome)
        return answer


def _names(fields: Fields) -> list[str]:
    name = fields.get("model_id")
    return [name.strip()] if isinstance(name, str) else []


def _paging(scope: Scope) -> tuple[int | None, int]:
    """`limit` and `offset` of the query. Raises ApiError (400)."""
    try:
        fields = dict(reversed(parse_qsl(scope["query_string"].decode("ascii"), True, max_num_fields=16)))
    except ValueError:
        raise bad("The query string cannot be read.") from None
    limit = _whole(fields, "limit", 1, "a positive whole number") if "limit" in fields else None
    return limit, _whole(fields, "offset", 0, "a whole number") if "offset" in fields else 0


def _whole(fields: dict[str, str], name: str, least: int, what: str) -> int:
    said = fields[name]
    if not (said.isascii() and said.isdigit() and len(said) <= 9 and int(said) >= least):
        raise bad(f"`{name}` must be {what}.", name)
    return int(said)


async def _body(scope: Scope, receive: Receive) -> bytes:
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" or headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ApiError(
            "Send plain JSON, with the header `Content-Type: application/json`.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            code="unsupported_media_type",
        )
    claimed = headers.get(b"content-length", b"0")
    body = bytearray()
    more = True
    if not (claimed.isdigit() and int(claimed[:9]) > MAX_BODY):
        try:
            async with asyncio.timeout(_BODY_PATIENCE):
                while more and len(body) <= MAX_BODY:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise ApiError(
                "The request's body did not arrive.", status=HTTPStatus.REQUEST_TIMEOUT, code="request_timeout"
            ) from None
    if more or len(body) > MAX_BODY:
        raise ApiError(
            f"This may have {MAX_BODY} bytes.", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code="request_too_large"
        )
    return bytes(body)


async def _respond(scope: Scope, send: Send, status: HTTPStatus, content: object, extra: Headers) -> None:
    body = b"" if content is None else json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    headers: Headers = [
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", _request_id(scope)),
        *extra,
    ]
    if content is not None:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _request_id(scope: Scope) -> bytes:
    given: bytes = dict(scope["headers"]).get(b"x-request-id", b"")[:128]
    return (
        given if given.isascii() and given.decode("latin-1").isprintable() and given else os.urandom(8).hex().encode()
    )
