"""How much one client may ask: rates and quotas, with the honest time until more is allowed.

A budget is a list of windows ("60/minute; 1000/day"). Each window counts from the client's first request in it, so that
the time to its end is exact. A refusal in one window takes nothing from the longer ones, and tells when the last of
those that are used up ends. Counts are kept here, or in a
store that replicas share; when that is lost they are kept here until it is back, because a limit that cannot be checked
must not stop anybody.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable
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

_LONGEST = 366 * 86400
_MOST = 1_000_000_000
_NO_TIME = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)
"""A window of no length, which `limits` reads as one of one minute, hour or day."""

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
    RESUMES = "resumes"
    """Going on with jobs that this relay does not hold: it costs their node a look at each."""
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

    async def peek(self, key: str, window: int) -> tuple[int, float]:
        """The same without counting; where none is counted, none and the whole window."""


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

    async def peek(self, key: str, window: int) -> tuple[int, float]:
        """The same without counting; where none is counted, none and the whole window."""
        now = self._clock()
        clients = self._windows.get(window)
        count, ends = (clients.get(key) if clients is not None else None) or (0, now)
        return (int(count), ends - now) if ends > now else (0, float(window))


_Ask = Callable[[str, int], Awaitable[tuple[int, float]]]


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
        return await self._either(self._hit, self._local.hit, key, window)

    async def peek(self, key: str, window: int) -> tuple[int, float]:
        """The same without counting; where none is counted, none and the whole window. Never raises."""
        return await self._either(self._peek, self._local.peek, key, window)

    async def _either(self, shared: _Ask, local: _Ask, key: str, window: int) -> tuple[int, float]:
        """Ask the store, or this process while that is lost."""
        if self._again_at is not None and self._clock() < self._again_at:
            return await local(key, window)
        try:
            async with asyncio.timeout(self._patience), self._lanes:
                found = await shared(f"{key}/{window}", window)
        except (StorageError, OSError, TimeoutError) as error:
            if self._again_at is None:
                _log.warning("limits.store_lost", reason=type(error).__name__, until="counted by this replica alone")
            self._again_at = self._clock() + _STORE_PAUSE
            return await local(key, window)
        if self._again_at is not None:
            self._again_at = None
            _log.info("limits.store_back")
        return found

    async def _hit(self, key: str, window: int) -> tuple[int, float]:
        count = await self._storage.incr(key, window)
        return count, await self._left(key, window, begun=count == 1)

    async def _peek(self, key: str, window: int) -> tuple[int, float]:
        count = await self._storage.get(key)
        return (count, await self._left(key, window, begun=False)) if count else (0, float(window))

    async def _left(self, key: str, window: int, *, begun: bool) -> float:
        """Seconds until a window has surely ended. The store tells whole ones, rounded: half of one may be missing."""
        now = self._clock()
        ends = self._ends.get(key, now)
        if begun:
            ends = now + window
        elif ends <= now:
            told = await self._storage.get_expiry(key) - time.time()
            ends = now + min(max(0.0, told) + 0.5, window)
        self._ends[key] = ends
        self._ends.move_to_end(key)
        if len(self._ends) > _MOST_CLIENTS:
            self._ends.popitem(last=False)
        return ends - now


def read_limits(text: str, setting: str) -> tuple[RateLimitItem, ...]:
    """Windows as `limits` writes them: "60/minute; 1000/day". Blank: none. Raises BadLimit with the setting's name.

    The shortest is first; of several that are equally long the one that allows least counts.
    """
    if not text.strip():
        return ()
    try:
        items = parse_many(text)
    except ValueError:
        raise BadLimit(
            f"{setting}: {text[:60]!r} is no limit; write for example 60/minute, or 10/minute; 500/day, or nothing."
        ) from None
    if _NO_TIME.search(text) or not all(item.amount for item in items):
        raise BadLimit(f"{setting}: {text[:60]!r} would refuse everybody for ever; for no limit write nothing.")
    if any(item.get_expiry() > _LONGEST or item.amount > _MOST for item in items):
        raise BadLimit(f"{setting}: {text[:60]!r} is more than anybody counts; a window is a year long at most.")
    return least(items)


def least(items: Iterable[RateLimitItem]) -> tuple[RateLimitItem, ...]:
    """One window of each length, the one that allows least: two would count each request twice."""
    found: dict[int, RateLimitItem] = {}
    for item in items:
        length = item.get_expiry()
        if length not in found or item.amount < found[length].amount:
            found[length] = item
    return tuple(found[length] for length in sorted(found))


@dataclass(slots=True)
class Limiter:
    """All budgets of one relay. `everybody` counts clients on this very machine too, who otherwise go free."""

    budgets: dict[Budget, tuple[RateLimitItem, ...]]
    counts: Counts = field(default_factory=LocalCounts)
    everybody: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    """How often each budget was used up, for the metrics."""

    async def hit(self, budget: Budget, client: Client, key: str | None = None) -> Standing | None:
        """Count one request of `client`, or of the holder of an API key.

        Gives where that client stands, None where nothing is counted. Raises RateLimited.
        """
        windows = self.budgets.get(budget, ())
        if not windows or (key is None and not self.everybody and client.is_here):
            return None
        who = f"{budget.value}/{key or client.key}"
        stands: list[tuple[Standing, RateLimitItem]] = []
        refused = False
        for item in windows:
            window = item.get_expiry()
            count, reset = await (self.counts.peek if refused else self.counts.hit)(who, window)
            stands.append((Standing(item.amount, window, max(0, item.amount - count), reset), item))
            refused = refused or count > item.amount
        if refused:
            self.refused[budget.value] += 1
            last, item = max((each for each in stands if not each[0].remaining), key=lambda each: each[0].reset)
            raise RateLimited(_WHY[budget].format(item=_said(item), seconds=last.seconds), last)
        return min(stands, key=lambda each: (each[0].remaining, -each[0].window))[0]


_WHY = {
    Budget.REQUESTS: "You may ask {item} here; ask again in {seconds} seconds.",
    Budget.STREAMS: "You may begin a stream {item} here; ask again in {seconds} seconds, or without `stream`.",
    Budget.RESUMES: "You may come back to answers that began elsewhere {item}; come back in {seconds} seconds.",
    Budget.LINKS: "From one address a node may dial {item}; dial again in {seconds} seconds.",
}


def _said(item: RateLimitItem) -> str:
    """How often: once a minute, 2 times an hour, 3 times in 5 minutes."""
    name = item.GRANULARITY.name
    often = "once" if item.amount == 1 else f"{item.amount} times"
    if item.multiples > 1:
        return f"{often} in {item.multiples} {name}s"
    return f"{often} {'an' if name == 'hour' else 'a'} {name}"
