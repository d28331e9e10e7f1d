"""Where clients' doors meet the nodes: those connected here, and those at other replicas of this relay.

Every door (HTTP, a gateway in the same process) goes through here and need not know which. A node that is connected
here is served here, whatever the store does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice

from tokenplace.errors import JobUnknown, NodeUnknown, Refused, StoreUnavailable
from tokenplace.relay.broker import Broker
from tokenplace.relay.delivery import Delivery
from tokenplace.relay.index import Choice, serves, soonest
from tokenplace.relay.replicas.errands import Errand
from tokenplace.relay.replicas.peering import Peering
from tokenplace.relay.replicas.presence import Remote
from tokenplace.wire.ids import JobId, ModelId, NodeId
from tokenplace.wire.limits import MAX_LISTED_MODELS

Abort = Callable[[], None]


class Switchboard:
    """One relay's nodes, wherever they are connected. Without a peering it is alone."""

    def __init__(self, broker: Broker, clock: Callable[[], float], peering: Peering | None = None) -> None:
        self.broker = broker
        self.peering = peering
        self._clock = clock

    @property
    def busy(self) -> bool:
        """Whether a client here still waits for something."""
        return bool(self.broker.tickets) or (self.peering is not None and self.peering.busy)

    @property
    def others(self) -> int:
        """How many other replicas are in reach."""
        return len(self.peering.peers) if self.peering is not None else 0

    # -- who is there ----------------------------------------------------------------------------------------------

    @property
    def known(self) -> int:
        """How many nodes clients may be sent to."""
        return len(self.broker.roster) + (len(self.peering.elsewhere) if self.peering is not None else 0)

    def remotes(self) -> Iterator[Remote]:
        """The nodes at other replicas, those that are connected here too left out."""
        return iter(self.peering.elsewhere if self.peering is not None else ())

    def pick(
        self, model: ModelId | None, count: int, named: NodeId | None = None, prefer: NodeId | None = None
    ) -> list[Choice]:
        """Up to `count` nodes, the soonest first, equals here before those elsewhere; or the one that is named.

        Raises StoreUnavailable when nobody here serves the model and who is elsewhere cannot be known.
        """
        found: list[Choice] = list(self.broker.roster.pick(model, count, named, prefer))
        if self.peering is not None and not (named and found):
            found = soonest([*found, *self._elsewhere(self.peering, model, count, named, prefer)], count, prefer)
            if not found and not self.peering.up:
                raise StoreUnavailable(retry_after=2)
        return found

    def _elsewhere(
        self, peering: Peering, model: ModelId | None, count: int, named: NodeId | None, prefer: NodeId | None
    ) -> list[Remote]:
        if named is None:
            return peering.elsewhere.pick(model, count, prefer)
        return [each for each in peering.elsewhere.find(named)[:1] if each.takes and serves(each.card, model)]

    def models(self) -> dict[ModelId, int]:
        """What is served now, and by how many nodes; see `MAX_LISTED_MODELS`."""
        served = self.broker.roster.models()
        if self.peering is not None:
            for model, count in self.peering.elsewhere.models().items():
                if model in served or len(served) < MAX_LISTED_MODELS:
                    served[model] = served.get(model, 0) + count
        return served

    def health(self) -> dict[str, object]:
        """For /healthz: where state is kept, whether that can be reached, and how many other replicas are."""
        if self.peering is None:
            return {}
        return {"store": "connected" if self.peering.up else "unavailable", "replicas": len(self.peering.peers)}

    # -- what clients want -----------------------------------------------------------------------------------------

    def check_door(self, node: NodeId, client: str = "") -> None:
        """Whether a job for that node would be taken now, before its bytes are read.

        Raises Draining, NodeUnknown, QueueFull or StoreUnavailable.
        """
        where = self._where(node)
        if where is None:
            self.broker.check_door(node, client)
        elif not where.takes:
            raise NodeUnknown

    async def submit(
        self, job: JobId, sealed: bytes, node: NodeId, linger: float, client: str = "", abort: Abort | None = None
    ) -> Delivery:
        """Take a request whose memory is reserved for the same client; when it is refused, that is given back.

        Raises what `check_door` raises, or Refused `job_exists`.
        """
        here = False
        try:
            where = self._where(node)
            if where is None:
                ticket = self.broker.submit(job, sealed, node, linger, self._clock(), client)
                here = True
                return Delivery(self.broker, ticket, self._clock, abort)
            peering = self._peering
            errand = peering.submit(where, job, sealed, linger, client, self._clock())
            return await self._opened(errand, abort)
        finally:
            if not here:
                self.broker.release(len(sealed), client)

    def holds(self, job: JobId, node: NodeId) -> bool:
        """Whether going on with a job asks nothing of a node: it is here, or the node is nowhere in reach.

        Raises StoreUnavailable.
        """
        ticket = self.broker.tickets.get(job)
        if ticket is not None:
            return ticket.job.node == node
        try:
            return self._where(node, known=True) is None and self.broker.roster.get(node) is None
        except NodeUnknown:
            return True

    async def attach(
        self,
        job: JobId,
        node: NodeId,
        next_record: int,
        linger: float,
        client: str = "",
        abort: Abort | None = None,
    ) -> Delivery:
        """Go on with a job at a record. Raises Draining, NodeUnknown, JobUnknown, QueueFull or StoreUnavailable."""
        where = self._where(node, known=True)
        if where is None:
            ticket = self.broker.attach(job, node, next_record, linger, self._clock(), client)
            return Delivery(self.broker, ticket, self._clock, abort)
        return await self._opened(self._peering.attach(where, job, next_record, linger, client), abort)

    async def cancel(self, job: JobId, node: NodeId) -> None:
        """Stop a job, at whichever replica it runs. Raises JobUnknown or StoreUnavailable."""
        peering = self.peering
        if peering is None or job in self.broker.tickets:
            self.broker.cancel(job, node)
            return
        try:
            candidates = peering.find(node)
        except NodeUnknown:
            candidates = []
        for where in islice(candidates, 3):
            try:
                await self._answered(peering.cancel(where, job))
            except (JobUnknown, NodeUnknown):  # NodeUnknown: its replica went away while another was asked
                continue
            return
        self.broker.cancel(job, node)

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _peering(self) -> Peering:
        if self.peering is None:
            raise AssertionError("a node elsewhere without other replicas")
        return self.peering

    def _where(self, node: NodeId, *, known: bool = False) -> Remote | None:
        """The replica that has a node; None when it is to be served here, or when nobody knows it.

        `known` also takes a node that was here a moment ago, unless it is connected elsewhere meanwhile.
        """
        if self.peering is None or self.broker.draining:
            return None
        local = self.broker.roster.get(node)
        if local is not None and local.end is not None:
            return None
        try:
            return self.peering.find(node)[0]
        except Refused:
            if local is not None and known:
                return None
            raise

    async def _opened(self, errand: Errand, abort: Abort | None) -> Delivery:
        await self._answered(errand)
        return Delivery(self._peering, errand, self._clock, abort)

    async def _answered(self, errand: Errand) -> None:
        """Wait for its owner's word. Raises Refused, or StoreUnavailable when there is none in time."""
        peering = self._peering
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        errand.answered = lambda: None if answered.done() else answered.set_result(None)
        try:
            async with asyncio.timeout(peering.pace.answer):
                await answered
        except TimeoutError:
            peering.leave(errand, self._clock())
            raise StoreUnavailable(
                "The relay that holds this node does not answer; try again.", retry_after=1
            ) from None
        except BaseException:
            peering.leave(errand, self._clock())
            raise
        if errand.refusal is not None:
            raise errand.refusal
