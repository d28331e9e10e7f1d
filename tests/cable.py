"""A cable between two programs that a test may cut, or let swallow what passes without a word, as a router does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Cable:
    """Listens on an address of its own and passes everything on, until told otherwise."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.dialled = 0
        """How often somebody has connected."""
        self._target = urlsplit(target)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._passes = asyncio.Event()
        self._swallowed: set[int] = set()
        self._writers: dict[int, list[asyncio.StreamWriter]] = {}
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        assert self._ready.wait(20)

    def hold(self) -> None:
        """Nothing passes for now; nothing is lost either."""
        self._loop.call_soon_threadsafe(self._passes.clear)

    def mend(self) -> None:
        """What was held goes on."""
        self._loop.call_soon_threadsafe(self._passes.set)

    def swallow(self) -> None:
        """Whatever is connected now stays connected, and never hears anything again; whoever dials anew is served."""
        self._loop.call_soon_threadsafe(lambda: self._swallowed.update(self._writers))

    def cut(self) -> None:
        """End every connection."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writers in self._writers.values():
            for writer in writers:
                writer.transport.abort()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        self._loop.close()

    async def _serve(self) -> None:
        self._passes.set()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over.wait()
        server.close()
        self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        number = self.dialled
        try:
            there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.close()
            return
        self._writers[number] = [writer, back]
        await asyncio.gather(self._pump(number, reader, back), self._pump(number, there, writer))
        self._writers.pop(number, None)

    async def _pump(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._passes.wait()
                if number not in self._swallowed:
                    sink.write(data)
                    await sink.drain()
        await self._passes.wait()
        if number not in self._swallowed:
            sink.close()


@contextmanager
def cabled(target: str) -> Iterator[Cable]:
    """A cable to the program at this URL."""
    cable = Cable(target)
    try:
        yield cable
    finally:
        cable.close()
