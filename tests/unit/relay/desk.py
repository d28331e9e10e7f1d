"""A broker, nodes that do what the test says, and a clock that the test moves."""

from __future__ import annotations

import random

from tokenplace.errors import Refused
from tokenplace.link.ends import NodeEnd, RelayEnd
from tokenplace.link.events import Cancelled, Challenged, Granted, Introduced, NodeEvent, Offered, Rewound, Welcomed
from tokenplace.node.runs import Run, Runs
from tokenplace.relay.broker import Broker
from tokenplace.relay.roster import Node
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.card import Card, CardBody, ModelCard
from tokenplace.wire.ids import JobId, ModelId, NodeId, Sid
from tokenplace.wire.limits import TIMING
from tokenplace.wire.messages import Hello, Outcome, Reason, Status
from tokenplace.wire.request import Kem, RequestHeader

DONE = Reason(Outcome.DONE)


def a_card(name: int, sequence: int = 1, models: tuple[str, ...] = ("m",)) -> Card:
    served = tuple(ModelCard(ModelId(model), 2048) for model in models)
    body = CardBody(identity=bytes([name]) * 32, sequence=sequence, issued_ms=0, keys=(), models=served)
    return Card(body=body, signed=body.pack(), signature=bytes(64))


class Puppet:
    """A node at the far end of a real link that does what the test says."""

    def __init__(self, desk: Desk, card: Card, slots: int) -> None:
        self.desk = desk
        self.card = card
        self.id = card.node
        self.relay_end, self.end = RelayEnd(), NodeEnd()
        self.heard: list[NodeEvent] = []
        self.entry: Node | None = None
        self.closed: list[str] = []
        self.relay_end.last_heard = desk.now
        self.relay_end.challenge(bytes(32))
        self.hear()
        self.end.hello(Hello(card, bytes(64), "relay", slots))
        self.tell()

    @property
    def node(self) -> Node:
        assert self.entry is not None
        return self.entry

    def hear(self) -> list[NodeEvent]:
        """What the relay has said since the last time."""
        news: list[NodeEvent] = []
        while message := self.relay_end.take():
            news += self.end.receive(message, self.desk.now)
        self.heard += news
        return [event for event in news if not isinstance(event, Challenged | Welcomed)]

    def tell(self) -> None:
        """Let the relay read what this node has said."""
        while message := self.end.take():
            for event in self.relay_end.receive(message, self.desk.now):
                if isinstance(event, Introduced):
                    self.entry = self.desk.broker.joined(event.hello, self.relay_end, self.closed.append, self.desk.now)
                else:
                    self.desk.broker.handle(self.node, self.relay_end, event, self.desk.now)

    def offers(self) -> list[Offered]:
        return [event for event in self.hear() if isinstance(event, Offered)]

    def an_offer(self) -> Sid:
        (offer,) = self.offers()
        return offer.sid

    def a_rewind(self) -> Rewound:
        (event,) = [event for event in self.hear() if isinstance(event, Rewound)]
        return event

    def granted(self) -> list[int]:
        """The totals of credit that came since the last time."""
        return [event.total for event in self.hear() if isinstance(event, Granted)]

    def accept(self, sid: Sid, next_record: int = 0) -> None:
        self.end.accept(sid, next_record)
        self.tell()

    def send(self, sid: Sid, number: int, data: bytes = b"piece") -> None:
        self.end.data(sid, number, data)
        self.tell()

    def finish(self, sid: Sid, records: int, reason: Reason = DONE, free: int = 1) -> None:
        """Say that this was all; an answer of no records is given one, for there is none without."""
        if reason.code in (Outcome.DONE, Outcome.ABORTED) and not records:
            self.send(sid, 0)
            records = 1
        self.end.end(sid, records, reason, free)
        self.tell()

    def reject(self, sid: Sid, code: str) -> None:
        self.end.reject(sid, Reason(code))
        self.tell()

    def report(self, slots: int, free: int, card: Card | None = None) -> None:
        self.end.status(Status(slots, free, card))
        self.tell()

    def break_link(self) -> None:
        self.desk.broker.left(self.node, self.relay_end, self.desk.now)


class Desk:
    """A broker under a clock that the test moves."""

    def __init__(self, **options: int) -> None:
        self.now = 1000.0
        self.broker = Broker(timing=TIMING, rng=random.Random(7), **options)
        self.made = 0

    def node(self, name: int = 1, *, slots: int = 1, sequence: int = 1, models: tuple[str, ...] = ("m",)) -> Puppet:
        return Puppet(self, a_card(name, sequence, models), slots)

    def request(self, size: int = 60) -> bytes:
        self.made += 1
        header = RequestHeader(bytes(8), Kem.X25519, self.made.to_bytes(16, "big"), 0)
        return header.pack() + bytes(48 + size)

    def submit(self, node: NodeId, *, linger: float = 0.0, size: int = 60, client: str = "") -> Ticket:
        return self.submit_sealed(self.request(size), node, linger, client)

    def submit_sealed(self, sealed: bytes, node: NodeId, linger: float = 0.0, client: str = "") -> Ticket:
        self.broker.reserve(len(sealed), client)
        try:
            return self.broker.submit(RequestHeader.parse(sealed).job, sealed, node, linger, self.now, client)
        except Refused:
            self.broker.release(len(sealed), client)
            raise

    def attach(self, job: JobId, node: NodeId, next_record: int, linger: float = 0.0, *, client: str = "") -> Ticket:
        return self.broker.attach(job, node, next_record, linger, self.now, client)

    def leave(self, ticket: Ticket) -> None:
        self.broker.leave(ticket, self.now)

    def wait(self, seconds: float, *, awake: tuple[Puppet, ...] = ()) -> None:
        """Time passes in ticks of half a second; nodes that are `awake` keep their links alive."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.5)
            for puppet in awake:
                puppet.relay_end.last_heard = self.now
            self.broker.tick(self.now)


def outcome(ticket: Ticket) -> str:
    assert ticket.ended is not None
    return ticket.ended.code


def running(desk: Desk, node: Puppet, *, linger: float = 0.0, records: int = 1) -> tuple[Ticket, Sid]:
    """A job that has sent some records."""
    ticket = desk.submit(node.id, linger=linger)
    sid = node.an_offer()
    node.accept(sid)
    for number in range(records):
        node.send(sid, number)
    return ticket, sid


def real_runs(node: Puppet, *, slots: int) -> tuple[Runs, dict[JobId, Run]]:
    """The node's real books behind the puppet's link."""
    working: dict[JobId, Run] = {}

    def stop(run: Run) -> None:
        working.pop(run.job, None)
        runs.release(run)

    runs = Runs(slots=slots, timing=TIMING, start=lambda run, _: working.update({run.job: run}), stop=stop)
    runs.link_up(node.end)
    node.tell()
    return runs, working


def serve(runs: Runs, node: Puppet, now: float) -> None:
    for event in node.hear():
        match event:
            case Offered():
                runs.offered(node.end, event, now)
            case Rewound():
                runs.rewound(node.end, event, now)
            case Cancelled(sid=sid):
                runs.cancelled(node.end, sid)
