"""Gathers an answer's bytes into records, and waits where the reader is slow."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from tokenplace.node.runs import Run

GATHER = 0.045
"""Seconds over which pieces are gathered into one record: the sizes and times of single tokens spell the words
(arXiv 2403.09751, 2511.03675). The first piece of an answer goes out at once."""


class Outbox(ABC):
    """One answer's bytes on their way into its run, in records of at most `most` bytes."""

    def __init__(self, run: Run, clock: Callable[[], float], most: int) -> None:
        self._run = run
        self._clock = clock
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._last_flush = 0.0
        run.on_room = self._room.set

    @abstractmethod
    def put(self, data: bytes) -> None:
        """The next record's data, for the run."""

    async def write(self, chunk: bytes) -> None:
        """More of the answer. Waits while the reader is slow."""
        self._waiting += chunk
        now = self._clock()
        if len(self._waiting) >= self._most or now - self._last_flush >= GATHER:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._last_flush + GATHER - now, self.flush)
        while not self._run.has_room:
            self._room.clear()
            await self._room.wait()

    def flush(self) -> None:
        """Send what waits."""
        self._stop_timer()
        if not self._waiting:
            return
        self._last_flush = self._clock()
        data = bytes(self._waiting)
        self._waiting.clear()
        for start in range(0, len(data), self._most):
            self.put(data[start : start + self._most])

    def close(self) -> None:
        """Let go of the timer and the run."""
        self._stop_timer()
        self._run.on_room = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
