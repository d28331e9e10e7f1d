"""Waiting for a bell, for a time, or until the caller hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenplace.relay.asgi import ClientGone, Receive
from tokenplace.relay.classic.questions import Bell


class Ear:
    """One caller who waits."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._gone = False

    def __call__(self) -> None:
        """The bell rings."""
        self._rung.set()

    def hang_up(self) -> None:
        """The caller's connection is gone."""
        self._gone = True
        self._rung.set()

    async def news(self, seconds: float) -> bool:
        """Wait; whether the bell rang in time. Raises ClientGone: whatever there is, nobody would get it."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._rung.wait()
        except TimeoutError:
            return False
        if self._gone:
            raise ClientGone
        self._rung.clear()
        return True


@asynccontextmanager
async def listening(bell: Bell, receive: Receive) -> AsyncIterator[Ear]:
    """An ear at a bell, that also hears when the caller leaves."""
    ear = Ear()
    bell.listen(ear)
    watcher = asyncio.ensure_future(_watch(receive, ear))
    try:
        yield ear
    finally:
        bell.leave(ear)
        watcher.cancel()
        await asyncio.wait([watcher])
        if not watcher.cancelled():
            watcher.exception()  # it is looked at: a connection that broke is nobody's bug


async def _watch(receive: Receive, ear: Ear) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        ear.hang_up()
