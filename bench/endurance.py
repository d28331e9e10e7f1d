"""Whether a relay's memory stays what it was: as many requests as fit, good ones and bad ones, over real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.crowd import QUIET, cpu
from puppets import Puppet, Reader, Wires, a_piece, a_request, puppets, wired
from stage import Stage
from tokenplace.link.events import NodeEvent, Offered
from tokenplace.wire import routes
from tokenplace.wire.ids import NodeId

_NODES = 16
_CLIENTS = 32
_STRANGER = NodeId("a" * 32)
_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class Endured:
    """What so many requests left behind."""

    requests: int
    warm: int
    """Resident bytes once a twentieth was done."""
    least: int
    most: int
    end: int
    """… at the least and the most afterwards, and at the end."""
    cost: float
    """µs of the relay's processor time for each."""
    took: float

    @property
    def growth(self) -> float:
        """How far the memory ever was above what it was when warm, as a part of it."""
        return self.most / self.warm - 1


class _Life:
    """Clients who ask one request after the other; some leave, some ask for what is not there; nodes come and go."""

    def __init__(self, wires: Wires, url: str) -> None:
        self.done = 0
        self._wires = wires
        self._url = url
        self._piece = a_piece()
        self._nodes = puppets(wires, url, _NODES, on_event=self._answer)
        self.stopping = False
        for _ in range(_CLIENTS):
            self._ask(self._reader())

    def _reader(self) -> Reader:
        return Reader(self._wires, self._url, on_end=self._ended)

    def _answer(self, node: Puppet, event: NodeEvent) -> None:
        if isinstance(event, Offered):
            node.answer(event.sid, 2, self._piece)

    def _ended(self, reader: Reader) -> None:
        if not self.stopping:
            self._ask(reader)

    def _ask(self, reader: Reader) -> None:
        self.done += 1
        turn = self.done
        node = self._nodes[turn % len(self._nodes)]
        if not turn % 5000:
            self._nodes.remove(node)
            node.hang_up()
            self._nodes += [Puppet(self._wires, self._url, on_event=self._answer)]
        if not turn % 20:
            reader.get(f"{routes.NODES}?model=puppet")
        elif not turn % 101:
            reader.submit(_STRANGER, a_request()[1])
        elif not turn % 103:
            reader.submit(node.id, a_request()[1])
            reader.leave()
            self._ask(self._reader())
        else:
            reader.submit(node.id, a_request()[1])


def endure(
    stage: Stage,
    requests: int,
    seconds: float = 600.0,
    prelude: str | None = None,
    told: Callable[[int, int], None] = lambda _done, _resident: None,
) -> Endured:
    """So many requests, or as many as fit into the time."""
    relay = stage.relay("--blind", name="relay-endurance", env=QUIET, prelude=prelude)
    sizes: list[tuple[int, int]] = []
    with wired() as wires:
        spent, began = cpu(relay), time.perf_counter()
        life = _Life(wires, relay.url)
        while life.done < requests and time.perf_counter() - began < seconds:
            wires.turn(1.0)
            if life.done >= _EVERY * (len(sizes) + 1):
                sizes.append((life.done, relay.rss()))
                told(*sizes[-1])
        took, spent = time.perf_counter() - began, cpu(relay) - spent
        life.stopping = True
        wires.spend(1.0)
        done, end = life.done, relay.rss()
    relay.end()
    warm, *later = [size for count, size in sizes if count >= done / 20] or [end]
    return Endured(done, warm, min([*later, end]), max([*later, end]), end, spent / done * 1e6, took)
