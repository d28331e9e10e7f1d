"""Random histories of two or three replicas on a bus that loses, repeats, reorders, stalls and ends.

The world of the link's simulator, with the same promises: nodes have one link each, to whichever replica takes it, and
clients are where they like. What they read may have come over the bus; nothing of it may be lost, repeated or spliced.
"""

from __future__ import annotations

from collections import deque

import pytest

from tokenplace.errors import Refused
from tokenplace.relay.bus.base import Letter
from tokenplace.relay.replicas.errands import Errand
from tokenplace.relay.replicas.peering import Peering
from tokenplace.relay.tickets import INTERRUPTED, Ticket
from tokenplace.wire.limits import CREDIT_WINDOW
from tokenplace.wire.messages import Outcome
from unit.link.test_simulation import RECORD, Client, SimNode, SimRelay, World, record


class SimReplica(SimRelay):
    def __init__(self, world: ReplicaWorld) -> None:
        super().__init__(world)
        self.replicas = world
        self.born()

    def born(self) -> None:
        self.peering = Peering(self.broker)
        self.inbox: deque[bytes] = deque()
        self.peering.connected(self.world.now)

    def crash(self) -> None:
        super().crash()
        self.born()


class ReplicaClient(Client):
    """Asks the replica it is connected to, wherever the node is."""

    relay: SimReplica | None
    asked_at = 0.0

    @property
    def errand(self) -> Errand | None:
        return self.ticket if isinstance(self.ticket, Errand) else None

    def connection_lost(self) -> None:
        if self.errand is None:
            super().connection_lost()
        elif self.relay is not None:
            self.relay.peering.leave(self.errand, self.world.now)
            self.ticket = None

    def step(self) -> None:
        errand = self.errand
        if self.result is not None or errand is None or self.relay is None:
            super().step()
        elif self.leaves_at is not None and self.world.now >= self.leaves_at:
            if self.relay.alive:
                self.relay.peering.leave(errand, self.world.now)
            self.result = "left"
        elif errand.refusal is not None:
            self.ticket = None
        elif errand.pending:
            if self.world.now - self.asked_at > self.relay.peering.pace.answer:
                self.connection_lost()
        else:
            self._read(errand)

    def _connect(self) -> None:
        self.tries += 1
        if self.tries > self.patience:
            self.result = "gave up"
            return
        alive = [relay for relay in self.world.relays if relay.alive]
        if not alive:
            return
        relay = self.world.rng.choice(alive)
        assert isinstance(relay, SimReplica)
        self.relay = relay
        local = relay.broker.roster.get(self.node.card.node)
        try:
            if local is not None and local.end is not None:
                self._ask_here(relay)
            else:
                self._ask_elsewhere(relay)
        except Refused:
            return

    def _ask_here(self, relay: SimReplica) -> None:
        broker, node, now = relay.broker, self.node.card.node, self.world.now
        if self.job in self.world.submitted:
            self.ticket = broker.attach(self.job, node, self.seen, 5.0, now)
        else:
            broker.reserve(len(self.sealed))
            try:
                self.ticket = broker.submit(self.job, self.sealed, node, 5.0, now)
            except Refused:
                broker.release(len(self.sealed))
                raise
            self.world.submitted.add(self.job)
        self.ticket.wake = lambda: None

    def _ask_elsewhere(self, relay: SimReplica) -> None:
        (where, *_) = relay.peering.find(self.node.card.node)
        self.asked_at = self.world.now
        if self.job in self.world.submitted:
            self.ticket = relay.peering.attach(where, self.job, self.seen, 5.0)
        else:
            self.ticket = relay.peering.submit(where, self.job, self.sealed, 5.0, "client", self.world.now)
            self.world.submitted.add(self.job)  # from here on it may run: a real client comes back or asks anew

    def _read(self, ticket: Ticket) -> None:
        errand = self.errand
        if errand is None or self.relay is None:
            super()._read(ticket)
            return
        assert sum(map(len, errand.pieces)) <= CREDIT_WINDOW
        if self.world.rng.random() < self.speed:
            data = errand.take()
            for start in range(0, len(data), RECORD):
                assert data[start : start + RECORD] == record(self.job, self.seen), "lost, repeated or spliced"
                self.seen += 1
            if data:
                self.tries = 0
                self.relay.peering.taken(errand, len(data), self.world.now)
        if errand.ended is not None and not errand.pieces:
            if errand.ended.code == Outcome.DONE:
                assert self.seen == self.world.length(self.job), "an ending that is not the end"
            if errand.ended.code != INTERRUPTED:
                self.result = errand.ended.code
            self.ticket = None


class ReplicaWorld(World):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.replicas = [SimReplica(self) for _ in range(self.rng.choice([2, 2, 3]))]
        self.relays = list(self.replicas)
        self.nasty = 0.0
        self.store_away = 0.0

    def dial(self, relay: SimRelay, node: SimNode) -> None:
        """Through a balancer: a node has one link, unless it dials twice in a moment of trouble."""
        if (self.nasty and self.rng.random() < 0.02) or not any(wire.node is node for wire in self.wires):
            super().dial(relay, node)

    def step(self, trouble: float) -> None:
        self.nasty = trouble
        super().step(trouble)
        self.carry_letters()

    def carry_letters(self) -> None:
        for replica in self.replicas:
            if not replica.alive:
                replica.inbox.clear()
                continue
            if self.now >= self.store_away:
                if replica.peering.silent:
                    replica.peering.connected(self.now)
                replica.peering.tick(self.now)
                for letter in replica.peering.take():
                    self.publish(replica, letter)
        for replica in self.replicas:
            for _ in range(self.rng.choice([2, 5, 20])):
                if replica.inbox and replica.alive:
                    replica.peering.receive(replica.inbox.popleft(), self.now)

    def publish(self, speaker: SimReplica, letter: Letter) -> None:
        listeners = [replica for replica in self.replicas if replica.alive and letter.to in replica.peering.topics]
        for listener in listeners:
            if self.rng.random() < self.nasty * 0.1:
                continue
            listener.inbox.append(letter.data)
            if self.rng.random() < self.nasty * 0.1:
                listener.inbox.append(letter.data)
            if self.rng.random() < self.nasty * 0.1 and len(listener.inbox) > 1:
                listener.inbox[-1], listener.inbox[-2] = listener.inbox[-2], listener.inbox[-1]
        if not listeners:
            speaker.peering.unheard(letter.to, self.now)

    def break_something(self) -> None:
        if self.rng.random() < 0.15:
            self.store_away = self.now + self.rng.uniform(0, 6)
            for replica in self.replicas:
                replica.inbox.clear()
                replica.peering.lost(self.now)
        else:
            super().break_something()


def play(seed: int, *, clients: int, trouble: float) -> ReplicaWorld:
    world = ReplicaWorld(seed)
    for _ in range(20):
        world.step(0.0)
    for _ in range(clients):
        client = ReplicaClient(world)
        client.leaves_at = None if client.leaves_at is None else client.leaves_at + 2.0
        world.clients.append(client)
    for _ in range(150):
        world.step(trouble)
    for _ in range(1500):
        if all(client.result is not None for client in world.clients):
            break
        world.step(0.0)
    return world


def check(world: ReplicaWorld) -> None:
    for client in world.clients:
        assert client.result is not None, "a client in limbo"
        if client.job not in world.crashed:
            assert world.started.get(client.job, 0) <= 1, "run twice although its node stood"
    for _ in range(200):
        world.step(0.0)
    for replica in world.replicas:
        assert not replica.broker.tickets
        assert replica.broker.held_bytes == 0
        assert replica.peering.up
        assert len(replica.peering.peers) == len(world.replicas) - 1
        for peer in replica.peering.peers.values():
            assert not peer.busy
            assert peer.synced
        for node in replica.broker.roster:
            assert not node.queue
            assert not node.active
            assert not node.severed
            assert node.free == node.slots, "a slot was lost on the books"
        known = {remote.id for remote in replica.peering.elsewhere}
        known |= {node.id for node in replica.broker.roster if node.end is not None}
        assert known == {node.card.node for node in world.nodes}, "a replica that does not know every node"
        for remote in replica.peering.elsewhere:
            assert remote.load.free == remote.load.slots, "old news of a node's load"
    for sim in world.nodes:
        assert sim.runs.busy == 0


@pytest.mark.parametrize("block", range(4))
def test_random_histories_of_replicas_keep_every_promise(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        try:
            check(play(seed, clients=6, trouble=0.08))
        except Exception as error:
            raise AssertionError(f"history {seed}: {error}") from error


@pytest.mark.parametrize("seed", [204409, 204765, 208835, 211271])
def test_histories_in_which_replicas_once_lost_each_other_for_good(seed: int) -> None:
    """Both missed letters at the same moment; or the last letter of all was lost, and nothing followed it."""
    check(play(seed, clients=6, trouble=0.08))


def test_without_trouble_every_patient_client_gets_its_whole_answer() -> None:
    across = 0
    for seed in range(20):
        world = play(seed, clients=5, trouble=0.0)
        for client in world.clients:
            if client.leaves_at is None and client.patience > 2:
                assert client.result == Outcome.DONE
        check(world)
        across += sum(replica.peering.errands.counts["submit"] for replica in world.replicas)
        assert not any(replica.peering.counted.gaps for replica in world.replicas)
    assert across > 20, "hardly anything went over the bus"
