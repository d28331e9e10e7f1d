"""How much one client may ask: rates and quotas, with the honest time until more is allowed.

A budget is a list of windows ("60/minute; 1000/day"). Each window counts from the client's first request in it, so that
the time to its end is exact. A refusal in one window takes nothing from the longer ones. Counts are kept here, or in a
store that replicas share; when that is lost they are kept here until it is back, because a limit that cannot be checked
must not stop anybody.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Protocol

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage, Storage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from tokenplace.errors import Refused, TokenPlaceError
from tokenplace.relay.address import Client
from tokenplace.relay.asgi import Headers

_MOST_CLIENTS = 50_000
"""Clients remembered for each length of window: some ten MiB. Beyond, whoever began first begins again."""

_STORE_PATIENCE = 0.25
"""Seconds that a request waits for the store, all in all."""
_STORE_PAUSE = 5.0
_STORE_CONNECTIONS = 8
_STORES = {
    "redis": "valkey",
    "rediss": "valkeys",
    "valkey": "valkey",
    "valkeys": "valkeys",
    "unix": "valkey+unix",
}
_log = structlog.get_logger("tokenplace.relay")


class BadLimit(TokenPlaceError):
    """A limit cannot be read."""

    code = "bad_limit"


class RateLimited(Refused):
    """You have asked as often as one client may for now; ask again after the time in Retry-After."""

    code = "rate_limit_exceeded"
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, standing: Standing) -> None:
        super().__init__(message, retry_after=standing.seconds)
        self.standing = standing


class Budget(StrEnum):
    """What is counted apart from each other."""

    REQUESTS = "requests"
    STREAMS = "streams"
    LINKS = "links"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands in the window that leaves it least."""

    limit: int
    window: int
    """Seconds from the first request to the end."""
    remaining: int
    reset: float
    """Seconds until the window ends."""

    @property
    def seconds(self) -> int:
        """Whole seconds until the window has surely ended."""
        return max(1, math.ceil(self.reset))

    def headers(self) -> Headers:
        """The two fields of draft-ietf-httpapi-ratelimit-headers-10, and those that OpenAI's clients know."""
        limit, remaining, seconds = self.limit, self.remaining, self.seconds
        return [
            (b"ratelimit-policy", b'"requests";q=%d;w=%d' % (limit, self.window)),
            (b"ratelimit", b'"requests";r=%d;t=%d' % (remaining, seconds)),
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % remaining),
            (b"x-ratelimit-reset-requests", b"%ds" % seconds),
        ]


class Counts(Protocol):
    """Where requests are counted."""

    async def hit(self, key: str, window: int) -> tuple[int, float]:
        """Count one; gives how many there are in this window, and the seconds until it ends."""


class LocalCounts:
    """Counts in this process, bounded. Every call costs the same, however many clients there are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = _MOST_CLIENTS) -> None:
        self._clock = clock
        self._most = most
        self._windows: dict[int, OrderedDict[str, list[float]]] = {}

    async def hit(self, key: str, window: int) -> tuple[int, float]:
        """Count one; gives how many there are in this window, and the seconds until it ends."""
        now = self._clock()
        clients = self._windows.setdefault(window, OrderedDict())
        while clients and (len(clients) > self._most or next(iter(clients.values()))[1] <= now):
            clients.popitem(last=False)  # windows of one length end in the order in which they began
        entry = clients.get(key)
        if entry is None:
            entry = clients[key] = [0, now + window]
        entry[0] += 1
        return int(entry[0]), entry[1] - now


class SharedCounts:
    """Counts in a store that replicas share; while that is lost, counts in this process."""

    def __init__(
        self, storage: Storage, clock: Callable[[], float] = time.monotonic, patience: float = _STORE_PATIENCE
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._patience = patience
        self._local = LocalCounts(clock)
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._again_at: float | None = None
        self._lanes = asyncio.Semaphore(_STORE_CONNECTIONS)

    @classmethod
    def at(
        cls, url: str, clock: Callable[[], float] = time.monotonic, patience: float = _STORE_PATIENCE
    ) -> SharedCounts:
        """Counts in the Valkey or Redis server at this URL; nothing is connected yet. Raises BadLimit."""
        scheme, _, rest = url.partition("://")
        if scheme not in _STORES:
            raise BadLimit("The store's address begins with valkey:// or redis:// (with s for TLS), or unix://.")
        sockets = {"socket_timeout": 2 * patience, "socket_connect_timeout": 2 * patience}
        try:
            storage = storage_from_string(f"async+{_STORES[scheme]}://{rest}", wrap_exceptions=True, **sockets)
        except (ValueError, ConfigurationError):
            raise BadLimit("The store's address cannot be read.") from None  # its own words may quote a password
        if not isinstance(storage, RedisStorage):
            raise AssertionError(f"unexpected storage {type(storage)}")
        return cls(storage, clock, patience)

    async def aclose(self) -> None:
        """Let go of the connections."""
        bridge = self._storage.bridge if isinstance(self._storage, RedisStorage) else None
        if isinstance(bridge, RedispyBridge):
            with suppress(StorageError, OSError):
                await bridge.storage.aclose()

    async def hit(self, key: str, window: int) -> tuple[int, float]:
        """Count one; gives how many there are in this window, and the seconds until it ends. Never raises."""
        if self._again_at is not None and self._clock() < self._again_at:
            return await self._local.hit(key, window)
        try:
            async with asyncio.timeout(self._patience):
                found = await self._shared(f"{key}/{window}", window)
        except (StorageError, OSError, TimeoutError) as error:
            if self._again_at is None:
                _log.warning("limits.store_lost", reason=type(error).__name__, until="counted by this replica alone")
            self._again_at = self._clock() + _STORE_PAUSE
            return await self._local.hit(key, window)
        if self._again_at is not None:
            self._again_at = None
            _log.info("limits.store_back")
        return found

    async def _shared(self, key: str, window: int) -> tuple[int, float]:
        async with self._lanes:
            return await self._asked(key, window)

    async def _asked(self, key: str, window: int) -> tuple[int, float]:
        count = await self._storage.incr(key, window)
        now = self._clock()
        ends = self._ends.get(key, now)
        if count == 1:
            ends = now + window
        elif ends <= now:
            ends = now + max(0.0, await self._storage.get_expiry(key) - time.time())
        self._ends[key] = ends
        self._ends.move_to_end(key)
        if len(self._ends) > _MOST_CLIENTS:
            self._ends.popitem(last=False)
        return count, ends - now


def read_limits(text: str, setting: str) -> tuple[RateLimitItem, ...]:
    """Windows as `limits` writes them: "60/minute; 1000/day". Blank: none. Raises BadLimit with the setting's name."""
    if not text.strip():
        return ()
    try:
        items = parse_many(text)
    except ValueError:
        raise BadLimit(
            f"{setting}: {text[:60]!r} is no limit; write for example 60/minute, or 10/minute; 500/day, or nothing."
        ) from None
    return tuple(sorted(items, key=lambda item: item.get_expiry()))


@dataclass(slots=True)
class Limiter:
    """All budgets of one relay. `everybody` counts clients on this very machine too, who otherwise go free."""

    budgets: dict[Budget, Sequence[RateLimitItem]]
    counts: Counts = field(default_factory=LocalCounts)
    everybody: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    """How often each budget was used up, for the metrics."""

    async def hit(self, budget: Budget, client: Client, key: str | None = None) -> Standing | None:
        """Count one request of `client`, or of the holder of an API key.

        Gives where that client stands, None where nothing is counted. Raises RateLimited.
        """
        windows = self.budgets.get(budget, ())
        if not windows or (key is None and not self.everybody and client.ip is not None and client.ip.is_loopback):
            return None
        who = f"{budget.value}/{key or client.key}"
        tightest: Standing | None = None
        for item in windows:
            window = item.get_expiry()
            count, reset = await self.counts.hit(who, window)
            standing = Standing(item.amount, window, max(0, item.amount - count), reset)
            if count > item.amount:
                self.refused[budget.value] += 1
                raise RateLimited(_WHY[budget].format(item=_said(item), seconds=standing.seconds), standing)
            if tightest is None or standing.remaining < tightest.remaining:
                tightest = standing
        return tightest


_WHY = {
    Budget.REQUESTS: "You may ask {item} here; ask again in {seconds} seconds.",
    Budget.STREAMS: "You may begin {item} streams here; ask again in {seconds} seconds, or without `stream`.",
    Budget.LINKS: "From one address a node may dial {item}; dial again in {seconds} seconds.",
}


def _said(item: RateLimitItem) -> str:
    each = f"{item.multiples} {item.GRANULARITY.name}s" if item.multiples > 1 else item.GRANULARITY.name
    return f"{item.amount} times in {each}" if item.multiples > 1 else f"{item.amount} times a {each}"
