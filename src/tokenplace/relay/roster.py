"""Who is connected, and whom to suggest. Every question costs the same however many nodes there are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenplace.link.ends import RelayEnd
from tokenplace.relay.breaker import Breaker, Circuit
from tokenplace.relay.fairness import FairQueue, Visitors
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
    seconds_per_job: float = 2.0
    """Moving average, for an honest Retry-After."""
    answered: int = 0
    bytes_per_second: float = _TYPICAL_SPEED
    """Moving average over its answers, each alone."""
    breaker: Breaker = field(default_factory=Breaker)
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
        """Whether a job that names it can be given to it."""
        return self.end is not None and not self.draining

    @property
    def listed(self) -> bool:
        """Whether clients should be sent to it."""
        return self.takes and self.breaker.state is not Circuit.OPEN

    @property
    def cost(self) -> float:
        """Seconds until a typical answer from it would be whole, as far as can be told."""
        slots = max(1, self.slots)
        wait = 0.0 if self.free > 0 else self.seconds_per_job * (len(self.queue) + 1) / slots
        crowd = 1.0 - max(0, self.free) / slots
        return wait + (self.rtt or 0.0) + (1.0 + crowd) * _TYPICAL_ANSWER / self.bytes_per_second

    def spoke(self, sent: int, seconds: float) -> None:
        """It gave an answer of so many bytes in so many seconds."""
        if sent >= _TELLING and seconds > 0:
            self.bytes_per_second += 0.2 * (sent / seconds - self.bytes_per_second)

    def listing(self) -> Listing:
        """As the directory shows it."""
        return Listing(card=self.card, slots=self.slots, free=max(0, self.free), queued=len(self.queue))


class _Bag:
    """A set one can draw from at random in constant time."""

    def __init__(self) -> None:
        self._items: list[Node] = []
        self._places: dict[NodeId, int] = {}

    def add(self, node: Node) -> None:
        self._places[node.id] = len(self._items)
        self._items.append(node)

    def discard(self, node: Node) -> None:
        place = self._places.pop(node.id, None)
        if place is None:
            return
        last = self._items.pop()
        if last is not node:
            self._items[place] = last
            self._places[last.id] = place

    def __len__(self) -> int:
        return len(self._items)

    def only(self, node: NodeId) -> list[Node]:
        place = self._places.get(node)
        return [] if place is None else [self._items[place]]

    def draw(self, rng: random.Random, count: int) -> list[Node]:
        return rng.sample(self._items, min(count, len(self._items)))  # shuffled too: equals take turns at the head


class Roster:
    """All nodes by id, and those that are listed by model."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._nodes: dict[NodeId, Node] = {}
        self._by_model: dict[ModelId, _Bag] = {}
        self._listed = _Bag()

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    def get(self, node: NodeId) -> Node | None:
        """A node by its fingerprint, also one that is away for a moment."""
        return self._nodes.get(node)

    def add(self, node: Node) -> None:
        """A node came, or came back, or serves other models now."""
        self.unlist(node)
        self._nodes[node.id] = node
        if node.listed:
            self._listed.add(node)
            for model in {model.id for model in node.card.body.models}:
                self._by_model.setdefault(model, _Bag()).add(node)

    def unlist(self, node: Node) -> None:
        """No new jobs for it. Call before its card changes."""
        self._listed.discard(node)
        for model in {model.id for model in node.card.body.models}:
            bag = self._by_model.get(model)
            if bag is not None:
                bag.discard(node)
                if not len(bag):
                    del self._by_model[model]

    def remove(self, node: Node) -> None:
        """A node is gone for good."""
        self.unlist(node)
        if self._nodes.get(node.id) is node:
            del self._nodes[node.id]

    def models(self) -> dict[ModelId, int]:
        """What is served now, and by how many nodes."""
        return {model: len(bag) for model, bag in self._by_model.items()}

    def pick(
        self, model: ModelId | None, count: int, named: NodeId | None = None, prefer: NodeId | None = None
    ) -> list[Node]:
        """Up to `count` nodes, the soonest first, drawn from twice as many at random; or the one that is named.

        The power of two choices (Mitzenmacher 2001): nearly as good as asking all, at a constant price. The node that
        is preferred comes first while it has a free slot (it may know the beginning of the prompt).
        """
        if named is not None:
            node = self._nodes.get(named)
            serves = node is not None and (model is None or any(each.id == model for each in node.card.body.models))
            return [node] if node is not None and node.takes and serves else []
        bag = self._listed if model is None else self._by_model.get(model)
        if bag is None:
            return []
        drawn = bag.draw(self._rng, 2 * count)
        liked = [node for node in (bag.only(prefer) if prefer is not None else []) if node.free > 0]
        others = sorted((node for node in drawn if node not in liked), key=lambda node: node.cost)
        return [*liked, *others][:count]
