"""Many streams through one relay, paced by puppets that stamp each piece: how late it comes, and what it costs."""

from __future__ import annotations

import os
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from puppets import DONE, Puppet, Reader, Wires, a_request, puppets, wired
from stage import Program, nodes_at, until
from tokenplace.link.events import NodeEvent, Offered
from tokenplace.wire.ids import Sid
from tokenplace.wire.stream import PREFIX_BYTES, RecordKind

QUIET = {"TOKENPLACE_LOG_LEVEL": "WARNING"}
_STAMP = struct.Struct(">d")
_WORDS = 240
"""Bytes under the seal of a streamed token's event."""
_HEAD = _WORDS.to_bytes(4, "big") + bytes((RecordKind.DATA,))
_PADDING = bytes(_WORDS - _STAMP.size)
PIECE = PREFIX_BYTES + _WORDS
"""Bytes of a record."""


def cpu_of(pid: int) -> float:
    """Seconds of processor time of a process so far, all its threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def cpu(program: Program) -> float:
    """… of one of ours."""
    return cpu_of(program.pid)


def kept_waiting(pid: int) -> float:
    """Seconds that a process's main thread was ready to run and had no core, so far: what others' work did to it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed."""
    return statistics.quantiles(values, n=1000, method="inclusive")[round(part * 1000) - 1]


def a_stamped_piece() -> bytes:
    """A record that says when it was sent."""
    return _HEAD + _STAMP.pack(time.perf_counter()) + _PADDING


def lateness(chunk: bytes) -> list[float]:
    """Seconds since each stamped record in a chunk was sent; the relay's own words have no stamp."""
    now, late, start = time.perf_counter(), [], 0
    while start < len(chunk):
        size, kind = int.from_bytes(chunk[start : start + 4], "big"), chunk[start + PREFIX_BYTES - 1]
        if kind == RecordKind.DATA:
            late.append(now - _STAMP.unpack_from(chunk, start + PREFIX_BYTES)[0])
        start += PREFIX_BYTES + size
    return late


@dataclass(slots=True, eq=False)
class Flow:
    """One stream at its node."""

    node: Puppet
    sid: Sid
    number: int = 0

    def piece(self) -> None:
        """Send the next piece, stamped."""
        self.node.piece(self.sid, self.number, a_stamped_piece())
        self.number += 1

    def end(self) -> None:
        """Say that this was all."""
        self.node.end.end(self.sid, self.number, DONE, self.node.slots)
        self.node.flush()


def flows(
    wires: Wires, here: Program, there: Program, streams: int, on_chunk: Callable[[Reader, bytes], None]
) -> list[Flow]:
    """So many streams that have begun, each read by a client of its own `here` and sent by a node `there`."""
    begun: list[Flow] = []

    def begin(node: Puppet, event: NodeEvent) -> None:
        if isinstance(event, Offered):
            node.end.accept(event.sid, 0)
            begun.append(Flow(node, event.sid))

    count = -(-streams // 64)
    nodes = puppets(wires, there.url, count, on_event=begin)
    until(lambda: len(nodes_at(here)) == count, f"{count} nodes to be known")
    for number in range(streams):
        Reader(wires, here.url, on_chunk=on_chunk).submit(nodes[number % len(nodes)].id, a_request()[1])
        wires.turn()
    wires.until(lambda: len(begun) == streams, "all streams to begin")
    return begun


def pace(wires: Wires, turns: Sequence[Callable[[], object]], rate: float, seconds: float) -> None:
    """Call each of `turns` `rate` times a second, spread evenly, and let everybody read between."""
    each = 1 / (rate * len(turns))
    began = time.perf_counter()
    done, total = 0, int(seconds / each)
    while done < total:
        due = min(total, int((time.perf_counter() - began) / each))
        for number in range(done, due):
            turns[number % len(turns)]()
        done = due
        wires.turn(each if len(turns) * rate < 500 else 0.0005)


@dataclass(frozen=True, slots=True)
class Crowded:
    """What so many streams were like."""

    streams: int
    per_piece: float
    """µs of processor time, of both relays together where there are two."""
    speed: float
    """Pieces per second."""
    median: float
    p99: float
    """Seconds from a node's send to the client's receive."""
    relay: float
    load: float
    """The part of a core that the relays and this process took."""
    waited: float
    """The part of the time that all together were kept from a core by other programs; latencies hold only near 0."""


def crowd(here: Program, there: Program, *, streams: int, rate: float, seconds: float) -> Crowded:
    """So many streams of `rate` pieces a second each: clients `here`, nodes `there`, which may be the same relay."""
    late: list[float] = []

    def heard(_: Reader, chunk: bytes) -> None:
        late.extend(lateness(chunk))

    relays = {here, there}
    pids = (os.getpid(), *(relay.pid for relay in relays))
    with wired() as wires:
        turns = [flow.piece for flow in flows(wires, here, there, streams, heard)]
        pace(wires, turns, rate, 3.0)
        late.clear()
        spent, own, began = sum(map(cpu, relays)), time.process_time(), time.perf_counter()
        waited = sum(map(kept_waiting, pids))
        pace(wires, turns, rate, seconds)
        took, spent, own = time.perf_counter() - began, sum(map(cpu, relays)) - spent, time.process_time() - own
        waited = sum(map(kept_waiting, pids)) - waited
    return Crowded(
        streams=streams,
        per_piece=spent / len(late) * 1e6,
        speed=len(late) / took,
        median=statistics.median(late),
        p99=percentile(late, 0.99),
        relay=spent / took,
        load=own / took,
        waited=waited / took,
    )
