"""A real server on a real socket that speaks as much of OpenAI's API as the upstream engine needs, and can misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

PIECE = 0.002


class TinyOpenAI:
    """Streams "word " until max_tokens. `ending` is how a stream ends: done, no_done, cut."""

    def __init__(self, models: Sequence[Mapping[str, Any]] = ({"id": "tiny"},), key: str | None = None) -> None:
        self.models = list(models)
        self.key = key
        self.busy = 0
        self.ending = "done"
        self.asked: list[Mapping[str, Any]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            method, path, _ = head[0].split()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                await self._json(writer, 401, {"error": {"message": "no"}})
            elif (method, path) == ("GET", "/v1/models"):
                await self._json(writer, 200, {"object": "list", "data": self.models})
            elif path in ("/v1/chat/completions", "/v1/completions"):
                self.asked.append(body)
                await self._stream(reader, writer, path, body)
            else:
                await self._json(writer, 404, {"error": {"message": "no such path"}})
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _json(self, writer: asyncio.StreamWriter, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        writer.write(
            f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body)
        await writer.drain()

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: Mapping[str, Any]
    ) -> None:
        self.busy += 1
        gone = asyncio.create_task(reader.read(1))
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for event in self._events(path, body):
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.wait([gone], timeout=PIECE)
                if gone.done():
                    return
            if self.ending != "cut":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        finally:
            gone.cancel()
            self.busy -= 1

    def _events(self, path: str, body: Mapping[str, Any]) -> list[bytes]:
        base = {"id": "x", "created": 1, "model": body.get("model")}
        chat = path.endswith("/chat/completions")
        base["object"] = "chat.completion.chunk" if chat else "text_completion"
        words = int(body.get("max_tokens", 16))
        said = {"delta": {"content": "word "}} if chat else {"text": "word "}
        last: dict[str, object] = {"delta": {}} if chat else {"text": ""}
        pieces: list[dict[str, object]] = [{"index": 0, **said, "finish_reason": None} for _ in range(words)]
        pieces.append({"index": 0, **last, "finish_reason": "length"})
        events: list[dict[str, object]] = [{**base, "choices": [piece]} for piece in pieces]
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 1, "completion_tokens": words, "total_tokens": words + 1}
            events.append({**base, "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
        return [*lines, b"data: [DONE]\n\n"] if self.ending == "done" else lines


@asynccontextmanager
async def tiny_openai(server: TinyOpenAI | None = None) -> AsyncIterator[TinyOpenAI]:
    """A server for as long as the block."""
    server = server or TinyOpenAI()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
