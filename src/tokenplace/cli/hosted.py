"""A relay in the same process as a door for a client: what a hosted gateway goes through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenplace.client.door import Directory, Records
from tokenplace.relay.address import CLIENT_KEY
from tokenplace.relay.delivery import Delivery
from tokenplace.relay.switchboard import Switchboard
from tokenplace.wire.classic import job_of
from tokenplace.wire.ids import JobId, ModelId, NodeId
from tokenplace.wire.stream import RecordSplitter


class LocalDoor:
    """The relay next door. Sealed bytes cross it as they would cross the network."""

    name = "this relay"

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        """Who is there."""
        listings = [found.listing() for found in self._board.pick(model, limit, node, prefer)]
        return Directory(listings, self._board.models(), self._board.broker.draining)

    @asynccontextmanager
    async def submit(self, node: NodeId, sealed: bytes, linger: float) -> AsyncIterator[Records]:
        """Hand over a sealed request."""
        job, client = job_of(sealed), CLIENT_KEY.get()
        self._board.check_door(node, client)
        self._board.broker.reserve(len(sealed), client)
        delivery = await self._board.submit(job, sealed, node, linger, client)
        async with _following(delivery) as records:
            yield records

    @asynccontextmanager
    async def resume(self, node: NodeId, job: JobId, next_record: int, linger: float) -> AsyncIterator[Records]:
        """Go on with a job at a record."""
        delivery = await self._board.attach(job, node, next_record, linger, CLIENT_KEY.get())
        async with _following(delivery) as records:
            yield records

    async def cancel(self, node: NodeId, job: JobId) -> None:
        """Stop a job."""
        await self._board.cancel(job, node)

    async def aclose(self) -> None:
        """Nothing to give back."""


@asynccontextmanager
async def _following(delivery: Delivery) -> AsyncIterator[Records]:
    try:
        yield _records(delivery)
    finally:
        delivery.leave()


async def _records(delivery: Delivery) -> Records:
    splitter = RecordSplitter()
    while data := await delivery.next():
        for record in splitter.feed(data):
            yield record
    splitter.finish()
