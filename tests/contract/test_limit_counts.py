"""What counts requests keeps one contract: in this process, and in a real store that replicas share."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from store import PATIENCE, Store, stored
from tokenplace.relay.limits import Counts, LocalCounts, SharedCounts


class CountsContract:
    """The body of the suite."""

    async def test_each_key_and_each_window_is_counted_apart(self, counts: Counts) -> None:
        assert [(await counts.hit("ann", 60))[0] for _ in range(3)] == [1, 2, 3]
        assert (await counts.hit("bob", 60))[0] == 1
        assert (await counts.hit("ann", 3600))[0] == 1

    async def test_the_time_that_is_left_is_true(self, counts: Counts) -> None:
        began = time.monotonic()
        for _ in range(3):
            reset = (await counts.hit("ann", 100))[1]
            gone = time.monotonic() - began
            assert 99 - gone - 1 <= reset <= 100

    async def test_to_look_counts_nothing(self, counts: Counts) -> None:
        assert await counts.peek("ann", 60) == (0, 60.0)
        await counts.hit("ann", 60)
        for _ in range(2):
            count, reset = await counts.peek("ann", 60)
            assert count == 1
            assert 0 < reset <= 60
        assert (await counts.hit("ann", 60))[0] == 2
        assert (await counts.peek("bob", 60))[0] == 0

    async def test_a_window_that_ended_begins_again(self, counts: Counts) -> None:
        assert (await counts.hit("ann", 1))[0] == 1
        deadline = time.monotonic() + 20
        while (await counts.hit("ann", 1))[0] != 1:
            assert time.monotonic() < deadline


class TestLocalCounts(CountsContract):
    @pytest.fixture
    def counts(self) -> Counts:
        return LocalCounts()


class TestSharedCounts(CountsContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with stored(tmp_path) as store:
            yield store

    @pytest.fixture
    async def counts(self, store: Store) -> AsyncIterator[Counts]:
        counts = SharedCounts.at(store.url, patience=PATIENCE)
        yield counts
        await counts.aclose()

    async def test_no_replica_says_that_a_window_ends_before_it_does(self, store: Store) -> None:
        replicas = [SharedCounts.at(store.url, patience=PATIENCE) for _ in range(12)]
        await replicas[0].hit("ann", 20)
        began = time.monotonic()  # a moment after the store began the window
        for number, replica in enumerate(replicas[1:], start=1):
            await asyncio.sleep(max(0.0, began + number / 10 - time.monotonic()))  # a store has its own clock
            asked = time.monotonic()
            _, left = await replica.hit("ann", 20)
            assert began + 20 - 0.05 <= time.monotonic() + left, "it would be asked too early"
            assert left <= 20 - (asked - began) + 1.1
        for replica in replicas:
            await replica.aclose()

    async def test_replicas_count_together_and_alone_while_the_store_is_away(self, store: Store) -> None:
        clock = [0.0]
        one, other = (SharedCounts.at(store.url, lambda: clock[0], PATIENCE) for _ in range(2))
        assert [(await each.hit("ann", 600))[0] for each in (one, other, one)] == [1, 2, 3]
        store.end(signal.SIGKILL)
        assert [(await each.hit("ann", 600))[0] for each in (one, other, one)] == [1, 1, 2]
        store.start()
        clock[0] += 10
        assert [(await each.hit("ann", 600))[0] for each in (one, other)] == [1, 2]
        for each in (one, other):
            await each.aclose()
