"""A cheap asker: many sealed streams from one process, without a client library's cost per piece."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Self

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


class Asker:
    """One kept-alive connection to a relay, one sealed request after the other."""

    def __init__(self, url: str, listing: Listing) -> None:
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self._listing = listing
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        self._streams = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._streams is not None:
            self._streams[1].close()

    async def ask(self, call: bytes) -> int:
        """Gives the number of sealed records, each opened."""
        if self._streams is None:
            raise RuntimeError("not connected")
        reader, writer = self._streams
        now_ms = time.time_ns() // 1_000_000
        key = choose_key(self._listing.card.body.keys, now_ms=now_ms)
        sealed, pending = seal_request(call, key, now_ms=now_ms)
        head = (
            f"POST {routes.JOBS}?node={self._listing.card.node} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: {request.CONTENT_TYPE}\r\ncontent-length: {len(sealed)}\r\n\r\n"
        )
        writer.write(head.encode() + sealed)
        status = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in status.split(b"\r\n", 1)[0]:
            raise RuntimeError((status + await reader.read(500)).decode())
        splitter, records = RecordSplitter(), 0
        opener: RecordOpener | None = None
        while size := int(await reader.readline(), 16):
            chunk = await reader.readexactly(size + 2)
            for record in splitter.feed(chunk[:-2]):
                if record.kind is RecordKind.NONCE:
                    opener = pending.accept(record.payload)
                elif record.kind.sealed and opener is not None:
                    opener.open(record)
                    records += 1
        await reader.readline()
        if opener is None or not opener.ended:
            raise RuntimeError("an answer without its end")
        return records


async def ask(url: str, listing: Listing, call: bytes) -> int:
    """One request over a connection of its own."""
    async with Asker(url, listing) as asker:
        return await asker.ask(call)
