"""Random histories of relays, nodes and clients that break in every way, under a clock that the test moves.

The real state machines of both sides are here (Broker and RelayEnd, Runs and NodeEnd); only sockets, seals and the
model are played. What must hold in every history:

- a client sees records 0, 1, 2, … of its job, each once, and never one of another job;
- an answer that ended well is whole; every job ends in a named outcome;
- once a client has seen a record its job is never run a second time;
- no buffer grows beyond its bound; afterwards nobody holds anything.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from tokenplace.errors import Refused
from tokenplace.link.ends import NodeEnd, RelayEnd
from tokenplace.link.events import (
    Cancelled,
    Challenged,
    Granted,
    Introduced,
    Offered,
    Rewound,
)
from tokenplace.node.runs import Run, Runs
from tokenplace.relay.broker import Broker
from tokenplace.relay.roster import Node
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.card import Card, CardBody, ModelCard
from tokenplace.wire.ids import JobId, ModelId
from tokenplace.wire.limits import CREDIT_WINDOW, RUN_BUFFER, Timing
from tokenplace.wire.messages import Hello, Outcome, Reason
from tokenplace.wire.request import Kem, RequestHeader

TIMING = Timing(keep_finished=8, orphan=6, return_grace_seen=4, return_grace_unseen=1, queue_wait=20, silent_job=12)
RECORD = 9_000


def a_card(name: int) -> Card:
    body = CardBody(
        identity=bytes([name]) * 32, sequence=1, issued_ms=0, keys=(), models=(ModelCard(ModelId("m"), 2048),)
    )
    return Card(body=body, signed=body.pack(), signature=bytes(64))


def a_request(rng: random.Random) -> bytes:
    header = RequestHeader(key_id=bytes(8), kem=Kem.X25519, request_id=rng.randbytes(16), time_ms=0)
    return header.pack() + rng.randbytes(48 + rng.choice([0, 10, 70_000]))


def record(job: JobId, number: int) -> bytes:
    head = f"{job}:{number}:".encode()
    return head + bytes(RECORD - len(head))


@dataclass(eq=False)
class Wire:
    """One link: two queues of messages, and whether it stands."""

    relay: SimRelay
    node: SimNode
    relay_end: RelayEnd
    node_end: NodeEnd
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)
    entry: Node | None = None
    stands: bool = True


class SimRelay:
    def __init__(self, world: World) -> None:
        self.world = world
        self.broker = Broker(timing=TIMING, rng=world.rng)
        self.alive = True

    def crash(self) -> None:
        self.alive = False
        for wire in [wire for wire in self.world.wires if wire.relay is self]:
            self.world.cut(wire)
        for client in self.world.clients:
            if client.relay is self:
                client.connection_lost()
        self.broker = Broker(timing=TIMING, rng=self.world.rng)


class SimNode:
    def __init__(self, world: World, name: int) -> None:
        self.world = world
        self.card = a_card(name)
        self.slots = world.rng.choice([1, 2, 4])
        self.working: dict[JobId, Run] = {}
        self.runs = self._runs()

    def _runs(self) -> Runs:
        return Runs(slots=self.slots, timing=TIMING, start=self._start, stop=self._stop)

    def _start(self, run: Run, sealed: bytes) -> None:
        self.world.started[run.job] = self.world.started.get(run.job, 0) + 1
        shown = any(client.seen for client in self.world.clients if client.job == run.job)
        assert not shown, "run again although its client has seen some of it"
        self.working[run.job] = run

    def _stop(self, run: Run) -> None:
        self.working.pop(run.job, None)
        self.runs.release(run)

    def work(self) -> None:
        for job, run in list(self.working.items()):
            if run.has_room and self.world.rng.random() < 0.7:
                if run.count < self.world.length(job):
                    self.runs.push(run, record(job, run.count), self.world.now)
                else:
                    del self.working[job]
                    self.runs.finish(run, Reason(Outcome.DONE), self.world.now)
            assert run.kept_bytes <= RUN_BUFFER + CREDIT_WINDOW + RECORD, "the node's memory grew"

    def crash(self) -> None:
        for wire in [wire for wire in self.world.wires if wire.node is self]:
            self.world.cut(wire)
        self.working.clear()
        self.runs = self._runs()


class Client:
    """A person's program: reads, lingers, comes back, gives up."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.patience = world.rng.choice([2, 40, 40, 40])
        self.speed = world.rng.choice([0.05, 0.5, 1.0, 1.0])
        self.leaves_at = world.rng.choice([None, None, None, world.now + world.rng.uniform(0, 10)])
        self.sealed = a_request(world.rng)
        self.job = RequestHeader.parse(self.sealed).job
        self.node = world.rng.choice(world.nodes)
        self.relay: SimRelay | None = None
        self.ticket: Ticket | None = None
        self.seen = 0
        self.result: str | None = None
        self.tries = 0

    def connection_lost(self) -> None:
        if self.ticket is not None and self.relay is not None and self.relay.alive:
            self.relay.broker.leave(self.ticket, self.world.now)
        self.ticket = None

    def step(self) -> None:
        if self.result is not None:
            return
        now = self.world.now
        if self.leaves_at is not None and now >= self.leaves_at:
            if self.ticket is not None and self.relay is not None and self.relay.alive:
                self.relay.broker.cancel(self.job, self.node.card.node) if not self.ticket.job.ended else None
            self.result = "left"
            return
        if self.ticket is None:
            self._connect()
            return
        self._read(self.ticket)

    def _connect(self) -> None:
        self.tries += 1
        if self.tries > self.patience:
            self.result = "gave up"
            return
        alive = [relay for relay in self.world.relays if relay.alive]
        if not alive:
            return
        self.relay = self.world.rng.choice(alive)
        broker, node = self.relay.broker, self.node.card.node
        try:
            if self.seen or self.job in self.world.submitted:
                self.ticket = broker.attach(self.job, node, self.seen, 5.0, self.world.now)
            else:
                broker.reserve(len(self.sealed))
                try:
                    header = RequestHeader.parse(self.sealed)
                    self.ticket = broker.submit(header.job, self.sealed, node, 5.0, self.world.now)
                    self.world.submitted.add(self.job)
                except Refused:
                    broker.release(len(self.sealed))
                    raise
            self.ticket.wake = lambda: None
        except Refused:
            pass

    def _read(self, ticket: Ticket) -> None:
        assert self.relay is not None
        assert sum(map(len, ticket.pieces)) <= CREDIT_WINDOW
        if self.world.rng.random() < self.speed:
            data = ticket.take()
            for start in range(0, len(data), RECORD):
                assert data[start : start + RECORD] == record(self.job, self.seen), "lost, repeated or spliced"
                self.seen += 1
            if data:
                self.tries = 0
                self.relay.broker.taken(ticket, len(data), self.world.now)
        if ticket.ended is not None and not ticket.pieces:
            assert ticket.ended.code
            if ticket.ended.code == Outcome.DONE:
                assert self.seen == self.world.length(self.job), "an ending that is not the end"
            self.result = ticket.ended.code
            self.ticket = None


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 100.0
        self.wires: list[Wire] = []
        self.started: dict[JobId, int] = {}
        self.submitted: set[JobId] = set()
        self.crashed: set[JobId] = set()
        self.lengths: dict[JobId, int] = {}
        self.relays = [SimRelay(self) for _ in range(self.rng.choice([1, 2, 3]))]
        self.nodes = [SimNode(self, name) for name in range(1, 1 + self.rng.choice([1, 2]))]
        self.clients: list[Client] = []

    def length(self, job: JobId) -> int:
        return self.lengths.setdefault(job, self.rng.choice([1, 3, 12, 30]))

    # -- links

    def dial(self, relay: SimRelay, node: SimNode) -> None:
        wire = Wire(relay, node, RelayEnd(), NodeEnd())
        wire.relay_end.last_heard = self.now
        wire.relay_end.challenge(bytes(32))
        self.wires.append(wire)

    def cut(self, wire: Wire) -> None:
        wire.stands = False
        self.wires.remove(wire)
        if wire.entry is not None and wire.relay.alive:
            wire.relay.broker.left(wire.entry, wire.relay_end, self.now)
        if wire.node_end.phase == "live":
            wire.node.runs.link_lost(wire.node_end, self.now)

    def carry(self, wire: Wire) -> None:
        while message := wire.relay_end.take():
            wire.down.append(message)
        while message := wire.node_end.take():
            wire.up.append(message)
        for _ in range(self.rng.choice([0, 1, 5])):
            if wire.down and wire.stands:
                self.at_node(wire, wire.down.popleft())
            if wire.up and wire.stands:
                self.at_relay(wire, wire.up.popleft())

    def at_node(self, wire: Wire, message: bytes) -> None:
        runs, end = wire.node.runs, wire.node_end
        for event in end.receive(message, self.now):
            match event:
                case Challenged():
                    end.hello(Hello(wire.node.card, bytes(64), "sim", wire.node.slots))
                case Offered():
                    runs.offered(end, event, self.now)
                case Rewound():
                    runs.rewound(end, event, self.now)
                case Granted(sid=sid, total=total):
                    runs.granted(end, sid, total, self.now)
                case Cancelled(sid=sid):
                    runs.cancelled(end, sid)
                case _:
                    if end.phase == "live" and end not in runs._links:
                        runs.link_up(end)

    def at_relay(self, wire: Wire, message: bytes) -> None:
        for event in wire.relay_end.receive(message, self.now):
            if isinstance(event, Introduced):

                def close(reason: str, wire: Wire = wire) -> None:
                    if wire.stands:
                        wire.entry = None
                        self.cut(wire)

                wire.entry = wire.relay.broker.joined(event.hello, wire.relay_end, close, self.now)
            elif wire.entry is not None:
                wire.relay.broker.handle(wire.entry, wire.relay_end, event, self.now)

    # -- time

    def step(self, trouble: float) -> None:
        self.now += 0.1
        for relay in self.relays:
            for node in self.nodes:
                linked = any(wire.relay is relay and wire.node is node for wire in self.wires)
                if relay.alive and not linked and self.rng.random() < 0.3:
                    self.dial(relay, node)
        for wire in list(self.wires):
            if wire.stands:
                self.carry(wire)
        for node in self.nodes:
            node.work()
            node.runs.tick(self.now)
        for relay in self.relays:
            if relay.alive:
                relay.broker.tick(self.now)
            elif self.rng.random() < 0.1:
                relay.alive = True
        for client in self.clients:
            client.step()
        if self.rng.random() < trouble:
            self.break_something()

    def break_something(self) -> None:
        match self.rng.choice(["link", "link", "link", "client", "client", "relay", "node", "twice"]):
            case "link" if self.wires:
                self.cut(self.rng.choice(self.wires))
            case "client" if self.clients:
                self.rng.choice(self.clients).connection_lost()
            case "relay":
                self.rng.choice(self.relays).crash()
            case "node":
                node = self.rng.choice(self.nodes)
                node.crash()
                self.crashed.update(client.job for client in self.clients if client.node is node)
            case "twice" if self.wires:
                wire = self.rng.choice(self.wires)
                self.dial(wire.relay, wire.node)


def play(seed: int, *, clients: int, trouble: float) -> World:
    world = World(seed)
    for _ in range(clients):
        world.clients.append(Client(world))
    for _ in range(150):
        world.step(trouble)
    for _ in range(1500):
        if all(client.result is not None for client in world.clients):
            break
        world.step(0.0)
    return world


def check(world: World) -> None:
    for client in world.clients:
        assert client.result is not None, "a client in limbo"
        if client.job not in world.crashed:
            assert world.started.get(client.job, 0) <= 1, "run twice although its node stood"
    for _ in range(200):
        world.step(0.0)
    for relay in world.relays:
        assert not relay.broker.tickets
        assert relay.broker.held_bytes == 0
        for node in relay.broker.roster:
            assert not node.queue
            assert not node.active
            assert not node.severed
            assert node.free == node.slots, "a slot was lost on the books"
    for sim in world.nodes:
        assert sim.runs.busy == 0
        assert not sim.runs._runs


@pytest.mark.parametrize("block", range(8))
def test_random_histories_keep_every_promise(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        try:
            check(play(seed, clients=6, trouble=0.08))
        except Exception as error:
            raise AssertionError(f"history {seed}: {error}") from error


def test_without_trouble_every_patient_client_gets_its_whole_answer() -> None:
    for seed in range(20):
        world = play(seed, clients=5, trouble=0.0)
        for client in world.clients:
            if client.leaves_at is None and client.patience > 2:
                assert client.result == Outcome.DONE
        check(world)


def test_a_job_that_nobody_broke_runs_once() -> None:
    for seed in range(20):
        world = play(seed, clients=5, trouble=0.0)
        assert set(world.started.values()) <= {1}
