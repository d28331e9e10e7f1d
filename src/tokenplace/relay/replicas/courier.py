"""Between a Peering and a bus: hears, says, keeps time, and connects anew whenever the store was away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from tokenplace.link.allowance import Allowance
from tokenplace.relay.bus.base import Bus, BusBroken, Line, Topic
from tokenplace.relay.replicas.peering import Peering
from tokenplace.relay.replicas.wires import Haste

_TICK = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_log = structlog.get_logger("tokenplace.relay")


class Gathering:
    """How long to gather what is to be said: the price of speaking is paid per letter, not per piece.

    What somebody waits for goes at once, a thousand times a second; pieces of a stream two hundred times. Who says more
    than that speaks every two milliseconds, and every one once many pieces share a letter anyway.
    """

    _MANY = 8
    _LATER = 0.005

    def __init__(self) -> None:
        self._allowed = {Haste.NOW: Allowance(20.0, 1000.0), Haste.SOON: Allowance(10.0, 200.0)}
        self._spoke = 0.0
        self._spacing = 0.002

    def pause(self, now: float, haste: Haste) -> float:
        """Seconds to wait before speaking."""
        if haste is Haste.LATER:
            return self._LATER
        return 0.0 if self._allowed[haste].left(now) >= 1.0 else max(0.0, self._spoke + self._spacing - now)

    def spoke(self, now: float, frames: int) -> None:
        """So much was said."""
        for allowed in self._allowed.values():
            allowed.spend(now)
        self._spoke = now
        self._spacing = 0.001 if frames >= self._MANY else 0.002


class Courier:
    """`run` for as long as the relay lives."""

    def __init__(self, bus: Bus, peering: Peering, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._peering = peering
        self._clock = clock
        self._line: Line | None = None
        self._gathering = Gathering()
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        """When the timer goes off, while there is one."""
        peering.notify = self._wanted

    async def run(self) -> None:
        """Until cancelled; then the others are told."""
        pause = _FIRST_PAUSE
        complained = False
        while True:
            began = self._clock()
            try:
                await self._connect()
            except BusBroken as broken:
                self._peering.lost(self._clock())
                if not complained:
                    complained = True
                    _log.warning("store.lost", reason=broken.message)
            if self._clock() - began > _LONGEST_PAUSE:
                pause, complained = _FIRST_PAUSE, False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _connect(self) -> None:
        """One line's life. Raises BusBroken."""
        async with self._bus.join(self._peering.topics, self) as line:
            self._line = line
            try:
                self._peering.connected(self._clock())
                await self._keep_time(line)
            except asyncio.CancelledError:
                self._peering.leaving()
                self._say()
                raise
            finally:
                self._line = None
                self._forget()

    async def _keep_time(self, line: Line) -> None:
        """Until the line ends. Raises BusBroken."""
        was_up = False
        while True:
            self._peering.tick(self._clock())
            if self._peering.silent:
                raise BusBroken("The store is silent.")
            if self._peering.up and not was_up:
                was_up = True
                _log.info("store.connected")
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await line.ended()

    # -- what the line brings --------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """See Listener."""
        self._peering.receive(data, self._clock())

    def unheard(self, topic: Topic) -> None:
        """See Listener."""
        self._peering.unheard(topic, self._clock())

    # -- what it takes ---------------------------------------------------------------------------------------------

    def _wanted(self, haste: Haste) -> None:
        """Something is to be said."""
        if self._line is None:
            return
        now = self._clock()
        due = now + self._gathering.pause(now, haste)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_later(due - now, self._say)

    def _say(self) -> None:
        self._forget()
        if self._line is None:
            return
        before = self._peering.counted.frames
        letters = self._peering.take()
        if letters:
            self._gathering.spoke(self._clock(), self._peering.counted.frames - before)
            self._line.publish(letters)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
