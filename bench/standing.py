"""What stands at a relay and what it costs: idle links, registered nodes, queued requests, readers who do not read."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.crowd import QUIET, cpu, flows, lateness, pace, percentile
from puppets import Puppet, Reader, Wires, a_piece, a_request, puppets, wired
from stage import Stage, nodes_at
from tokenplace.link.events import Granted, NodeEvent, Offered
from tokenplace.wire import routes
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import CREDIT_WINDOW, KiB

_PAGE = 4096


def kernel_memory() -> int:
    """Bytes the kernel holds for all TCP sockets of this machine, both ends."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * _PAGE
    raise AssertionError("no TCP in sockstat")


@dataclass(frozen=True, slots=True)
class Idle:
    """What links of nodes cost while nothing happens."""

    links: int
    resident: float
    """Bytes of the relay's memory for each."""
    core: float
    """The part of a core for all of them: pings, and looking after silent ones."""


def idle_links(stage: Stage, links: int, seconds: float = 12.0) -> Idle:
    """So many nodes that are connected and do nothing."""
    relay = stage.relay("--blind", name="relay-idle", env=QUIET)
    with wired() as wires:
        puppets(wires, relay.url, 64)  # what is made once is made by now
        wires.spend(1.0)
        before = relay.rss()
        puppets(wires, relay.url, links)
        wires.spend(11.0)  # two pings each
        grown = relay.rss() - before
        spent, began = cpu(relay), time.perf_counter()
        wires.spend(seconds)
        core = (cpu(relay) - spent) / (time.perf_counter() - began)
    relay.end()
    return Idle(links, grown / links, core)


def _answer(node: Puppet, event: NodeEvent) -> None:
    if isinstance(event, Offered):
        node.answer(event.sid, 3, _SHORT)


_SHORT = a_piece()


class Counter:
    """One relay with so many nodes, asked by a few clients that each ask again once they are answered."""

    def __init__(self, stage: Stage, wires: Wires, name: str, nodes: int, clients: int = 8) -> None:
        self.relay = stage.relay("--blind", name=f"relay-{name}", env=QUIET)
        self._wires = wires
        self.nodes = puppets(wires, self.relay.url, nodes, on_event=_answer)
        self._clients = clients
        self._readers: list[Reader] = []
        self._left = 0
        self._turn = 0
        self.idle = 0.0

    def _next(self, reader: Reader) -> None:
        """One request is the relay's directory, and then a job for a node."""
        if self._left <= 0:
            return
        self._left -= 1
        if self._left % 2:
            reader.get(f"{routes.NODES}?model=puppet&limit=8")
        else:
            self._turn += 1
            reader.submit(self.nodes[self._turn % len(self.nodes)].id, a_request()[1])

    def rest(self, seconds: float) -> None:
        """Learn what the relay takes when nobody asks: a part of a core."""
        spent, began = cpu(self.relay), time.perf_counter()
        self._wires.spend(seconds)
        self.idle = (cpu(self.relay) - spent) / (time.perf_counter() - began)

    def ask(self, requests: int) -> float:
        """Seconds of processor time per request, what the relay takes anyway left out."""
        while len(self._readers) < self._clients:  # only now: a relay closes connections that ask nothing
            self._readers.append(Reader(self._wires, self.relay.url, on_end=self._next))
        self._left = 2 * requests
        spent, began = cpu(self.relay), time.perf_counter()
        for reader in self._readers:
            self._next(reader)
        self._wires.until(lambda: not any(reader.busy for reader in self._readers), "the answers", 120.0)
        took = time.perf_counter() - began
        spent = cpu(self.relay) - spent
        assert all(reader.status == 200 for reader in self._readers), [reader.status for reader in self._readers]
        while self._readers:
            self._readers.pop().leave()
        return (spent - self.idle * took) / requests


@dataclass(frozen=True, slots=True)
class Request:
    """What a request (the directory, and a job with a short answer) costs beside so much that stands there."""

    what: str
    cost: float
    """µs of processor time, at the median of the rounds."""
    ratio: float
    """… as a multiple of the first line's, each round's against the same round's."""
    low: float
    high: float
    idle: float
    """The part of a core that the relay takes when nobody asks."""


def by_nodes(stage: Stage, counts: Sequence[int] = (10, 1000, 10_000), rounds: int = 7) -> list[Request]:
    """… registered nodes, each over a socket of its own; all relays in one run, in turns."""
    with wired() as wires:
        counters = [Counter(stage, wires, f"{count}-nodes", count) for count in counts]
        found = _compare(wires, [f"{count:,} nodes" for count in counts], counters, rounds)
    for counter in counters:
        counter.relay.end()
    return found


def by_queue(stage: Stage, jobs: int = 10_000, rounds: int = 5) -> list[Request]:
    """… jobs that wait, beside a relay with as many nodes and none that waits."""
    each = 40
    busy = -(-jobs // each)
    with wired() as wires:
        counters = [Counter(stage, wires, name, 10) for name in ("empty", "queued")]
        for counter in counters:
            full = puppets(wires, counter.relay.url, busy, slots=1, models=("busy",))
            if counter is counters[1]:
                for number in range(jobs + busy):
                    Reader(wires, counter.relay.url).submit(full[number % busy].id, a_request(200)[1])
                    wires.turn()
        queued = sum(node["queued"] for node in nodes_at(counters[1].relay))
        assert queued >= jobs, f"only {queued} wait"
        found = _compare(wires, ["none queued", f"{jobs:,} queued"], counters, rounds, requests=1000, rest=3.0)
    for counter in counters:
        counter.relay.end()
    return found


def _compare(
    wires: Wires, names: Sequence[str], counters: Sequence[Counter], rounds: int, requests: int = 500, rest: float = 6.0
) -> list[Request]:
    wires.spend(1.0)
    for counter in counters:
        counter.ask(200)
    for counter in counters:
        counter.rest(rest)
    costs = [[counter.ask(requests) for counter in counters] for _ in range(rounds)]
    found = []
    for place, name in enumerate(names):
        ratios = sorted(costs[turn][place] / costs[turn][0] for turn in range(rounds))
        found.append(
            Request(
                what=name,
                cost=statistics.median(turn[place] for turn in costs) * 1e6,
                ratio=statistics.median(ratios),
                low=ratios[0],
                high=ratios[-1],
                idle=counters[place].idle,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Unread:
    """What readers who never read take, and what they do to one who does."""

    readers: int
    resident: float
    kernel: float
    """Bytes for each, in the relay's memory and in the kernel's for its sockets."""
    alone: float
    beside: float
    """Seconds that 99 of 100 pieces of a fast stream took at most, before and beside them."""


def never_reading(stage: Stage, readers: int = 400, rate: float = 200.0, seconds: float = 8.0) -> Unread:
    """So many answers as long as can be that nobody reads, beside one stream of `rate` pieces a second."""
    relay = stage.relay("--blind", name="relay-unread", env=QUIET)
    late: list[float] = []

    def heard(_: Reader, chunk: bytes) -> None:
        late.extend(lateness(chunk))

    with wired() as wires:
        (fast,) = flows(wires, relay, relay, 1, heard)
        pace(wires, [fast.piece], rate, 1.0)
        late.clear()
        pace(wires, [fast.piece], rate, seconds)
        alone = percentile(late, 0.99)
        before = relay.rss(), kernel_memory()
        endless = Endless()
        nodes = puppets(wires, relay.url, -(-readers // 64), models=("endless",), on_event=endless)
        deaf = [Reader(wires, relay.url, buffer=4 * KiB, reads=False) for _ in range(readers)]
        for number, reader in enumerate(deaf):
            reader.submit(nodes[number % len(nodes)].id, a_request()[1])
            wires.turn()
        wires.until(lambda: len(endless.sent) == readers, "all answers to begin")
        pace(wires, [fast.piece], rate, 3.0)
        late.clear()
        pace(wires, [fast.piece], rate, seconds)
        resident, kernel = relay.rss() - before[0], kernel_memory() - before[1]
        for reader in deaf:
            reader.leave()
    relay.end()
    return Unread(readers, resident / readers, kernel / readers, alone, percentile(late, 0.99))


class Endless:
    """A node whose answers go on as long as it has credit."""

    def __init__(self) -> None:
        self.sent: dict[tuple[Puppet, Sid], int] = {}
        self._piece = a_piece(8 * KiB)

    def __call__(self, node: Puppet, event: NodeEvent) -> None:
        """Begin, or go on."""
        match event:
            case Offered(sid=sid):
                node.end.accept(sid, 0)
                self._fill(node, sid, CREDIT_WINDOW)
            case Granted(sid=sid, total=total):
                self._fill(node, sid, total)

    def _fill(self, node: Puppet, sid: Sid, allowed: int) -> None:
        size = len(self._piece)
        number = self.sent.get((node, sid), 0)
        while (number + 1) * size <= allowed:
            node.piece(sid, number, self._piece)
            number += 1
        self.sent[node, sid] = number
