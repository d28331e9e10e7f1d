"""Between an Peering and a bus: hears, says, keeps time, and connects anew whenever the store was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import structlog

from tokenplace.relay.bus.base import Bus, BusBroken
from tokenplace.relay.replicas.peering import Peering

_TICK = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_GOODBYE = 1.0
_log = structlog.get_logger("tokenplace.relay")


class Gathering:
    """How long to gather what is to be said: the price of speaking is paid per letter, not per piece.

    A few letters may go at once, 200 a second on average, so that a lone request waits for nothing. Who says more than
    that speaks every two milliseconds, and every one once many pieces share a letter anyway.
    """

    _AT_ONCE = 10.0
    _PER_SECOND = 200.0
    _MANY = 8

    def __init__(self) -> None:
        self._left = self._AT_ONCE
        self._spoke = 0.0
        self._spacing = 0.002

    def pause(self, now: float) -> float:
        """Seconds to wait before speaking."""
        self._left = min(self._AT_ONCE, self._left + (now - self._spoke) * self._PER_SECOND)
        return 0.0 if self._left >= 1.0 else max(0.0, self._spoke + self._spacing - now)

    def spoke(self, now: float, frames: int) -> None:
        """So much was said."""
        self._left = max(0.0, self._left - 1.0)
        self._spoke = now
        self._spacing = 0.001 if frames >= self._MANY else 0.002


class Courier:
    """`run` for as long as the relay lives."""

    def __init__(self, bus: Bus, peering: Peering, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._peering = peering
        self._clock = clock
        self._output = asyncio.Event()
        peering.notify = self._output.set

    async def run(self) -> None:
        """Until cancelled; then the others are told."""
        pause = _FIRST_PAUSE
        complained = False
        try:
            while True:
                began = self._clock()
                try:
                    await self._connect()
                except* BusBroken as broken:
                    self._peering.lost(self._clock())
                    if not complained:
                        complained = True
                        _log.warning("store.lost", reason=str(broken.exceptions[0]))
                if self._clock() - began > _LONGEST_PAUSE:
                    pause, complained = _FIRST_PAUSE, False
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            with suppress(BusBroken, TimeoutError):
                async with asyncio.timeout(_GOODBYE):
                    await self._leave()
            await self._bus.aclose()

    async def _connect(self) -> None:
        """One connection's life. Raises BusBroken, in a group."""
        async with asyncio.TaskGroup() as group:
            try:
                async with self._bus.listen(self._peering.topics) as letters:
                    self._peering.connected(self._clock())
                    saying = group.create_task(self._say())
                    keeping = group.create_task(self._keep_time())
                    try:
                        await self._hear(letters)
                    finally:
                        saying.cancel()
                        keeping.cancel()
            finally:
                self._output.set()

    async def _hear(self, letters: AsyncIterator[bytes]) -> None:
        async for data in letters:
            self._peering.receive(data, self._clock())

    async def _say(self) -> None:
        gathering = Gathering()
        while True:
            await self._output.wait()
            if pause := gathering.pause(self._clock()):
                await asyncio.sleep(pause)
            self._output.clear()
            before = self._peering.counted.frames
            letters = self._peering.take()
            if not letters:
                continue
            gathering.spoke(self._clock(), self._peering.counted.frames - before)
            heard = await self._bus.publish(letters)
            for letter, listeners in zip(letters, heard, strict=True):
                if not listeners:
                    self._peering.unheard(letter.to, self._clock())

    async def _keep_time(self) -> None:
        was_up = False
        while True:
            self._peering.tick(self._clock())
            if self._peering.silent:
                raise BusBroken("The store is silent.")
            if self._peering.up and not was_up:
                was_up = True
                _log.info("store.connected")
            await asyncio.sleep(_TICK)

    async def _leave(self) -> None:
        self._peering.leaving()
        letters = self._peering.take()
        if letters:
            await self._bus.publish(letters)
