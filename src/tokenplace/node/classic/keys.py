"""A node's classic key: made in a thread, shown in the card, replaced each day or on its operator's order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from tokenplace.errors import ApiError, KeyUnknown
from tokenplace.openai.classic import KeyExpired, nobody_opens
from tokenplace.sealing.classic_ring import ClassicRing
from tokenplace.sealing.keys import LIFE_MS, OVERLAP_MS
from tokenplace.sealing.operator import Operator
from tokenplace.sealing.rsa import ClassicKey
from tokenplace.wire.classic import ClassicCard

_LOOK = 1.0
"""Seconds between looks at the clock."""

_log = structlog.get_logger("tokenplace.node")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class ClassicKeys:
    """The keys of one node; none until `keep` has made the first. `changed` hears that the card is out of date.

    `pkcs1v15` lets old JavaScript clients in. `operator` is whose orders are obeyed. `make` makes a key and blocks.
    """

    def __init__(
        self,
        *,
        pkcs1v15: bool = False,
        operator: Operator | None = None,
        wall_ms: Callable[[], int] = _now_ms,
        make: Callable[[bool], ClassicKey] = lambda pkcs1v15: ClassicKey.generate(pkcs1v15=pkcs1v15),
        life_ms: int = LIFE_MS,
    ) -> None:
        self.operator = operator
        self.pkcs1v15 = pkcs1v15
        self.changed: Callable[[], None] = lambda: None
        self._wall_ms = wall_ms
        self._make = make
        self._life_ms = life_ms
        self._ring: ClassicRing | None = None
        self._making = asyncio.Lock()

    async def keep(self) -> None:
        """Make the first key, and a fresh one whenever it is time, until cancelled. Raises SealError (PKCS#1 v1.5)."""
        if self.pkcs1v15:
            _log.warning(
                "classic.pkcs1v15",
                reason="requests with the old padding of JavaScript clients are opened; switch it off without them",
            )
        while True:
            await self.look()
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """Do what is due now."""
        now_ms = self._wall_ms()
        if self._ring is None or self._ring.due(now_ms):
            await self.rotate()
        elif self._ring.tick(now_ms):
            self.changed()

    async def rotate(self, *, overlap_ms: int = OVERLAP_MS) -> None:
        """Show a fresh key from now on; requests on their way still open for `overlap_ms`."""
        async with self._making:
            fresh = await asyncio.to_thread(self._make, self.pkcs1v15)
            now_ms = self._wall_ms()
            if self._ring is None:
                self._ring = ClassicRing(fresh, now_ms, life_ms=self._life_ms)
            else:
                self._ring.rotate(fresh, now_ms, overlap_ms=overlap_ms)
        _log.info("classic.key", key_id=fresh.key_id.hex())
        self.changed()

    def card(self) -> ClassicCard | None:
        """What the node's card says of them."""
        ring = self._ring
        if ring is None:
            return None
        previous = tuple(key.key_id.hex() for key in ring.previous(self._wall_ms()))
        public = ring.current.public
        return ClassicCard(public.wire, public.key_id.hex(), previous, self.pkcs1v15)

    def for_request(self, key_id: str | None) -> tuple[ClassicKey, ...]:
        """The keys that may open a request that names this one, or none. Raises ApiError."""
        if self._ring is None:
            raise nobody_opens()
        now_ms = self._wall_ms()
        if key_id is None:
            return self._ring.held(now_ms)
        try:
            return (self._ring.find(bytes.fromhex(key_id), now_ms),)
        except (KeyUnknown, ValueError):
            raise self.expired() from None

    def expired(self) -> ApiError:
        """What is said of a request that is sealed to a key we do not have."""
        if self._ring is None:
            return nobody_opens()
        public = self._ring.current.public
        return KeyExpired(public.wire, public.key_id.hex())
