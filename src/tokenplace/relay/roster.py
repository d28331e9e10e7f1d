"""Who is connected, and whom to suggest. Every question costs the same however many nodes there are."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenplace.link.ends import RelayEnd
from tokenplace.relay.breaker import Breaker
from tokenplace.relay.fairness import FairQueue, Visitors
from tokenplace.relay.index import Index, serves
from tokenplace.wire.card import Card
from tokenplace.wire.ids import JobId, ModelId, NodeId, Sid
from tokenplace.wire.messages import Listing

if TYPE_CHECKING:
    from tokenplace.relay.tickets import Ticket


_TYPICAL_ANSWER = 20_000
_TYPICAL_SPEED = 10_000.0
"""Bytes, and bytes per second, of an answer from a node that nothing is known of: about 100 tokens in two seconds."""

_TELLING = 2_000
"""Bytes from which on an answer tells something of the node's speed."""


_REMEMBERED = 4096
"""Nodes whose standing is kept when they are gone: about 400 bytes each."""


@dataclass(slots=True, eq=False)
class Standing:
    """What the relay has seen of a node's work. It outlives the link: nobody comes back without a past."""

    breaker: Breaker = field(default_factory=Breaker)
    seconds_per_job: float = 2.0
    """Moving average, for an honest Retry-After."""
    answered: int = 0
    bytes_per_second: float = _TYPICAL_SPEED
    """Moving average over its answers, each alone."""

    def worked(self, seconds: float) -> None:
        """It held a job for so long, however that ended."""
        self.seconds_per_job += 0.2 * (seconds - self.seconds_per_job)

    def answer_given(self, sent: int, seconds: float) -> None:
        """It gave a whole answer of so many bytes in so many seconds."""
        self.answered += 1
        if sent >= _TELLING and seconds > 0:
            self.bytes_per_second += 0.2 * (sent / seconds - self.bytes_per_second)


@dataclass(slots=True, eq=False)
class Node:
    """One node as the relay knows it. Without an `end` it is away and may come back to its tickets."""

    card: Card
    end: RelayEnd | None
    slots: int
    free: int
    close: Callable[[str], None]
    """The link's shell: close the link, for this reason."""
    since: float = 0.0
    draining: bool = False
    rtt: float | None = None
    standing: Standing = field(default_factory=Standing)
    visitors: Visitors = field(default_factory=Visitors)
    queue: FairQueue = field(default_factory=FairQueue)
    active: dict[Sid, Ticket] = field(default_factory=dict)
    severed: dict[JobId, Ticket] = field(default_factory=dict)

    @property
    def id(self) -> NodeId:
        """Its fingerprint."""
        return self.card.node

    @property
    def takes(self) -> bool:
        """Whether a job that names it can be given to it: a node that pauses shows a card without models."""
        return self.end is not None and not self.draining and bool(self.card.body.models)

    @property
    def listed(self) -> bool:
        """Whether clients should be sent to it."""
        return self.takes and self.standing.breaker.lets_in

    @property
    def cost(self) -> float:
        """Seconds until a typical answer from it would be whole, as far as can be told."""
        slots = max(1, self.slots)
        standing = self.standing
        wait = 0.0 if self.free > 0 else standing.seconds_per_job * (len(self.queue) + 1) / slots
        crowd = 1.0 - max(0, self.free) / slots
        return wait + (self.rtt or 0.0) + (1.0 + crowd) * _TYPICAL_ANSWER / standing.bytes_per_second

    def told_free(self, free: int, seen: int) -> None:
        """The node's own count of free slots when it had seen the offer `seen`, less what was offered since."""
        if self.end is not None and seen < self.end.last_sid:
            free -= sum(1 for sid, ticket in self.active.items() if sid > seen and ticket.counted)
        self.free = min(free, self.slots)

    def barred(self, now: float) -> Collection[str]:
        """Clients that may not have the last free slot: those that hold others, while somebody without may come."""
        if self.free > 1 or self.slots < 2:
            return ()
        holders = {ticket.client for ticket in self.active.values()}
        return holders if self.visitors.others(holders, now) else ()

    def listing(self) -> Listing:
        """As the directory shows it."""
        return Listing(card=self.card, slots=self.slots, free=max(0, self.free), queued=len(self.queue))


def _nobody_asks(_: Node) -> None:
    return


class Roster:
    """All nodes by id, and those that are listed by model."""

    def __init__(self, rng: random.Random) -> None:
        self._nodes: dict[NodeId, Node] = {}
        self._remembered: OrderedDict[NodeId, Standing] = OrderedDict()
        self._listed: Index[Node] = Index(rng)
        self.changed: Callable[[Node], None] = _nobody_asks
        """Told of whatever others may want to know of a node: it came or went, its card, its load."""

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    def get(self, node: NodeId) -> Node | None:
        """A node by its fingerprint, also one that is away for a moment."""
        return self._nodes.get(node)

    def add(self, node: Node) -> None:
        """A node came, or came back, or serves other models now, or stands otherwise with its breaker."""
        self._listed.discard(node.id)
        self._nodes[node.id] = node
        if node.listed:
            self._listed.add(node)
        self.changed(node)

    def unlist(self, node: Node) -> None:
        """No new jobs for it."""
        self._listed.discard(node.id)
        self.changed(node)

    def remove(self, node: Node) -> None:
        """A node is gone for good; what it was like is remembered."""
        if self._nodes.get(node.id) is node:
            del self._nodes[node.id]
            if node.standing.answered or not node.standing.breaker.spotless:
                self._remembered[node.id] = node.standing
                if len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        self.unlist(node)

    def recall(self, node: NodeId) -> Standing:
        """What a node was like that comes (back)."""
        return self._remembered.pop(node, None) or Standing()

    def models(self) -> dict[ModelId, int]:
        """What is served now, and by how many nodes."""
        return self._listed.models()

    def pick(
        self, model: ModelId | None, count: int, named: NodeId | None = None, prefer: NodeId | None = None
    ) -> list[Node]:
        """Up to `count` nodes, the soonest first (see `Index.pick`); or the one that is named."""
        if named is not None:
            node = self._nodes.get(named)
            return [node] if node is not None and node.takes and serves(node.card, model) else []
        return self._listed.pick(model, count, prefer)
