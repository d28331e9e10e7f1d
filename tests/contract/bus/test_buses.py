"""One body for every bus: in one process, and over a real Valkey or Redis."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from store import Store, stored
from tokenplace.relay.bus.base import Bus, BusBroken, Letter, Topic
from tokenplace.relay.bus.memory import Hub, MemoryBus
from tokenplace.relay.bus.valkey import BadStore, ValkeyBus

ONE, TWO = Topic("one"), Topic("two")
PATIENCE = 30.0


async def some(letters: AsyncIterator[bytes], count: int) -> list[bytes]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(letters) for _ in range(count)]


async def heard_by(bus: Bus, count: int) -> None:
    """Wait until so many listen to ONE."""
    async with asyncio.timeout(PATIENCE):
        while (await bus.publish([Letter(ONE, b"anybody?")]))[0] != count:
            await asyncio.sleep(0.01)


class BusContract(ABC):
    """The body. A subclass gives places on one bus, and can take the bus away."""

    @abstractmethod
    def place(self) -> Bus:
        """Another place on the same bus."""

    @abstractmethod
    def cut(self) -> None:
        """The store ends."""

    @abstractmethod
    def mend(self) -> None:
        """It is started again."""

    @asynccontextmanager
    async def places(self) -> AsyncIterator[tuple[Bus, Bus]]:
        buses = self.place(), self.place()
        try:
            yield buses
        finally:
            for bus in buses:
                await bus.aclose()

    async def test_letters_are_heard_in_the_order_they_were_published_over_all_topics(self) -> None:
        async with self.places() as (speaker, listener), listener.listen([ONE, TWO]) as letters:
            sent = [Letter((ONE, TWO)[number % 2], str(number).encode()) for number in range(200)]
            for start in range(0, 200, 7):
                await speaker.publish(sent[start : start + 7])
            assert await some(letters, 200) == [letter.data for letter in sent]

    async def test_the_publisher_learns_how_many_heard(self) -> None:
        async with self.places() as (speaker, listener):
            assert list(await speaker.publish([Letter(ONE, b"a")])) == [0]
            async with listener.listen([ONE]), speaker.listen([ONE, TWO]):
                assert list(await speaker.publish([Letter(ONE, b"a"), Letter(TWO, b"b")])) == [2, 1]
            await heard_by(speaker, 0)

    async def test_who_publishes_hears_itself(self) -> None:
        async with self.places() as (speaker, _), speaker.listen([ONE]) as letters:
            await speaker.publish([Letter(ONE, b"a")])
            assert await some(letters, 1) == [b"a"]

    async def test_nothing_is_kept_for_who_comes_later(self) -> None:
        async with self.places() as (speaker, listener):
            await speaker.publish([Letter(ONE, b"early")])
            async with listener.listen([ONE]) as letters:
                await speaker.publish([Letter(ONE, b"late")])
                assert await some(letters, 1) == [b"late"]

    async def test_other_topics_are_not_heard(self) -> None:
        async with self.places() as (speaker, listener), listener.listen([ONE]) as letters:
            await speaker.publish([Letter(TWO, b"not for you"), Letter(ONE, b"for you")])
            assert await some(letters, 1) == [b"for you"]

    async def test_any_bytes_and_large_letters_arrive_unchanged(self) -> None:
        data = [b"", b"\r\n$-1\r\n\x00\xff", bytes(range(256)) * 32 * 1024]
        async with self.places() as (speaker, listener), listener.listen([ONE]) as letters:
            await speaker.publish([Letter(ONE, each) for each in data])
            assert await some(letters, 3) == data

    async def test_a_lost_bus_is_an_error_for_who_listens_and_who_speaks(self) -> None:
        async with self.places() as (speaker, listener):
            async with listener.listen([ONE]) as letters:
                await heard_by(speaker, 1)
                self.cut()
                with pytest.raises(BusBroken):
                    await some(letters, 1000)
            with pytest.raises(BusBroken):
                await speaker.publish([Letter(ONE, b"a")])
            with pytest.raises(BusBroken):
                async with listener.listen([ONE]):
                    raise AssertionError

    async def test_a_bus_that_came_back_serves_the_same_places(self) -> None:
        async with self.places() as (speaker, listener):
            await speaker.publish([Letter(ONE, b"a")])
            self.cut()
            self.mend()
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        async with listener.listen([ONE]) as letters:
                            await speaker.publish([Letter(ONE, b"back")])
                            assert await some(letters, 1) == [b"back"]
                            return
                    except BusBroken:
                        await asyncio.sleep(0.05)


class TestMemoryBus(BusContract):
    @pytest.fixture(autouse=True)
    def hub(self) -> None:
        self._hub = Hub()

    def place(self) -> Bus:
        return MemoryBus(self._hub)

    def cut(self) -> None:
        self._hub.cut()

    def mend(self) -> None:
        self._hub.mend()


class TestValkeyBus(BusContract):
    @pytest.fixture(autouse=True)
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with stored(tmp_path) as store:
            self._store = store
            yield store

    def place(self) -> Bus:
        return ValkeyBus(self._store.url)

    def cut(self) -> None:
        self._store.end(signal.SIGKILL)

    def mend(self) -> None:
        self._store.start()

    async def test_a_store_that_does_not_answer_is_lost_within_the_patience(self) -> None:
        bus = ValkeyBus(self._store.url, patience=0.2)
        await bus.publish([Letter(ONE, b"a")])
        self._store.send(signal.SIGSTOP)
        with pytest.raises(BusBroken):
            await bus.publish([Letter(ONE, b"a")])
        with pytest.raises(BusBroken):
            async with bus.listen([ONE]):
                raise AssertionError
        self._store.send(signal.SIGCONT)
        await bus.aclose()

    async def test_databases_of_one_server_do_not_hear_each_other(self) -> None:
        other, same = ValkeyBus(f"{self._store.url}/1"), ValkeyBus(f"{self._store.url}/0")
        async with self.places() as (speaker, _), other.listen([ONE]), same.listen([ONE]):
            assert list(await speaker.publish([Letter(ONE, b"a")])) == [1]
        await other.aclose()
        await same.aclose()

    async def test_a_password_is_asked_for_and_never_repeated(self, tmp_path: Path) -> None:
        with stored(tmp_path / "locked", password="hush-hush") as locked:
            bus = ValkeyBus(f"valkey://:hush-hush@127.0.0.1:{locked.port}")
            assert list(await bus.publish([Letter(ONE, b"a")])) == [0]
            await bus.aclose()
            stranger = ValkeyBus(f"valkey://:wrong-word@127.0.0.1:{locked.port}")
            with pytest.raises(BusBroken) as refused:
                await stranger.publish([Letter(ONE, b"a")])
            assert "wrong-word" not in refused.value.message
            await stranger.aclose()


@pytest.mark.parametrize("url", ["http://hush-hush@host:1", "nonsense", "valkey://host:hush-hush", ""])
def test_what_is_no_store_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(BadStore) as refused:
        ValkeyBus(url)
    assert "hush-hush" not in refused.value.message
    assert "valkey://" in refused.value.message
