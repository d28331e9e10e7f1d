"""A small ASGI server in the test: sends one request, collects the answer. No socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tokenplace.relay.asgi import App, Message


@dataclass
class Reply:
    """One HTTP answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request under way. `reply` fills as the app sends."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._news = asyncio.Event()

    async def receive(self) -> Message:
        return await self.inbox.get()

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                assert not self.reply.status, "two answers"
                self.reply.status = message["status"]
                for name, value in message["headers"]:
                    assert name == name.lower()
                    self.reply.headers[name.decode()] = value.decode("latin-1")
            case "http.response.body":
                assert not self.reply.ended, "more after the end"
                self.reply.body += message.get("body", b"")
                self.reply.ended = not message.get("more_body", False)
        self._news.set()

    def upload(self, *chunks: bytes, more: bool = False) -> None:
        for number, chunk in enumerate(chunks, start=1):
            self.inbox.put_nowait(
                {"type": "http.request", "body": chunk, "more_body": more or number < len(chunks)},
            )

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    async def until_body(self, size: int) -> bytes:
        while len(self.reply.body) < size:
            self._news.clear()
            await self._news.wait()
        return self.reply.body


def http_scope(
    method: str, target: str, headers: Sequence[tuple[str, str]] = (), state: dict[str, Any] | None = None
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("utf-8"),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "state": state or {},
    }


async def ask(
    app: App, method: str, target: str, *, headers: Sequence[tuple[str, str]] = (), body: Sequence[bytes] = (b"",)
) -> Reply:
    """One whole exchange."""
    exchange = Exchange()
    exchange.upload(*body)
    await app(http_scope(method, target, headers), exchange.receive, exchange.send)
    assert exchange.reply.ended
    return exchange.reply


@asynccontextmanager
async def asking(
    app: App, method: str, target: str, *, headers: Sequence[tuple[str, str]] = (), body: Sequence[bytes] = (b"",)
) -> AsyncIterator[Exchange]:
    """An exchange that runs beside the block; at its end the client leaves."""
    exchange = Exchange()
    exchange.upload(*body)
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(app, http_scope(method, target, headers), exchange))
        yield exchange
        exchange.leave()


async def _run(app: App, scope: dict[str, Any], exchange: Exchange) -> None:
    await app(scope, exchange.receive, exchange.send)
