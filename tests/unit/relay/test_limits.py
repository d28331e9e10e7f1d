"""Rates and quotas."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address

import pytest
from limits.aio.storage import MemoryStorage
from limits.errors import StorageError

from tokenplace.relay.address import Client
from tokenplace.relay.limits import (
    BadLimit,
    Budget,
    Limiter,
    LocalCounts,
    RateLimited,
    SharedCounts,
    Standing,
    read_limits,
)

ANN, BOB = (Client(ip_address(text), text) for text in ("198.51.100.1", "198.51.100.2"))
HERE = Client(ip_address("127.0.0.1"), "127.0.0.1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_limiter(clock: Clock, text: str = "2/minute; 3/day", everybody: bool = False) -> Limiter:
    return Limiter({Budget.REQUESTS: read_limits(text, "API_RATE_LIMIT")}, LocalCounts(clock), everybody)


async def refused(limiter: Limiter, client: Client, key: str | None = None) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await limiter.hit(Budget.REQUESTS, client, key)
    return caught.value


async def test_a_client_hears_where_it_stands_and_when_it_may_come_back() -> None:
    clock = Clock()
    limiter = a_limiter(clock)
    assert await limiter.hit(Budget.REQUESTS, ANN) == Standing(2, 60, 1, 60.0)
    clock.now += 17.5
    assert await limiter.hit(Budget.REQUESTS, ANN) == Standing(2, 60, 0, 42.5)
    error = await refused(limiter, ANN)
    assert (error.retry_after, error.code, error.status) == (43, "rate_limit_exceeded", 429)
    clock.now += 42.5
    assert (await limiter.hit(Budget.REQUESTS, ANN)) == Standing(3, 86400, 0, 86340.0)


async def test_who_comes_back_after_the_told_time_is_let_in() -> None:
    clock = Clock()
    limiter = a_limiter(clock, "1/minute")
    await limiter.hit(Budget.REQUESTS, ANN)
    clock.now += 59.2
    error = await refused(limiter, ANN)
    assert error.retry_after == 1
    clock.now += error.retry_after
    await limiter.hit(Budget.REQUESTS, ANN)


async def test_a_refusal_in_a_short_window_takes_nothing_from_the_long_one() -> None:
    clock = Clock()
    limiter = a_limiter(clock, "1/minute; 2/day")
    await limiter.hit(Budget.REQUESTS, ANN)
    for _ in range(5):
        await refused(limiter, ANN)
    clock.now += 60
    await limiter.hit(Budget.REQUESTS, ANN)
    clock.now += 60
    assert (await refused(limiter, ANN)).standing.window == 86400


async def test_windows_of_one_length_are_one_window_and_the_smaller_number_counts() -> None:
    limiter = a_limiter(Clock(), "10/minute; 6/60 seconds; 8/minute")
    assert [(await limiter.hit(Budget.REQUESTS, ANN)) for _ in range(6)][-1] == Standing(6, 60, 0, 60.0)
    await refused(limiter, ANN)


async def test_the_told_time_is_when_the_last_of_the_used_up_windows_ends() -> None:
    clock = Clock()
    limiter = a_limiter(clock, "3/2 seconds; 3/day")
    for _ in range(2):
        await limiter.hit(Budget.REQUESTS, ANN)
    standing = await limiter.hit(Budget.REQUESTS, ANN)
    assert standing == Standing(3, 86400, 0, 86400.0), "of two that leave nothing the longer one says when"
    assert (await refused(limiter, ANN)).retry_after == 86400
    clock.now += 86400
    assert await limiter.hit(Budget.REQUESTS, ANN) is not None


async def test_a_short_window_that_a_refused_request_filled_is_waited_for_too() -> None:
    clock = Clock()
    limiter = a_limiter(clock, "1/minute; 1/hour")
    await limiter.hit(Budget.REQUESTS, ANN)
    clock.now += 3599
    error = await refused(limiter, ANN)
    assert error.retry_after == 60, "a second later the hour is over, and the minute is not"
    clock.now += 60
    assert await limiter.hit(Budget.REQUESTS, ANN) is not None


async def test_to_look_at_the_longer_windows_counts_nothing_in_them() -> None:
    clock = Clock()
    limiter = a_limiter(clock, "1/minute; 2/day")
    await limiter.hit(Budget.REQUESTS, ANN)
    for _ in range(9):
        assert (await refused(limiter, ANN)).retry_after == 60
    clock.now += 60
    assert await limiter.hit(Budget.REQUESTS, ANN) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1/minute", "may ask once a minute here"),
        ("2/hour", "may ask 2 times an hour here"),
        ("1/2 hours", "may ask once in 2 hours here"),
        ("3/5 minutes", "may ask 3 times in 5 minutes here"),
    ],
)
async def test_a_refusal_is_a_sentence(text: str, said: str) -> None:
    limiter = a_limiter(Clock(), text)
    for _ in range(read_limits(text, "API_RATE_LIMIT")[0].amount):
        await limiter.hit(Budget.REQUESTS, ANN)
    assert said in (await refused(limiter, ANN)).message


async def test_clients_and_budgets_are_counted_apart() -> None:
    clock = Clock()
    limiter = a_limiter(clock, "1/minute")
    limiter.budgets[Budget.STREAMS] = read_limits("1/minute", "API_STREAM_RATE_LIMIT")
    await limiter.hit(Budget.REQUESTS, ANN)
    await limiter.hit(Budget.REQUESTS, BOB)
    await limiter.hit(Budget.STREAMS, ANN)
    await refused(limiter, ANN)
    assert limiter.refused == {"requests": 1}


async def test_a_key_is_counted_wherever_its_holder_is() -> None:
    limiter = a_limiter(Clock(), "1/minute")
    await limiter.hit(Budget.REQUESTS, ANN, "key")
    await refused(limiter, BOB, "key")
    await limiter.hit(Budget.REQUESTS, ANN)


async def test_clients_on_this_machine_go_free_unless_somebody_set_a_limit() -> None:
    free, strict = a_limiter(Clock(), "1/minute"), a_limiter(Clock(), "1/minute", everybody=True)
    for _ in range(3):
        assert await free.hit(Budget.REQUESTS, HERE) is None
    await strict.hit(Budget.REQUESTS, HERE)
    await refused(strict, HERE)


async def test_no_limit_counts_nothing() -> None:
    limiter = a_limiter(Clock(), " ")
    for _ in range(100):
        assert await limiter.hit(Budget.REQUESTS, ANN) is None


@pytest.mark.parametrize(
    "text",
    [
        "60",
        "sixty/minute",
        "60/fortnight",
        "-1/minute",
        "1/minute and more",
        "0/minute",
        "10/minute; 0/day",
        "60/0 minute",
        "60 per 00 minutes",
        "5/2 years",
        "5/99999999999 years",
        f"2/{'9' * 400} years",
        f"{'9' * 20}/day",
        f"{'9' * 5000}/day",
    ],
)
def test_a_limit_that_cannot_be_read_names_its_setting(text: str) -> None:
    with pytest.raises(BadLimit, match="API_RATE_LIMIT"):
        read_limits(text, "API_RATE_LIMIT")


def test_headers_follow_the_draft_and_what_openai_s_clients_read() -> None:
    headers = dict(Standing(60, 60, 59, 41.2).headers())
    assert headers[b"ratelimit-policy"] == b'"requests";q=60;w=60'
    assert headers[b"ratelimit"] == b'"requests";r=59;t=42'
    assert headers[b"x-ratelimit-remaining-requests"] == b"59"
    assert headers[b"x-ratelimit-reset-requests"] == b"42s"


async def test_memory_is_bounded_however_many_clients_come() -> None:
    clock = Clock()
    counts = LocalCounts(clock, most=100)
    for number in range(10_000):
        await counts.hit(f"client {number}", 60)
    assert sum(map(len, counts._windows.values())) <= 101
    clock.now += 61
    await counts.hit("one more", 60)
    assert sum(map(len, counts._windows.values())) == 1


class Store(MemoryStorage):
    """A store that two replicas share, and that can be lost."""

    def __init__(self) -> None:
        super().__init__(wrap_exceptions=True)
        self.lost: Exception | None = None
        self.asked = 0
        self.left: int | None = None

    async def get(self, key: str) -> int:
        if self.lost is not None:
            raise self.lost
        return await super().get(key)

    async def get_expiry(self, key: str) -> float:
        return await super().get_expiry(key) if self.left is None else time.time() + self.left

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        self.asked += 1
        if isinstance(self.lost, TimeoutError):
            await asyncio.sleep(3600)
        if self.lost is not None:
            raise self.lost
        return await super().incr(key, expiry, amount)


async def test_replicas_count_together() -> None:
    store = Store()
    one, other = SharedCounts(store, Clock()), SharedCounts(store, Clock())
    assert (await one.hit("ann", 60))[0] == 1
    count, reset = await other.hit("ann", 60)
    assert count == 2
    assert 55 < reset <= 60
    assert (await one.hit("ann", 3600))[0] == 1


@pytest.mark.parametrize("fault", [StorageError(OSError()), ConnectionRefusedError(), TimeoutError()])
async def test_a_lost_store_stops_nobody_and_is_asked_again_later(fault: Exception) -> None:
    store, clock = Store(), Clock()
    counts = SharedCounts(store, clock, patience=0.05)
    store.lost = fault
    assert (await counts.hit("ann", 60))[0] == 1
    assert (await counts.hit("ann", 60))[0] == 2, "limits hold on, counted here"
    assert store.asked == 1, "a lost store is not asked for every request"
    store.lost = None
    clock.now += 6
    assert (await counts.hit("ann", 60))[0] == 1
    assert store.asked == 2


async def test_a_window_that_another_replica_began_is_never_said_to_end_too_early() -> None:
    store, clock = Store(), Clock()
    one, other = SharedCounts(store, clock), SharedCounts(store, clock)
    for left, told in ((9.38, 9.38), (9.62, 9.62), (0.3, 0.3)):
        key = f"ann {left}"
        await one.hit(key, 10)
        store.left = round(left)  # as Valkey tells it: whole seconds, rounded
        assert told <= (await other.hit(key, 10))[1] <= told + 1


async def test_to_look_at_a_shared_count_changes_nothing() -> None:
    store = Store()
    one, other = SharedCounts(store, Clock()), SharedCounts(store, Clock())
    assert await other.peek("ann", 60) == (0, 60.0)
    await one.hit("ann", 60)
    assert [(await each.peek("ann", 60))[0] for each in (one, other, one)] == [1, 1, 1]
    store.lost = ConnectionRefusedError()
    assert (await one.peek("ann", 60))[0] == 0, "what is counted here meanwhile"


@pytest.mark.parametrize("url", ["mysql://x", "nonsense", ""])
def test_a_store_s_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadLimit):
        SharedCounts.at(url)
