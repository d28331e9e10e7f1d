"""Whether one client's flood is felt by another: the light one's wait for a slot, quiet and beside the flood."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from bench.crowd import QUIET, pace, percentile
from puppets import DONE, Puppet, Reader, Wires, a_piece, a_request, puppets, wired
from stage import Stage, metric
from tokenplace.link.events import NodeEvent, Offered
from tokenplace.wire.classic import job_of
from tokenplace.wire.ids import JobId, NodeId, Sid

_LIGHT, _FLOOD = "127.0.0.2", "127.0.0.3"


@dataclass(frozen=True, slots=True)
class Shared:
    """The light client's waiting: 95 of 100 requests waited so many seconds at most, from submit to the offer."""

    quiet: float
    flooded: float
    answer: float
    """Seconds that every answer takes, for comparison."""
    held_up: tuple[float, float]
    """The part of them that stood in the queue at all, quiet and beside the flood; true on a busy machine too."""
    asked: int
    """How many requests of the light client each was measured with."""
    refused: float
    """The part of the flood that was told to come back later."""


class _Desk:
    """A node with a few slots whose answers all take the same time."""

    def __init__(self, answer: float) -> None:
        self.offered: dict[JobId, float] = {}
        self._answer = answer
        self._due: list[tuple[float, int, Puppet, Sid]] = []
        self._order = itertools.count()
        self._busy = 0

    def __call__(self, node: Puppet, event: NodeEvent) -> None:
        if isinstance(event, Offered):
            now = time.perf_counter()
            self.offered[job_of(event.sealed)] = now
            self._busy += 1
            node.end.accept(event.sid, 0)
            node.flush()
            heapq.heappush(self._due, (now + self._answer, next(self._order), node, event.sid))

    def has_seen(self, jobs: Collection[JobId]) -> bool:
        """Whether all of them were offered."""
        self.tick()
        return all(job in self.offered for job in jobs)

    def tick(self) -> None:
        """End what is due."""
        while self._due and self._due[0][0] <= time.perf_counter():
            _, _, node, sid = heapq.heappop(self._due)
            self._busy -= 1
            node.end.data(sid, 0, a_piece())
            node.end.end(sid, 1, DONE, node.slots - self._busy)
            node.flush()


class _Asker:
    """A client with as many connections as it needs."""

    def __init__(self, wires: Wires, url: str, address: str, node: NodeId) -> None:
        self.asked: dict[JobId, float] = {}
        self.queued = 0
        """How often the relay said that a request stands in the queue; it says so at once."""
        self._make: Callable[[], Reader] = lambda: Reader(
            wires, url, address=address, on_chunk=self._heard, on_end=self._idle.append
        )
        self._idle: list[Reader] = []
        self._node = node

    def _heard(self, _: Reader, chunk: bytes) -> None:
        self.queued += b'"queued"' in chunk

    def ask(self) -> None:
        """One more request, whatever became of those before."""
        reader = self._idle.pop() if self._idle else self._make()
        while reader.closed:
            reader = self._idle.pop() if self._idle else self._make()
        job, sealed = a_request()
        self.asked[job] = time.perf_counter()
        reader.submit(self._node, sealed)


def light_beside_a_flood(
    stage: Stage, *, rate: float = 10.0, times: int = 100, slots: int = 4, answer: float = 0.04, rounds: int = 3
) -> Shared:
    """A light client alone, and beside one that asks `times` as often, in turns; one node with a few slots."""
    relay = stage.relay("--blind", name="relay-shares", env=QUIET)
    quiet: list[float] = []
    flooded: list[float] = []
    held_up = [0, 0]
    with wired() as wires:
        desk = _Desk(answer)
        (node,) = puppets(wires, relay.url, 1, slots=slots, on_event=desk)
        light = _Asker(wires, relay.url, _LIGHT, node.id)
        flood = _Asker(wires, relay.url, _FLOOD, node.id)
        for _ in range(rounds):
            for waits, both in ((quiet, False), (flooded, True)):
                light.asked.clear()
                light.queued = 0
                turns = [light.ask] + ([flood.ask] * times if both else [lambda: None] * times)
                pace(wires, [_with(desk, turn) for turn in turns], rate, 6.0)
                wires.until(partial(desk.has_seen, light.asked), "the offers")
                waits += [desk.offered[job] - asked for job, asked in light.asked.items()]
                end = time.monotonic() + 3.0
                while time.monotonic() < end:  # what still waits of the flood is answered
                    desk.tick()
                    wires.turn(0.002)
                held_up[both] += light.queued
        refused = metric(relay, "tokenplace_relay_refusals_total") / len(flood.asked)
    relay.end()
    parts = (held_up[0] / len(quiet), held_up[1] / len(flooded))
    return Shared(percentile(quiet, 0.95), percentile(flooded, 0.95), answer, parts, len(quiet), refused)


def _with(desk: _Desk, turn: Callable[[], object]) -> Callable[[], None]:
    def both() -> None:
        desk.tick()
        turn()

    return both
