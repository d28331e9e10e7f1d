"""One body for every bus: in one process, and over a real Valkey or Redis."""

from __future__ import annotations

import asyncio
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from memory_bus import Hub, MemoryBus
from store import Store, stored
from tokenplace.relay.bus.base import Bus, BusBroken, Letter, Line, Topic
from tokenplace.relay.bus.valkey import BadStore, ValkeyBus

ONE, TWO = Topic("one"), Topic("two")
PATIENCE = 30.0


class Ear:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []
        self.missed: list[Topic] = []

    def hear(self, data: bytes) -> None:
        """See Listener."""
        self.letters.append(data)

    def unheard(self, topic: Topic) -> None:
        """See Listener."""
        self.missed.append(topic)

    async def has(self, count: int) -> list[bytes]:
        """The first letters, once there are so many."""
        await come_true(lambda: len(self.letters) >= count)
        return self.letters[:count]


async def come_true(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


class BusContract(ABC):
    """The body. A subclass gives ways to one bus, and can take the bus away."""

    @abstractmethod
    def bus(self) -> Bus:
        """Another way to the same bus."""

    @abstractmethod
    def cut(self) -> None:
        """The store ends."""

    @abstractmethod
    def mend(self) -> None:
        """It is started again."""

    @asynccontextmanager
    async def line(self, *topics: Topic) -> AsyncIterator[tuple[Line, Ear]]:
        ear = Ear()
        async with self.bus().join(topics or [TWO], ear) as line:
            yield line, ear

    async def test_letters_are_heard_in_the_order_they_were_published_over_all_topics(self) -> None:
        async with self.line() as (speaker, _), self.line(ONE, TWO) as (_, ear):
            sent = [Letter((ONE, TWO)[number % 2], str(number).encode()) for number in range(200)]
            for start in range(0, 200, 7):
                speaker.publish(sent[start : start + 7])
            assert await ear.has(200) == [letter.data for letter in sent]

    async def test_who_listens_is_heard_from_the_beginning_of_the_block(self) -> None:
        async with self.line() as (speaker, missing):
            for number in range(20):
                async with self.line(ONE) as (_, ear):
                    speaker.publish([Letter(ONE, str(number).encode())])
                    assert await ear.has(1) == [str(number).encode()]
            assert not missing.missed

    async def test_the_publisher_learns_that_nobody_hears(self) -> None:
        async with self.line(TWO) as (speaker, ear):
            speaker.publish([Letter(TWO, b"a"), Letter(ONE, b"b"), Letter(TWO, b"c")])
            await come_true(lambda: ear.missed == [ONE])
            assert await ear.has(2) == [b"a", b"c"]
            async with self.line(ONE) as (_, other):
                speaker.publish([Letter(ONE, b"d")])
                await other.has(1)
            assert ear.missed == [ONE]

            def gone() -> bool:
                speaker.publish([Letter(ONE, b"e")])
                return ear.missed[1:] != []

            await come_true(gone)

    async def test_who_publishes_hears_itself(self) -> None:
        async with self.line(ONE) as (speaker, ear):
            speaker.publish([Letter(ONE, b"a")])
            assert await ear.has(1) == [b"a"]

    async def test_nothing_is_kept_for_who_comes_later(self) -> None:
        async with self.line() as (speaker, nobody):
            speaker.publish([Letter(ONE, b"early")])
            await come_true(lambda: nobody.missed == [ONE])
            async with self.line(ONE) as (_, ear):
                speaker.publish([Letter(ONE, b"late")])
                assert await ear.has(1) == [b"late"]

    async def test_other_topics_are_not_heard(self) -> None:
        async with self.line() as (speaker, _), self.line(ONE) as (_, ear):
            speaker.publish([Letter(TWO, b"not for you"), Letter(ONE, b"for you")])
            assert await ear.has(1) == [b"for you"]

    async def test_any_bytes_and_large_letters_arrive_unchanged(self) -> None:
        data = [b"", b"\r\n$-1\r\n\x00\xff", bytes(range(256)) * 32 * 1024]
        async with self.line() as (speaker, _), self.line(ONE) as (_, ear):
            speaker.publish([Letter(ONE, each) for each in data])
            assert await ear.has(3) == data

    async def test_a_lost_bus_is_an_error_for_everybody_and_publishing_on_it_is_none(self) -> None:
        async with self.line() as (speaker, _), self.line(ONE) as (listener, _):
            self.cut()
            for line in (speaker, listener):
                with pytest.raises(BusBroken):
                    async with asyncio.timeout(PATIENCE):
                        await line.ended()
                line.publish([Letter(ONE, b"a")])
        with pytest.raises(BusBroken):
            async with self.line():
                raise AssertionError

    async def test_a_bus_that_came_back_is_joined_by_the_same_way(self) -> None:
        bus = self.bus()
        async with bus.join([ONE], Ear()):
            self.cut()
        self.mend()
        ear = Ear()
        async with bus.join([ONE], ear) as line:
            line.publish([Letter(ONE, b"back")])
            assert await ear.has(1) == [b"back"]


class TestMemoryBus(BusContract):
    @pytest.fixture(autouse=True)
    def hub(self) -> None:
        self._hub = Hub()

    def bus(self) -> Bus:
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

    def bus(self) -> Bus:
        return ValkeyBus(self._store.url)

    def cut(self) -> None:
        self._store.end(signal.SIGKILL)

    def mend(self) -> None:
        self._store.start()

    async def test_a_store_that_does_not_answer_is_lost_within_the_patience(self) -> None:
        bus = ValkeyBus(self._store.url, patience=0.2)
        async with bus.join([ONE], Ear()) as line:
            self._store.send(signal.SIGSTOP)
            line.publish([Letter(ONE, b"a")])
            with pytest.raises(BusBroken):
                async with asyncio.timeout(PATIENCE):
                    await line.ended()
        with pytest.raises(BusBroken):
            async with bus.join([ONE], Ear()):
                raise AssertionError
        self._store.send(signal.SIGCONT)

    async def test_a_line_that_is_left_open_for_long_says_nothing_and_stands(self) -> None:
        bus, ear = ValkeyBus(self._store.url, patience=0.05), Ear()
        async with bus.join([ONE], ear) as line:
            for number in (1, 2):
                line.publish([Letter(ONE, b"a")])
                await ear.has(number)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await line.ended()

    async def test_what_the_store_refuses_ends_the_line(self) -> None:
        async with self.line(ONE) as (line, _):
            with socket.create_connection(("127.0.0.1", self._store.port), 10) as operator:
                operator.sendall(b"ACL SETUSER default -publish\r\n")
                assert operator.recv(64) == b"+OK\r\n"
            line.publish([Letter(ONE, b"a")])
            with pytest.raises(BusBroken):
                async with asyncio.timeout(PATIENCE):
                    await line.ended()

    async def test_nothing_of_a_line_stays_open(self) -> None:
        def connections() -> int:
            with socket.create_connection(("127.0.0.1", self._store.port), 10) as operator:
                operator.sendall(b"INFO clients\r\n")
                told = operator.recv(1 << 16).decode()
            return int(told.partition("connected_clients:")[2].split()[0])

        for _ in range(3):
            async with self.line(ONE):
                assert connections() == 3
        await come_true(lambda: connections() == 1)

    async def test_databases_of_one_server_do_not_hear_each_other(self) -> None:
        other, same, ears = ValkeyBus(f"{self._store.url}/1"), ValkeyBus(f"{self._store.url}/0"), (Ear(), Ear())
        async with self.line() as (speaker, _), other.join([ONE], ears[0]), same.join([ONE], ears[1]):
            speaker.publish([Letter(ONE, b"a")])
            assert await ears[1].has(1) == [b"a"]
            assert not ears[0].letters

    async def test_a_password_is_asked_for_and_never_repeated(self, tmp_path: Path) -> None:
        with stored(tmp_path / "locked", password="hush-hush") as locked:
            ear = Ear()
            async with ValkeyBus(f"valkey://:hush-hush@127.0.0.1:{locked.port}").join([ONE], ear) as line:
                line.publish([Letter(ONE, b"a")])
                assert await ear.has(1) == [b"a"]
            with pytest.raises(BusBroken) as refused:
                async with ValkeyBus(f"valkey://:wrong-word@127.0.0.1:{locked.port}").join([ONE], ear):
                    raise AssertionError
            assert "wrong-word" not in refused.value.message


@pytest.mark.parametrize("url", ["http://hush-hush@host:1", "nonsense", "valkey://host:hush-hush", ""])
def test_what_is_no_store_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(BadStore) as refused:
        ValkeyBus(url)
    assert "hush-hush" not in refused.value.message
    assert "valkey://" in refused.value.message
