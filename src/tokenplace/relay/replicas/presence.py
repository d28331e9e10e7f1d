"""Who is connected where: what this replica tells of its nodes, and what it knows of the others'. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tokenplace.errors import WireError
from tokenplace.relay.broker import Broker
from tokenplace.relay.index import Index
from tokenplace.relay.replicas.messages import ReplicaId
from tokenplace.relay.roster import Node
from tokenplace.wire.card import Card
from tokenplace.wire.ids import ModelId, NodeId, parse_node_id
from tokenplace.wire.messages import Listing

DETOUR = 0.005
"""Seconds that the way over another replica counts: equals are served here."""

MISSED = 20.0
"""Seconds for which a node whose replica vanished is expected back: it dials another one."""

_CHUNK = 32
"""Nodes told at once; a card is about 3 KiB."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a node is, and whether it takes work at all."""

    slots: int
    free: int
    queued: int
    takes: bool
    listed: bool
    cost: float

    @classmethod
    def of(cls, node: Node, *, draining: bool) -> Load:
        """Of a node connected here; a relay that is draining gives it nothing new."""
        takes, listed = node.takes and not draining, node.listed and not draining
        return cls(node.slots, max(0, node.free), len(node.queue), takes, listed, round(node.cost, 3))

    def fields(self) -> list[object]:
        """For the bus."""
        return [self.slots, self.free, self.queued, self.takes, self.listed, self.cost]

    @classmethod
    def parse(cls, fields: object) -> Load:
        """From the bus. Raises WireError."""
        told: list[Any] = fields if isinstance(fields, list) else []
        try:
            counts = [int(number) for number in told[:3]]
            return cls(counts[0], counts[1], counts[2], bool(told[3]), bool(told[4]), float(told[5]))
        except (TypeError, ValueError, IndexError, OverflowError):
            raise WireError("This is not how busy a node can be.") from None

    def tells_more_than(self, other: Load) -> bool:
        """Whether the difference is worth a message: a cost alone is not."""
        mine = (self.slots, self.free, self.queued, self.takes, self.listed)
        return mine != (other.slots, other.free, other.queued, other.takes, other.listed)


@dataclass(frozen=True, slots=True)
class Remote:
    """A node that is connected to another replica."""

    replica: ReplicaId
    card: Card
    load: Load

    @property
    def id(self) -> NodeId:
        """Its fingerprint."""
        return self.card.node

    @property
    def free(self) -> int:
        """Free slots, as was last told."""
        return self.load.free

    @property
    def cost(self) -> float:
        """Seconds until a typical answer from it would be whole, the way over its replica included."""
        return self.load.cost + DETOUR

    @property
    def takes(self) -> bool:
        """Whether a job that names it can be given to it."""
        return self.load.takes

    def listing(self) -> Listing:
        """As the directory shows it."""
        return Listing(card=self.card, slots=self.load.slots, free=self.load.free, queued=self.load.queued)


class Telling:
    """What the others have been told of the nodes here."""

    def __init__(self, broker: Broker, changed: Callable[[NodeId], None]) -> None:
        self._broker = broker
        self._draining = False
        self._told: dict[NodeId, tuple[Card, Load]] = {}
        self._dirty: set[NodeId] = set()
        self._pass_on = changed
        broker.roster.changed = self._changed

    def _changed(self, node: Node) -> None:
        self._dirty.add(node.id)
        self._pass_on(node.id)

    def news(self) -> Iterator[dict[str, Any]]:
        """What changed since the last time, for everybody."""
        if self._broker.draining and not self._draining:
            self._draining = True
            self._dirty.update(self._told)
        nodes: list[object] = []
        loads: list[object] = []
        gone: list[str] = []
        for name in self._dirty:
            node = self._broker.roster.get(name)
            told = self._told.get(name)
            if node is None or node.end is None:
                if told is not None:
                    del self._told[name]
                    gone.append(name)
                continue
            load = Load.of(node, draining=self._draining)
            if told is None or told[0] is not node.card:
                nodes.append([node.card.text, load.fields()])
            elif load.tells_more_than(told[1]):
                loads.append([name, load.fields()])
            else:
                continue
            self._told[name] = (node.card, load)
        self._dirty.clear()
        if loads or gone:
            yield {"loads": loads, "gone": gone}
        for start in range(0, len(nodes), _CHUNK):
            yield {"nodes": nodes[start : start + _CHUNK]}

    def everything(self) -> Iterator[dict[str, Any]]:
        """All that was told, for one who begins."""
        nodes = [[card.text, load.fields()] for card, load in self._told.values()]
        yield {"whole": True, "nodes": nodes[:_CHUNK]}
        for start in range(_CHUNK, len(nodes), _CHUNK):
            yield {"nodes": nodes[start : start + _CHUNK]}

    def forget(self) -> None:
        """Nobody knows anything any more; the next news are all."""
        self._told.clear()
        self._dirty.update(node.id for node in self._broker.roster)


class Elsewhere:
    """The nodes of the other replicas. One that is connected here too is not suggested twice."""

    def __init__(self, rng: random.Random, here: Callable[[NodeId], bool]) -> None:
        self._here = here
        self._at: dict[NodeId, dict[ReplicaId, Remote]] = {}
        self._of: dict[ReplicaId, set[NodeId]] = {}
        self._listed: Index[Remote] = Index(rng)
        self._missed: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[Remote]:
        """Every node that is connected somewhere else and not here."""
        return (self._best(name) for name in self._at if not self._here(name))

    def find(self, node: NodeId) -> list[Remote]:
        """Where a node is connected, the replica to ask first at the head."""
        return sorted(self._at.get(node, {}).values(), key=lambda remote: (not remote.takes, remote.replica))

    def missed(self, node: NodeId) -> bool:
        """Whether its replica vanished a moment ago, so that it may be on its way to another."""
        return node in self._missed

    def pick(self, model: ModelId | None, count: int, prefer: NodeId | None = None) -> list[Remote]:
        """See `Index.pick`."""
        return self._listed.pick(model, count, prefer)

    def models(self) -> dict[ModelId, int]:
        """What is served elsewhere only, and by how many."""
        return self._listed.models()

    def hear(self, replica: ReplicaId, fields: dict[str, Any]) -> None:
        """What a replica tells of its nodes. Raises WireError."""
        try:
            nodes, loads = fields.get("nodes", []), fields.get("loads", [])
            known = [Remote(replica, Card.parse(card), Load.parse(load)) for card, load in nodes]
            changed = [(parse_node_id(name), Load.parse(load)) for name, load in loads]
            gone = [parse_node_id(name) for name in fields.get("gone", [])]
        except (TypeError, ValueError, AttributeError):
            raise WireError("This is not how a replica tells of its nodes.") from None
        if fields.get("whole"):
            kept = {remote.id for remote in known}
            for name in self._of.get(replica, set()) - kept:
                self._drop(replica, name)
        for remote in known:
            self._put(remote)
        for name, load in changed:
            old = self._at.get(name, {}).get(replica)
            if old is not None:
                self._put(Remote(replica, old.card, load))
        for name in gone:
            self._drop(replica, name)

    def forget(self, replica: ReplicaId, now: float | None = None) -> None:
        """A replica is gone; with the time, its nodes are missed for a while."""
        for name in list(self._of.get(replica, ())):
            self._drop(replica, name)
            if now is not None and name not in self._at:
                self._missed[name] = now

    def place(self, node: NodeId) -> None:
        """A node came here or left."""
        self._missed.pop(node, None)
        if node in self._at:
            self._place(node)

    def tick(self, now: float) -> None:
        """Stop missing who did not come back."""
        while self._missed:
            name, since = next(iter(self._missed.items()))
            if now - since < MISSED:
                return
            del self._missed[name]

    def _put(self, remote: Remote) -> None:
        self._at.setdefault(remote.id, {})[remote.replica] = remote
        self._of.setdefault(remote.replica, set()).add(remote.id)
        self._missed.pop(remote.id, None)
        self._place(remote.id)

    def _drop(self, replica: ReplicaId, node: NodeId) -> None:
        where = self._at.get(node, {})
        if where.pop(replica, None) is None:
            return
        self._of[replica].discard(node)
        if not self._of[replica]:
            del self._of[replica]
        if not where:
            del self._at[node]
        self._place(node)

    def _place(self, node: NodeId) -> None:
        self._listed.discard(node)
        if node in self._at and not self._here(node):
            best = self._best(node)
            if best.load.listed:
                self._listed.add(best)

    def _best(self, node: NodeId) -> Remote:
        return min(self._at[node].values(), key=lambda remote: (not remote.load.listed, remote.cost))
