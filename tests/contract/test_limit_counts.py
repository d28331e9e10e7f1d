"""What counts requests keeps one contract: in this process, and in a real store that replicas share."""

from __future__ import annotations

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
