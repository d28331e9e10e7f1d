"""One body for every way into a relay: over HTTP, in the same process, and over another replica of it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from memory_bus import Hub, MemoryBus
from tokenplace.cli.hosted import LocalDoor
from tokenplace.cli.serving import address_of, bind, serving
from tokenplace.client.door import Directory, Door, HttpDoor, Records
from tokenplace.errors import Draining, JobUnknown, NodeUnknown, QueueFull, TokenPlaceError
from tokenplace.link.events import Cancelled, Granted
from tokenplace.relay.app import Relay
from tokenplace.relay.broker import Broker
from tokenplace.relay.replicas.courier import Courier
from tokenplace.relay.replicas.peering import Peering
from tokenplace.relay.switchboard import Switchboard
from tokenplace.wire.ids import JobId, ModelId, NodeId, Sid, job_id_of
from tokenplace.wire.limits import CREDIT_STEP, CREDIT_WINDOW, MAX_REQUEST
from tokenplace.wire.messages import Outcome
from tokenplace.wire.request import RequestHeader
from tokenplace.wire.stream import Record, RecordKind
from unit.relay.desk import Desk, Puppet, a_card

STRANGER = a_card(9).node
ONE, TWO = Record(RecordKind.DATA, b"one"), Record(RecordKind.DATA, b"two")


@dataclass
class Bench:
    """A door, and the relay behind it."""

    door: Door
    desk: Desk

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.002)

    async def offer(self, node: Puppet) -> Sid:
        """Wait for an offer to the node, and take it."""
        await self.until(lambda: node.relay_end.last_sid > node.end.seen)
        sid = node.an_offer()
        node.accept(sid)
        return sid

    def job(self, sealed: bytes) -> JobId:
        return RequestHeader.parse(sealed).job


async def rest(records: Records) -> list[Record]:
    async with asyncio.timeout(5):
        return [record async for record in records]


async def first(records: Records) -> Record:
    async with asyncio.timeout(5):
        return await anext(records)


def a_desk(**options: int) -> Desk:
    desk = Desk(**options)
    desk.now = time.monotonic()
    return desk


class DoorContract(ABC):
    """The body. A subclass says how a door to a relay is opened."""

    @abstractmethod
    def open(self, desk: Desk) -> AbstractAsyncContextManager[Door]:
        """A door while the block runs."""

    @pytest.fixture
    async def bench(self) -> AsyncIterator[Bench]:
        desk = a_desk()
        async with self.open(desk) as door:
            yield Bench(door, desk)
        assert desk.broker.held_bytes == 0
        assert not desk.broker.tickets

    async def test_the_directory_lists_nodes_and_models(self, bench: Bench) -> None:
        empty = await bench.door.nodes(None, 8)
        assert (list(empty.listings), dict(empty.models), empty.draining) == ([], {}, False)
        node = bench.desk.node(1, models=("a", "b"))
        bench.desk.node(2, models=("b",))
        found = await bench.door.nodes(ModelId("a"), 8)
        assert list(found.listings) == [node.node.listing()]
        assert dict(found.models) == {"a": 1, "b": 2}
        assert len((await bench.door.nodes(ModelId("b"), 1)).listings) == 1

    async def test_the_directory_says_that_the_relay_is_draining(self, bench: Bench) -> None:
        bench.desk.broker.drain()
        assert (await bench.door.nodes(None, 8)).draining

    async def test_records_come_one_by_one_and_end_with_the_sealed_end(self, bench: Bench) -> None:
        node, sealed = bench.desk.node(), bench.desk.request()
        async with bench.door.submit(node.id, sealed, 0) as records:
            sid = await bench.offer(node)
            node.send(sid, 0, ONE.pack())
            assert await first(records) == ONE
            node.send(sid, 1, TWO.pack())
            node.finish(sid, 2)
            assert await rest(records) == [TWO]
        assert bench.desk.broker.counts.outcomes == {"done": 1}

    async def test_an_end_without_a_seal_is_told_as_an_outcome(self, bench: Bench) -> None:
        node = bench.desk.node()
        async with bench.door.submit(node.id, bench.desk.request(), 0) as records:
            await bench.until(lambda: node.relay_end.last_sid)
            node.reject(node.an_offer(), "key_unknown")
            (record,) = await rest(records)
        assert record.kind is RecordKind.OUTCOME
        assert b"key_unknown" in record.payload

    async def test_a_waiting_client_hears_its_place_at_once(self, bench: Bench) -> None:
        node = bench.desk.node(slots=0)
        async with bench.door.submit(node.id, bench.desk.request(), 0) as records:
            record = await first(records)
        assert (record.kind, record.payload) == (RecordKind.NOTICE, b'{"state":"queued","position":1}')

    async def test_reading_is_what_returns_the_credit(self, bench: Bench) -> None:
        node = bench.desk.node()
        piece = Record(RecordKind.DATA, bytes(16_000))
        async with bench.door.submit(node.id, bench.desk.request(), 0) as records:
            sid = await bench.offer(node)
            for number in range(20):
                # The piece in the reader's hand may count only when it asks again.
                taken = (number - 1) * len(piece.pack())
                await bench.until(partial(self._has_credit, node, taken + CREDIT_WINDOW - CREDIT_STEP))
                node.send(sid, number, piece.pack())
                assert await first(records) == piece
            node.finish(sid, 20)
            assert await rest(records) == []

    def _has_credit(self, node: Puppet, least: int) -> bool:
        node.hear()
        totals = [event.total for event in node.heard if isinstance(event, Granted)]
        return max([CREDIT_WINDOW, *totals]) > least

    async def test_leaving_cancels_at_the_node(self, bench: Bench) -> None:
        node = bench.desk.node()
        async with bench.door.submit(node.id, bench.desk.request(), 0) as records:
            sid = await bench.offer(node)
            node.send(sid, 0, ONE.pack())
            assert await first(records) == ONE
        await bench.until(lambda: not bench.desk.broker.tickets)
        assert Cancelled(sid) in node.hear()

    async def test_a_lingering_job_is_gone_on_with_at_its_record(self, bench: Bench) -> None:
        node, sealed = bench.desk.node(), bench.desk.request()
        async with bench.door.submit(node.id, sealed, 30) as records:
            sid = await bench.offer(node)
            node.send(sid, 0, ONE.pack())
            assert await first(records) == ONE
        async with bench.door.resume(node.id, bench.job(sealed), 1, 0) as records:
            await bench.until(lambda: node.relay_end.last_sid > sid)
            rewound = node.a_rewind()
            assert rewound.next_record == 1
            node.accept(rewound.sid, 1)
            node.send(rewound.sid, 1, TWO.pack())
            node.finish(rewound.sid, 2)
            assert await rest(records) == [TWO]

    async def test_the_former_reader_is_told_when_another_takes_over(self, bench: Bench) -> None:
        node, sealed = bench.desk.node(slots=0), bench.desk.request()
        async with bench.door.submit(node.id, sealed, 0) as former:
            assert (await first(former)).kind is RecordKind.NOTICE
            async with bench.door.resume(node.id, bench.job(sealed), 0, 0) as records:
                told = await rest(former)
                assert told[-1].kind is RecordKind.OUTCOME
                assert b"moved" in told[-1].payload
                assert (await first(records)).kind is RecordKind.NOTICE

    async def test_a_cancelled_job_ends_for_its_reader(self, bench: Bench) -> None:
        node, sealed = bench.desk.node(), bench.desk.request()
        async with bench.door.submit(node.id, sealed, 30) as records:
            await bench.offer(node)
            await bench.door.cancel(node.id, bench.job(sealed))
            (record,) = await rest(records)
        assert record.kind is RecordKind.OUTCOME
        assert Outcome.CANCELLED.encode() in record.payload

    async def test_strangers_are_unknown(self, bench: Bench) -> None:
        node, job = bench.desk.node(), job_id_of(b"j" * 16)
        with pytest.raises(NodeUnknown):
            async with bench.door.submit(STRANGER, bench.desk.request(), 0):
                raise AssertionError
        with pytest.raises(NodeUnknown):
            async with bench.door.resume(STRANGER, job, 0, 0):
                raise AssertionError
        with pytest.raises(JobUnknown):
            await bench.door.cancel(node.id, job)

    async def test_the_same_request_twice_is_refused(self, bench: Bench) -> None:
        node, sealed = bench.desk.node(), bench.desk.request()
        async with bench.door.submit(node.id, sealed, 0):
            with pytest.raises(TokenPlaceError) as refused:
                async with bench.door.submit(node.id, sealed, 0):
                    raise AssertionError
            assert refused.value.code == "job_exists"
        await bench.until(lambda: not bench.desk.broker.tickets)

    @pytest.mark.parametrize(("sealed", "code"), [(b"junk", "bad_format"), (bytes(MAX_REQUEST + 1), "too_large")])
    async def test_what_is_no_request_is_refused_by_the_same_code(self, bench: Bench, sealed: bytes, code: str) -> None:
        node = bench.desk.node()
        with pytest.raises(TokenPlaceError) as refused:
            async with bench.door.submit(node.id, sealed, 0):
                raise AssertionError
        assert refused.value.code == code

    async def test_a_draining_relay_says_so(self, bench: Bench) -> None:
        node = bench.desk.node()
        bench.desk.broker.drain()
        with pytest.raises(Draining) as refused:
            async with bench.door.submit(node.id, bench.desk.request(), 0):
                raise AssertionError
        assert refused.value.retry_after
        with pytest.raises(Draining):
            async with bench.door.resume(node.id, job_id_of(b"j" * 16), 0, 0):
                raise AssertionError

    async def test_a_full_queue_and_a_full_memory_say_when_to_try_again(self) -> None:
        for options in ({"max_queue": 0}, {"max_bytes": 10}):
            desk = a_desk(**options)
            async with self.open(desk) as door:
                node = desk.node()
                with pytest.raises(QueueFull) as refused:
                    async with door.submit(node.id, desk.request(), 0):
                        raise AssertionError
            assert refused.value.retry_after
            assert desk.broker.held_bytes == 0

    async def test_an_error_in_the_reader_lets_go_too(self, bench: Bench) -> None:
        node = bench.desk.node()
        with pytest.raises(ZeroDivisionError):
            async with bench.door.submit(node.id, bench.desk.request(), 0):
                raise ZeroDivisionError
        await bench.until(lambda: not bench.desk.broker.tickets)


class TestHttpDoor(DoorContract):
    @asynccontextmanager
    async def open(self, desk: Desk) -> AsyncIterator[Door]:
        listener = bind("127.0.0.1", 0)
        async with serving(Relay(desk.broker, lambda *_: True), listener):
            door = HttpDoor(address_of(listener))
            try:
                yield door
            finally:
                await door.aclose()


class TestLocalDoor(DoorContract):
    @asynccontextmanager
    async def open(self, desk: Desk) -> AsyncIterator[Door]:
        door = LocalDoor(Switchboard(desk.broker, time.monotonic))
        yield door
        await door.aclose()


class Informed:
    """The door of one replica, whose news of another's nodes are awaited before each question."""

    def __init__(self, desk: Desk, board: Switchboard) -> None:
        self._desk = desk
        self._board = board
        self._door = LocalDoor(board)
        self.name = self._door.name

    async def _news(self) -> None:
        def known() -> set[NodeId]:
            return {remote.id for remote in self._board.remotes()}

        async with asyncio.timeout(20):
            while known() != {node.id for node in self._desk.broker.roster if node.end is not None}:
                await asyncio.sleep(0.002)

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        await self._news()
        return await self._door.nodes(model, limit, node, prefer)

    @asynccontextmanager
    async def submit(self, node: NodeId, sealed: bytes, linger: float) -> AsyncIterator[Records]:
        await self._news()
        async with self._door.submit(node, sealed, linger) as records:
            yield records

    @asynccontextmanager
    async def resume(self, node: NodeId, job: JobId, next_record: int, linger: float) -> AsyncIterator[Records]:
        await self._news()
        async with self._door.resume(node, job, next_record, linger) as records:
            yield records

    async def cancel(self, node: NodeId, job: JobId) -> None:
        await self._door.cancel(node, job)

    async def aclose(self) -> None:
        await self._door.aclose()


class TestRemoteDoor(DoorContract):
    """The client is at one replica, the node at another."""

    @asynccontextmanager
    async def open(self, desk: Desk) -> AsyncIterator[Door]:
        hub, here, there = Hub(), Peering(Broker()), Peering(desk.broker)
        couriers = [Courier(MemoryBus(hub), peering, time.monotonic) for peering in (here, there)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(courier.run()) for courier in couriers]
            async with asyncio.timeout(20):
                while not (here.up and there.up and here.peers and there.peers):
                    await asyncio.sleep(0.002)
            try:
                yield Informed(desk, Switchboard(here.broker, time.monotonic, here))
                assert not here.broker.held_bytes
                async with asyncio.timeout(20):
                    while here.busy or desk.broker.tickets:
                        await asyncio.sleep(0.002)
            finally:
                for task in tasks:
                    task.cancel()

    async def test_the_directory_says_that_the_relay_is_draining(self, bench: Bench) -> None:
        """It is not: the other one is, and its nodes are suggested no more."""
        node = bench.desk.node()
        assert (await bench.door.nodes(None, 8)).listings
        bench.desk.broker.drain()
        async with asyncio.timeout(20):
            while (found := await bench.door.nodes(None, 8)).listings:
                await asyncio.sleep(0.01)
        assert not found.draining
        with pytest.raises(NodeUnknown):
            async with bench.door.submit(node.id, bench.desk.request(), 0):
                raise AssertionError

    async def test_a_draining_relay_says_so(self, bench: Bench) -> None:
        node = bench.desk.node()
        assert (await bench.door.nodes(None, 8)).listings
        bench.desk.broker.drain()
        with pytest.raises((Draining, NodeUnknown)):  # it depends on whether the news were here before the request
            async with bench.door.submit(node.id, bench.desk.request(), 0):
                raise AssertionError
        with pytest.raises(Draining) as refused:
            async with bench.door.resume(node.id, job_id_of(b"j" * 16), 0, 0):
                raise AssertionError
        assert refused.value.retry_after
