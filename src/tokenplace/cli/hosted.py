"""A relay in the same process as a door for a client: what a hosted gateway goes through."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenplace.client.door import Directory, Records
from tokenplace.errors import TokenPlaceError
from tokenplace.relay.broker import Broker
from tokenplace.relay.delivery import Delivery
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.classic import job_of
from tokenplace.wire.ids import JobId, ModelId, NodeId
from tokenplace.wire.stream import RecordSplitter


class LocalDoor:
    """The relay next door. Sealed bytes cross it as they would cross the network."""

    name = "this relay"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        """Who is there."""
        roster = self._broker.roster
        listings = [found.listing() for found in roster.pick(model, limit, node, prefer)]
        return Directory(listings, roster.models(), self._broker.draining)

    @asynccontextmanager
    async def submit(self, node: NodeId, sealed: bytes, linger: float) -> AsyncIterator[Records]:
        """Hand over a sealed request."""
        self._broker.check_door(node)
        self._broker.reserve(len(sealed))
        try:
            ticket = self._broker.submit(job_of(sealed), sealed, node, linger, time.monotonic())
        except TokenPlaceError:
            self._broker.release(len(sealed))
            raise
        async with self._following(ticket) as records:
            yield records

    @asynccontextmanager
    async def resume(self, node: NodeId, job: JobId, next_record: int, linger: float) -> AsyncIterator[Records]:
        """Go on with a job at a record."""
        ticket = self._broker.attach(job, node, next_record, linger, time.monotonic())
        async with self._following(ticket) as records:
            yield records

    async def cancel(self, node: NodeId, job: JobId) -> None:
        """Stop a job."""
        self._broker.cancel(job, node)

    async def aclose(self) -> None:
        """Nothing to give back."""

    @asynccontextmanager
    async def _following(self, ticket: Ticket) -> AsyncIterator[Records]:
        delivery = Delivery(self._broker, ticket, time.monotonic)
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
