"""A small HTTP proxy for tests, on loopback: tunnels with CONNECT, and hands plain requests on; or refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Counts what passes. With `status` it refuses everybody with that status."""

    def __init__(self, status: int | None = None) -> None:
        self.status = status
        self.asked: list[str] = []
        self.url = ""

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.asked.append(f"{method} {target}")
            if self.status is not None:
                writer.write(f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
            elif method == "CONNECT":
                host, _, port = target.rpartition(":")
                there, out = await asyncio.open_connection(host, int(port))
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await self.both(reader, writer, there, out)
            else:
                parts = urlsplit(target)
                there, out = await asyncio.open_connection(parts.hostname, parts.port or 80)
                lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"proxy-")]
                lines[0] = f"{method} {parts.path or '/'} HTTP/1.1".encode()
                out.write(b"\r\n".join(lines))
                await self.both(reader, writer, there, out)
        writer.close()

    async def both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        out: asyncio.StreamWriter,
    ) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, out), pump(there, writer))


@contextmanager
def proxying(status: int | None = None) -> Iterator[Proxy]:
    """A proxy in a thread of its own."""
    proxy = Proxy(status)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.meet, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
