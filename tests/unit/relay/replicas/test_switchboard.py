from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tokenplace.errors import JobUnknown, NodeUnknown, StoreUnavailable
from tokenplace.relay.switchboard import Switchboard
from tokenplace.wire.ids import JobId
from tokenplace.wire.request import RequestHeader
from unit.relay import fake_time
from unit.relay.desk import a_card
from unit.relay.replicas.mesh import Mesh

STRANGER = a_card(9).node


class Stand:
    """A client's replica, a node's replica, and what carries between them while something is awaited."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.here, self.there = self.mesh.replicas
        self.node = self.there.node()
        self.mesh.pass_time(0.2)
        self.board = Switchboard(self.here.broker, fake_time.now, self.here.peering)

    def request(self) -> tuple[JobId, bytes]:
        sealed = self.here.request()
        self.here.broker.reserve(len(sealed), "me")
        return RequestHeader.parse(sealed).job, sealed

    async def carried(self, what: Awaitable[object]) -> object:
        """Await something while the bus carries."""
        task = asyncio.ensure_future(what)
        while not task.done():
            self.mesh.carry()
            await asyncio.sleep(0.001)
        return await task


def play(scene: Callable[[Stand], Awaitable[None]]) -> None:
    async def main() -> None:
        stand = Stand()
        await scene(stand)
        assert stand.here.broker.held_bytes == 0, "memory that nobody gave back"

    fake_time.run(main)


def test_a_request_for_a_node_elsewhere_is_held_there_and_not_here() -> None:
    async def scene(stand: Stand) -> None:
        job, sealed = stand.request()
        delivery = await stand.carried(stand.board.submit(job, sealed, stand.node.id, 0.0, "me"))
        assert delivery is not None
        assert stand.board.busy
        assert stand.there.broker.held_bytes == len(sealed)

    play(scene)


def test_an_owner_that_does_not_answer_is_a_refusal_that_may_be_tried_again() -> None:
    async def scene(stand: Stand) -> None:
        job, sealed = stand.request()
        began = fake_time.now()
        with pytest.raises(StoreUnavailable) as refused:
            await stand.board.submit(job, sealed, stand.node.id, 0.0, "me")
        assert fake_time.now() - began == pytest.approx(stand.here.peering.pace.answer)
        assert refused.value.retry_after
        assert not stand.board.busy
        stand.mesh.settle()
        assert not stand.there.broker.tickets, "what arrived late was let go again"

    play(scene)


def test_a_lost_bus_ends_the_waiting_at_once() -> None:
    async def scene(stand: Stand) -> None:
        job, sealed = stand.request()
        asking = asyncio.ensure_future(stand.board.submit(job, sealed, stand.node.id, 0.0, "me"))
        await asyncio.sleep(0)
        stand.here.peering.lost(fake_time.now())
        with pytest.raises(StoreUnavailable):
            await asking

    play(scene)


def test_a_caller_that_is_cancelled_leaves_nothing_behind() -> None:
    async def scene(stand: Stand) -> None:
        job, sealed = stand.request()
        asking = asyncio.ensure_future(stand.board.submit(job, sealed, stand.node.id, 30.0, "me"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not stand.board.busy

    play(scene)


def test_a_job_is_cancelled_wherever_it_runs() -> None:
    async def scene(stand: Stand) -> None:
        for replica in (stand.there, stand.here):
            job, sealed = stand.request()
            if replica is stand.here:
                stand.here.node()  # the same node has a link here too, and this job is queued here
            await stand.carried(stand.board.submit(job, sealed, stand.node.id, 0.0, "me"))
            assert job in replica.broker.tickets
            await stand.carried(stand.board.cancel(job, stand.node.id))
            assert job not in replica.broker.tickets
            with pytest.raises(JobUnknown):
                await stand.carried(stand.board.cancel(job, stand.node.id))

    play(scene)


@pytest.mark.parametrize("here", [True, False])
def test_strangers_are_unknown_while_the_bus_stands_and_uncertain_without_it(here: bool) -> None:
    async def scene(stand: Stand) -> None:
        if here:
            with pytest.raises(NodeUnknown):
                stand.board.check_door(STRANGER)
            with pytest.raises(NodeUnknown):
                await stand.board.attach(JobId("0" * 32), STRANGER, 0, 0.0)
        else:
            stand.here.peering.lost(fake_time.now())
            with pytest.raises(StoreUnavailable):
                stand.board.check_door(STRANGER)
            with pytest.raises(StoreUnavailable):
                await stand.board.attach(JobId("0" * 32), STRANGER, 0, 0.0)
            with pytest.raises(StoreUnavailable):
                await stand.board.cancel(JobId("0" * 32), STRANGER)

    play(scene)


def test_a_node_that_drains_elsewhere_takes_nothing_new() -> None:
    async def scene(stand: Stand) -> None:
        stand.node.end.drain()
        stand.node.tell()
        stand.mesh.pass_time(0.2)
        with pytest.raises(NodeUnknown):
            stand.board.check_door(stand.node.id)

    play(scene)


def test_health_tells_of_the_store_and_the_others() -> None:
    async def scene(stand: Stand) -> None:
        assert stand.board.health() == {"store": "connected", "replicas": 1}
        stand.here.peering.lost(fake_time.now())
        assert stand.board.health() == {"store": "unavailable", "replicas": 0}
        assert Switchboard(stand.here.broker, fake_time.now).health() == {}

    play(scene)
