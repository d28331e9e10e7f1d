"""Several replicas on a bus that the test holds in its hands: it may lose, repeat or reorder what is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenplace.relay.bus.base import Letter
from tokenplace.relay.replicas.errands import Errand
from tokenplace.relay.replicas.messages import ReplicaId
from tokenplace.relay.replicas.peering import Peering
from tokenplace.relay.replicas.wires import ALL
from tokenplace.wire.ids import JobId, NodeId
from unit.relay.desk import Desk

Meddler = Callable[[list[Letter]], Iterable[Letter]]


class Replica(Desk):
    """A desk whose broker has peers."""

    def __init__(self, mesh: Mesh, number: int) -> None:
        super().__init__()
        self._mesh = mesh
        self.peering = Peering(self.broker, me=ReplicaId(f"{number:016x}"))

    def errand(self, node: NodeId, *, linger: float = 0.0, size: int = 60) -> Errand:
        """A client here asks a node elsewhere."""
        sealed = self.request(size)
        where = self.peering.find(node)[0]
        return self.peering.submit(where, JobId(sealed[16:32].hex()), sealed, linger, "somebody", self.now)


class Mesh:
    """The bus, and its clock."""

    def __init__(self, count: int = 2) -> None:
        self.now = 1000.0
        self.replicas = [Replica(self, number + 1) for number in range(count)]
        self.meddle: Meddler = list
        self.deaf: set[Replica] = set()
        self.mending = True
        for replica in self.replicas:
            replica.peering.connected(self.now)
        self.settle()

    def carry(self) -> bool:
        """Bring once what was said; whether there was anything."""
        said: list[Letter] = []
        for replica in self.replicas:
            if replica not in self.deaf:
                said += replica.peering.take()
        for letter in self.meddle(said):
            for replica in self.replicas:
                if replica not in self.deaf and letter.to in replica.peering.topics:
                    replica.peering.receive(letter.data, self.now)
        return bool(said)

    def settle(self) -> None:
        """Until nobody says anything more."""
        for _ in range(50):
            if not self.carry():
                return
        raise AssertionError("they talk without end")

    def pass_time(self, seconds: float) -> None:
        """In ticks of a tenth of a second; links of nodes stay alive."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for replica in self.replicas:
                replica.now = self.now
                for node in replica.broker.roster:
                    if node.end is not None:
                        node.end.last_heard = self.now
                replica.broker.tick(self.now)
                if replica not in self.deaf:
                    replica.peering.tick(self.now)
                    if replica.peering.silent and self.mending:
                        replica.peering.connected(self.now)
            self.settle()


def losing(chosen: Callable[[Letter], bool], *, times: int = 1) -> Meddler:
    """Lose the first letters that are chosen."""
    left = [times]

    def meddle(letters: list[Letter]) -> Iterable[Letter]:
        for letter in letters:
            if left[0] and chosen(letter):
                left[0] -= 1
                continue
            yield letter

    return meddle


def to_one(letter: Letter) -> bool:
    return letter.to != ALL
