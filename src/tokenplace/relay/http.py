"""The relay's HTTP: who is there, submit, go on, cancel. Plain ASGI: every piece of every answer passes here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from tokenplace.errors import Refused, TokenPlaceError, WireError
from tokenplace.relay.address import client_address
from tokenplace.relay.asgi import (
    ABORT,
    OPEN_TO_PAGES,
    WRITE,
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    WrongMethod,
    header,
    marked,
    query,
    request_id,
    respond,
    respond_error,
    respond_json,
)
from tokenplace.relay.body import read_body
from tokenplace.relay.delivery import Delivery
from tokenplace.relay.limits import Budget, Limiter
from tokenplace.relay.switchboard import Switchboard
from tokenplace.wire import classic, request, routes, stream
from tokenplace.wire.ids import ModelId, NodeId, parse_job_id, parse_node_id
from tokenplace.wire.limits import MAX_REQUEST

_STREAM_HEADERS: Headers = [
    (b"content-type", stream.CONTENT_TYPE.encode()),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    *OPEN_TO_PAGES,
]
_PREFLIGHT: Headers = [
    *OPEN_TO_PAGES,
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-max-age", b"86400"),
]
_LISTED_AT_MOST = 64


class JobsDoor:
    """The routes under /relay/v2 that clients use."""

    def __init__(self, board: Switchboard, limiter: Limiter | None = None) -> None:
        self._limiter = limiter or Limiter({})
        self._board = board
        self._broker = board.broker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every fault of the caller is a named error."""
        try:
            await self._route(scope, receive, send)
        except ClientGone:
            return
        except TokenPlaceError as error:
            await respond_error(marked(scope, send), error)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS":
            await respond(send, HTTPStatus.NO_CONTENT, b"", b"text/plain", _PREFLIGHT)
        elif path == routes.NODES and method in ("GET", "HEAD"):
            await self._nodes(scope, marked(scope, send))
        elif path == routes.JOBS and method == "POST":
            await self._submit(scope, receive, send)
        elif path.startswith(routes.JOBS + "/") and method in ("GET", "DELETE"):
            job = parse_job_id(path[len(routes.JOBS) + 1 :])
            fields = query(scope)
            node = _node(fields)
            if method == "GET":
                next_record = _whole(fields, routes.NEXT_PARAM)
                linger = _seconds(fields)
                client = client_address(scope)
                if not self._board.holds(job, node):
                    await self._limiter.hit(Budget.RESUMES, client)
                delivery = await self._board.attach(job, node, next_record, linger, client.key, _abort(scope))
                await _stream(delivery, scope, receive, send)
            else:
                await self._board.cancel(job, node)
                await respond_json(send, HTTPStatus.OK, {"cancelled": True})
        else:
            raise WrongMethod(_allowed(path))

    async def _nodes(self, scope: Scope, send: Send) -> None:
        fields = query(scope)
        wanted = fields.get(routes.MODEL_PARAM)
        count = min(_whole(fields, routes.LIMIT_PARAM, 8), _LISTED_AT_MOST)
        named = _node(fields) if routes.NODE_PARAM in fields else None
        liked = parse_node_id(fields[routes.PREFER_PARAM]) if routes.PREFER_PARAM in fields else None
        nodes = self._board.pick(ModelId(wanted) if wanted is not None else None, count, named, liked)
        content = {
            "nodes": [node.listing().fields() for node in nodes],
            "models": self._board.models(),
            "draining": self._broker.draining,
        }
        await respond_json(send, HTTPStatus.OK, content)

    async def _submit(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = query(scope)
        node = _node(fields)
        linger = _seconds(fields)
        kind = header(scope, b"content-type")
        if kind not in (request.CONTENT_TYPE, classic.CONTENT_TYPE):
            raise Refused(
                f"A sealed request has the content type {request.CONTENT_TYPE}.",
                code="unsupported_media_type",
                status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        client = client_address(scope).key
        self._board.check_door(node, client)
        sealed = await read_body(scope, receive, "A sealed request", MAX_REQUEST, self._broker, client)
        try:
            if classic.is_classic(sealed) != (kind == classic.CONTENT_TYPE):
                raise WireError("The content type and the request's version byte do not agree.")
            job = classic.job_of(sealed)
        except WireError:
            self._broker.release(len(sealed), client)
            raise
        delivery = await self._board.submit(job, sealed, node, linger, client, _abort(scope))
        del sealed
        await _stream(delivery, scope, receive, send)


def _allowed(path: str) -> str:
    match path:
        case routes.NODES:
            return "GET, HEAD, OPTIONS"
        case routes.JOBS:
            return "POST, OPTIONS"
        case _:
            return "GET, DELETE, OPTIONS"


async def _stream(delivery: Delivery, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch(receive, delivery))
            headers = [*_STREAM_HEADERS, request_id(scope)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            delivery.write_with(scope.get("state", {}).get(WRITE))
            while data := await delivery.next():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            watcher.cancel()
    finally:
        delivery.leave()


def _abort(scope: Scope) -> Callable[[], None] | None:
    """How to cut the connection, where the server left a way."""
    abort: Callable[[], None] | None = scope.get("state", {}).get(ABORT)
    return abort


async def _watch(receive: Receive, delivery: Delivery) -> None:
    """Notice the client's leaving while we write to it."""
    while (await receive())["type"] != "http.disconnect":
        pass
    delivery.hang_up()


def _node(fields: dict[str, str]) -> NodeId:
    if routes.NODE_PARAM not in fields:
        raise WireError(f"Say which node the request is for: ?{routes.NODE_PARAM}=…")
    return parse_node_id(fields[routes.NODE_PARAM])


def _whole(fields: dict[str, str], name: str, default: int = 0) -> int:
    text = fields.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise WireError(f"{name} is a whole number.")
    return int(text)


def _seconds(fields: dict[str, str]) -> float:
    text = fields.get(routes.LINGER_PARAM, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < 1e6:
        raise WireError(f"{routes.LINGER_PARAM} is a number of seconds.")
    return seconds
