"""A bus inside one process, for tests and for several relays on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tokenplace.relay.bus.base import BusBroken, Letter, Topic

_Inbox = asyncio.Queue[bytes | None]


class Hub:
    """Where the places of a memory bus meet. `cut` does what the end of a store does."""

    def __init__(self) -> None:
        self.listeners: dict[Topic, list[_Inbox]] = {}
        self.stands = True

    def cut(self) -> None:
        """Everybody loses the bus, until `mend`."""
        self.stands = False
        for inboxes in self.listeners.values():
            for inbox in inboxes:
                inbox.put_nowait(None)
        self.listeners.clear()

    def mend(self) -> None:
        """It can be reached again."""
        self.stands = True


class MemoryBus:
    """One place on a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def publish(self, letters: Sequence[Letter]) -> Sequence[int]:
        """See Bus."""
        self._check()
        heard = []
        for letter in letters:
            inboxes = self._hub.listeners.get(letter.to, [])
            for inbox in inboxes:
                inbox.put_nowait(letter.data)
            heard.append(len(inboxes))
        return heard

    @asynccontextmanager
    async def listen(self, topics: Sequence[Topic]) -> AsyncIterator[AsyncIterator[bytes]]:
        """See Bus."""
        self._check()
        inbox: _Inbox = asyncio.Queue()
        for topic in topics:
            self._hub.listeners.setdefault(topic, []).append(inbox)
        try:
            yield _letters(inbox)
        finally:
            for topic in topics:
                inboxes = self._hub.listeners.get(topic, [])
                if inbox in inboxes:
                    inboxes.remove(inbox)

    async def aclose(self) -> None:
        """See Bus."""

    def _check(self) -> None:
        if not self._hub.stands:
            raise BusBroken("The hub was cut.")


async def _letters(inbox: _Inbox) -> AsyncIterator[bytes]:
    while (data := await inbox.get()) is not None:
        yield data
    raise BusBroken("The hub was cut.")
