"""A bus inside one process: several relays on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

from tokenplace.relay.bus.base import BusBroken, Letter, Line, Listener, Topic


class Hub:
    """Where the lines of a memory bus meet. `cut` does what the end of a store does."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.stands = True

    def cut(self) -> None:
        """Everybody loses the bus, until `mend`."""
        self.stands = False
        for line in self.lines:
            line.over.set()
        self.lines.clear()

    def mend(self) -> None:
        """It can be reached again."""
        self.stands = True


class MemoryBus:
    """One way to a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @asynccontextmanager
    async def join(self, topics: Sequence[Topic], listener: Listener) -> AsyncIterator[Line]:
        """See Bus."""
        if not self._hub.stands:
            raise BusBroken("The hub was cut.")
        line = _Line(self._hub, topics, listener)
        self._hub.lines.append(line)
        try:
            yield line
        finally:
            line.over.set()
            if line in self._hub.lines:
                self._hub.lines.remove(line)


class _Line:
    def __init__(self, hub: Hub, topics: Sequence[Topic], listener: Listener) -> None:
        self.over = asyncio.Event()
        self._hub = hub
        self._topics = topics
        self._listener = listener

    def publish(self, letters: Sequence[Letter]) -> None:
        """See Line."""
        loop = asyncio.get_running_loop()
        for letter in letters:
            heard = [line for line in self._hub.lines if letter.to in line._topics]
            for line in heard:
                loop.call_soon(line._hear, letter.data)
            if not heard and not self.over.is_set():
                loop.call_soon(self._listener.unheard, letter.to)

    def _hear(self, data: bytes) -> None:
        if not self.over.is_set():
            self._listener.hear(data)

    async def ended(self) -> NoReturn:
        """See Line."""
        await self.over.wait()
        raise BusBroken("The hub was cut.")
