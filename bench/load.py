"""A cheap asker: many sealed streams from one process, without a client library's cost per piece."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tokenplace.client.door import HttpDoor
from tokenplace.openai.calls import Call
from tokenplace.sealing.exchange import RecordOpener, seal_request
from tokenplace.sealing.keys import choose_key
from tokenplace.wire import request, routes
from tokenplace.wire.messages import Listing
from tokenplace.wire.stream import RecordKind, RecordSplitter


def chat_call(text: str, **options: object) -> bytes:
    """A streamed chat request to the echo engine."""
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "stream": True, **options}
    return Call("/v1/chat/completions", json.dumps(body).encode()).pack()


async def listings(url: str, count: int) -> list[Listing]:
    """Who is there, once enough nodes are."""
    door = HttpDoor(url)
    try:
        while len(found := list((await door.nodes(None, 64)).listings)) < count:
            await asyncio.sleep(0.05)
        return found
    finally:
        await door.aclose()


@asynccontextmanager
async def _connection(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(url: str, listing: Listing, call: bytes, seen: Callable[[float], None] | None = None) -> int:
    """One sealed request over one connection; gives the number of sealed records, each opened."""
    host, port = url.removeprefix("http://").split(":")
    now_ms = time.time_ns() // 1_000_000
    sealed, pending = seal_request(call, choose_key(listing.card.body.keys, now_ms=now_ms), now_ms=now_ms)
    head = (
        f"POST {routes.JOBS}?node={listing.card.node} HTTP/1.1\r\nhost: {host}:{port}\r\n"
        f"content-type: {request.CONTENT_TYPE}\r\ncontent-length: {len(sealed)}\r\nconnection: close\r\n\r\n"
    )
    async with _connection(host, int(port)) as (reader, writer):
        writer.write(head.encode() + sealed)
        status = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in status.split(b"\r\n", 1)[0]:
            raise RuntimeError(status.decode())
        splitter, opener, records = RecordSplitter(), None, 0
        while size := int((await reader.readline()).strip() or b"0", 16):
            chunk = await reader.readexactly(size + 2)
            for record in splitter.feed(chunk[:-2]):
                if record.kind is RecordKind.NONCE:
                    opener = pending.accept(record.payload)
                elif record.kind.sealed:
                    records += 1
                    _open(opener, record, seen)
        return records


def _open(opener: RecordOpener | None, record: object, seen: Callable[[float], None] | None) -> None:
    if opener is None:
        raise RuntimeError("a record before its nonce")
    opener.open(record)  # type: ignore[arg-type]
    if seen is not None:
        seen(time.monotonic())
