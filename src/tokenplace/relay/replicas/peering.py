"""This replica among the others: who they are, what is open between them, and whether the bus carries. Pure.

No clock, no socket: `Courier` brings what was heard and takes what is to be said. A replica hears its own beats too;
when they stay away the bus is lost, whatever the sockets say, and with it every stream over it.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tokenplace.errors import NodeUnknown, StoreUnavailable, WireError
from tokenplace.relay.broker import Broker
from tokenplace.relay.bus.base import Letter, Topic
from tokenplace.relay.counts import Counts
from tokenplace.relay.replicas.errands import Errand, Errands
from tokenplace.relay.replicas.messages import (
    Frame,
    Heard,
    Kind,
    ReplicaId,
    To,
    pack_fields,
    parse_fields,
    parse_letter,
)
from tokenplace.relay.replicas.peers import Peer
from tokenplace.relay.replicas.presence import Elsewhere, Remote, Telling
from tokenplace.relay.replicas.serving import Serving
from tokenplace.relay.replicas.wires import ALL, Haste, Sending, Verdict, pack_session, parse_session, topic_of
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.ids import JobId, NodeId
from tokenplace.wire.limits import Timing

MAX_PEERS = 64
"""Replicas beside this one that are believed in: who can write to the bus could make up any number."""

_ANSWER = b"?"
"""Of a pulse: say something too."""

_OPENERS = frozenset({Kind.OPENED, Kind.REFUSED, Kind.DATA, Kind.STATE, Kind.ENDED, Kind.GONE})
_OWNERS = frozenset({Kind.SUBMIT, Kind.PART, Kind.ATTACH, Kind.CANCEL, Kind.TAKEN, Kind.LEFT})


@dataclass(frozen=True, slots=True)
class Pace:
    """The clock's part between replicas, in seconds."""

    beat: float = 1.0
    """How often a replica says that it is there."""
    silence: float = 5.0
    """A replica that says nothing for so long is gone: its nodes are not suggested, its streams end."""
    echo: float = 3.0
    """Nothing heard for so long, not even our own beats: the bus is lost. A slow bus is not: it brings something."""
    answer: float = 5.0
    """A request that its owner has not answered for so long ends as a refusal that may be tried again."""


@dataclass(slots=True)
class BusCounts:
    """What the metrics show."""

    frames: int = 0
    """What was said, in fewer letters."""
    sent: int = 0
    sent_bytes: int = 0
    heard: int = 0
    heard_bytes: int = 0
    gaps: int = 0
    unreadable: int = 0
    lag: float = 0.0
    """Seconds from a beat to its echo: what a message takes over the store now."""
    outages: int = 0


class Peering:
    """Speaks with the other replicas of this relay."""

    def __init__(self, broker: Broker, *, pace: Pace | None = None, me: ReplicaId | None = None) -> None:
        self.me = me or ReplicaId(secrets.token_hex(8))
        self.pace = pace or Pace()
        self.counted = BusCounts()
        self.up = False
        """Whether the bus carries what is said."""
        self.peers: dict[ReplicaId, Peer] = {}
        self.errands = Errands()
        self.serving = Serving(broker)
        self.elsewhere = Elsewhere(broker.rng, self._here)
        self.notify: Callable[[Haste], None] = lambda _: None
        """Called when there is something to `take`."""
        self.broker = broker
        self._telling = Telling(broker, self.elsewhere.place)
        self._sessions = itertools.count(1)
        self._all = self._sending(ALL)
        self._connected = False
        self._salt = secrets.token_bytes(16)
        self._beaten_at = self._heard_at = float("-inf")

    @property
    def timing(self) -> Timing:
        """The relay's."""
        return self.broker.timing

    @property
    def counts(self) -> Counts:
        """The relay's."""
        return self.broker.counts

    @property
    def topics(self) -> list[Topic]:
        """What to listen to."""
        return [ALL, topic_of(self.me)]

    @property
    def busy(self) -> bool:
        """Whether a client here waits for a node elsewhere."""
        return any(peer.errands for peer in self.peers.values())

    def _sending(self, topic: Topic) -> Sending:
        return Sending(self.me, topic, next(self._sessions), lambda haste: self.notify(haste))

    def _here(self, node: NodeId) -> bool:
        known = self.broker.roster.get(node)
        return known is not None and known.end is not None

    # -- clients here ----------------------------------------------------------------------------------------------

    def find(self, node: NodeId) -> list[Remote]:
        """Where a node is. Raises StoreUnavailable while that cannot be known, else NodeUnknown."""
        found = [remote for remote in self.elsewhere.find(node) if remote.replica in self.peers]
        if not found:
            if not self.up:
                raise StoreUnavailable(retry_after=2)
            if self.elsewhere.missed(node):
                raise StoreUnavailable(
                    "The relay that held this node is gone; the node may be on its way to another. Try again shortly.",
                    retry_after=2,
                )
            raise NodeUnknown
        return found

    def submit(self, where: Remote, job: JobId, sealed: bytes, linger: float, client: str, now: float) -> Errand:
        """Send a request to the replica of its node. Raises QueueFull, or NodeUnknown when that has just gone."""
        return self.errands.submit(self._peer(where), job, sealed, where.id, linger, self._masked(client), now)

    def attach(self, where: Remote, job: JobId, next_record: int, linger: float, client: str = "") -> Errand:
        """Go on with a job at the replica of its node."""
        return self.errands.attach(self._peer(where), job, where.id, next_record, linger, self._masked(client))

    def cancel(self, where: Remote, job: JobId) -> Errand:
        """Stop a job at the replica of its node."""
        return self.errands.cancel(self._peer(where), job, where.id)

    def taken(self, ticket: Ticket, size: int, now: float) -> None:
        """As the broker's: the client's socket took something."""
        if isinstance(ticket, Errand):
            self.errands.taken(ticket, size, now)

    def leave(self, ticket: Ticket, _: float) -> None:
        """As the broker's: the client's connection is gone."""
        if isinstance(ticket, Errand):
            self.errands.leave(ticket)

    def position(self, ticket: Ticket) -> int:
        """As the broker's: how many wait before this one, as was last told."""
        return ticket.place if isinstance(ticket, Errand) else 0

    def _peer(self, where: Remote) -> Peer:
        peer = self.peers.get(where.replica)
        if peer is None:
            raise NodeUnknown
        return peer

    def _masked(self, client: str) -> str:
        """The owner shares its node fairly between clients; who they are is nobody's business on the bus."""
        return sha256(self._salt + client.encode()).hexdigest()[:16] if client else ""

    # -- the bus ---------------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """We listen. What is said from now on can be heard."""
        self._connected = True
        self._all.renew(next(self._sessions))
        self._telling.forget()
        self._heard_at = now
        self._beat(now)

    def lost(self, now: float) -> None:
        """The bus is gone. What was open over it ends; what is served here goes on."""
        self.counted.outages += self.up
        self.up = self._connected = False
        for peer in list(self.peers.values()):
            self._drop(peer, now)

    def leaving(self) -> None:
        """We stop: nobody needs to wait for our silence."""
        self._all.put(Kind.BYE)

    def take(self) -> list[Letter]:
        """What to publish now, in this order."""
        if not self._connected:
            return []
        self.counted.frames += sum(peer.out.waiting for peer in self.peers.values()) + self._all.waiting
        letters = [letter for peer in self.peers.values() for letter in peer.out.take()]
        letters += self._all.take()  # after a peer's snapshot, so that news never come before what they change
        for letter in letters:
            self.counted.sent += 1
            self.counted.sent_bytes += len(letter.data)
        return letters

    def unheard(self, topic: Topic, now: float) -> None:
        """Nobody listens to a topic any more."""
        for peer in list(self.peers.values()):
            if peer.out.topic == topic:
                self._drop(peer, now, missed=True)

    def receive(self, data: bytes, now: float) -> None:
        """A letter was heard. One that cannot be read counts, and is passed over."""
        if not self._connected:
            return
        self._heard_at = now
        self.counted.heard += 1
        self.counted.heard_bytes += len(data)
        try:
            letter = parse_letter(data)
            if letter.sender == self.me:
                self._echo(letter, now)
                return
            peer = self.peers.get(letter.sender) or self._meet(letter, now)
            if peer is None:
                return
            peer.last_heard = now
            if letter.to is To.ALL:
                self._announced(peer, letter, now)
            else:
                self._told(peer, letter, now)
        except WireError:
            self.counted.unreadable += 1

    def tick(self, now: float) -> None:
        """Call about ten times a second: tell what changed, beat, and notice who has gone silent."""
        if not self._connected:
            return
        if now - self._heard_at > self.pace.echo:
            self.lost(now)
            return
        for fields in self._telling.news():
            self._all.put(Kind.PRESENCE, 0, pack_fields(fields))
        self.elsewhere.tick(now)
        if now - self._beaten_at >= self.pace.beat:
            self._beat(now)
            for peer in list(self.peers.values()):
                self._look_after(peer, now)

    @property
    def silent(self) -> bool:
        """Whether the bus was lost although nobody said so: connect anew."""
        return not self._connected

    # -- inside ----------------------------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        self._beaten_at = now
        self._all.put(Kind.BEAT)

    def _echo(self, letter: Heard, now: float) -> None:
        if letter.session == self._all.session:
            if any(frame.kind is Kind.BEAT for frame in letter.frames):
                self.counted.lag = max(0.0, now - self._beaten_at)
            self.up = True

    def _meet(self, letter: Heard, now: float) -> Peer | None:
        if any(frame.kind is Kind.BYE for frame in letter.frames) or len(self.peers) >= MAX_PEERS:
            return None
        peer = Peer(letter.sender, self._sending(topic_of(letter.sender)), now)
        self.peers[peer.id] = peer
        self._ask(peer, now)
        return peer

    def _ask(self, peer: Peer, now: float) -> None:
        peer.synced = False
        peer.asked_at = now
        peer.out.put(Kind.ASK)

    def _look_after(self, peer: Peer, now: float) -> None:
        if now - peer.last_heard > self.pace.silence:
            self._drop(peer, now, missed=True)
            return
        if not peer.synced and now - peer.asked_at >= self.pace.beat:
            self._ask(peer, now)
        self.serving.look(peer)
        self.errands.flush(peer)
        if peer.busy:
            peer.out.put(Kind.PULSE, 0, _ANSWER)

    def _drop(self, peer: Peer, now: float, *, missed: bool = False) -> None:
        """A peer is gone, or out of reach."""
        del self.peers[peer.id]
        self.elsewhere.forget(peer.id, now if missed else None)
        self._sever(peer, now)

    def _sever(self, peer: Peer, now: float) -> None:
        """Whatever was open between a peer and us is over."""
        self.serving.drop(peer, now)
        self.errands.drop(peer)

    def _announced(self, peer: Peer, letter: Heard, now: float) -> None:
        verdict = peer.announced.judge(letter.session, letter.number)
        if verdict is Verdict.STALE:
            return
        if verdict is not Verdict.NEXT and peer.synced:
            self.counted.gaps += 1
            self._ask(peer, now)
        for frame in letter.frames:
            if frame.kind is Kind.PRESENCE:
                self.elsewhere.hear(peer.id, parse_fields(frame.payload))
            elif frame.kind is Kind.BYE:
                self._drop(peer, now, missed=True)
                return

    def _told(self, peer: Peer, letter: Heard, now: float) -> None:
        verdict = peer.told.judge(letter.session, letter.number)
        if verdict in (Verdict.GAP, Verdict.DEAD):
            self._heed(peer, letter, now)
        match verdict:
            case Verdict.STALE:
                return
            case Verdict.GAP:
                self.counted.gaps += 1
                self._sever(peer, now)
                peer.out.put(Kind.BROKEN, 0, pack_session(letter.session))
                if not peer.synced:  # what it told of its nodes is lost with the rest
                    self._ask(peer, now)
                return
            case Verdict.DEAD:
                peer.out.put(Kind.BROKEN, 0, pack_session(letter.session))
                return
            case Verdict.RENEWED:
                self._sever(peer, now)
        for frame in letter.frames:
            self._one(peer, frame, now)

    def _one(self, peer: Peer, frame: Frame, now: float) -> None:
        if frame.kind in _OPENERS:
            self.errands.hear(peer, frame, now)
        elif frame.kind in _OWNERS:
            self.serving.hear(peer, frame, now)
        elif frame.kind is Kind.ASK:
            for fields in self._telling.everything():
                peer.out.put(Kind.PRESENCE, 0, pack_fields(fields))
            known = {"session": self._all.session, "number": self._all.number}
            peer.out.put(Kind.SYNCED, 0, pack_fields(known))
        elif frame.kind is Kind.PRESENCE:
            self.elsewhere.hear(peer.id, parse_fields(frame.payload))
        elif frame.kind is Kind.SYNCED:
            self._synced(peer, parse_fields(frame.payload))
        elif frame.kind is Kind.PULSE and frame.payload == _ANSWER and not peer.busy:
            peer.out.put(Kind.PULSE)  # our last letter may have been the one that was lost, and nothing would follow it
        elif frame.kind is Kind.BROKEN and parse_session(frame.payload) == peer.out.session:
            self._sever(peer, now)
            peer.out.renew(next(self._sessions))

    def _heed(self, peer: Peer, letter: Heard, now: float) -> None:
        """Of a letter that cannot be believed, take the news that ours did not arrive either.

        Both ends would else tell each other for ever, in letters that neither reads.
        """
        for frame in letter.frames:
            if frame.kind is Kind.BROKEN:
                self._one(peer, frame, now)

    def _synced(self, peer: Peer, fields: dict[str, Any]) -> None:
        session, number = fields.get("session"), fields.get("number")
        if not isinstance(session, int) or not isinstance(number, int):
            raise WireError("A replica's place among its own letters is two whole numbers.")
        peer.synced = True
        peer.announced.settle(session, number)
