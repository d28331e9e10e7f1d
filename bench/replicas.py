"""Two replicas over a real store beside one relay, in turns: processor time per piece, and how much later it is."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench.crowd import QUIET, Crowded, crowd
from puppets import Puppet, Reader, a_piece, a_request, puppets, wired
from stage import Program, Stage, get_json, nodes_at, until
from store import Store
from tokenplace.link.events import NodeEvent, Offered

_WARM = 50
_REST = 0.005
"""Seconds between two requests, so that each finds everybody idle."""


@dataclass(frozen=True, slots=True)
class Later:
    """A whole short answer, asked at the node's own replica and at the other one, in turns."""

    near: float
    far: float
    """Seconds, at the median."""
    pairs: tuple[float, float, float]
    """How much later the far one of two in a row is: quartiles."""


def beside(stage: Stage, store: Store, *, streams: int, rate: float, seconds: float) -> tuple[Crowded, Crowded]:
    """(one relay, two replicas with the clients at one and the nodes at the other)."""
    alone = stage.relay("--blind", name=f"alone-{streams}", env=QUIET)
    one = crowd(alone, alone, streams=streams, rate=rate, seconds=seconds)
    alone.end()
    here, there = _pair(stage, store, f"load-{streams}")
    two = crowd(here, there, streams=streams, rate=rate, seconds=seconds)
    for relay in (here, there):
        relay.end()
    return one, two


def later(stage: Stage, store: Store, rounds: int) -> Later:
    """With nothing else going on: three records from a node that answers at once."""
    here, there = _pair(stage, store, "quiet")
    piece = a_piece()

    def answer(node: Puppet, event: NodeEvent) -> None:
        if isinstance(event, Offered):
            node.answer(event.sid, 3, piece)

    found: dict[str, list[float]] = {here.url: [], there.url: []}
    with wired() as wires:
        (node,) = puppets(wires, there.url, 1, on_event=answer)
        until(lambda: len(nodes_at(here)) == 1, "the node to be known")
        readers = [Reader(wires, relay.url) for relay in (there, here)]
        for number in range(rounds + _WARM):
            for reader in readers:
                sealed = a_request()[1]
                began = time.perf_counter()
                reader.submit(node.id, sealed)
                while reader.busy:
                    wires.turn(0.1)
                took = time.perf_counter() - began
                assert reader.status == 200, reader.body
                if number >= _WARM:
                    found[reader.url].append(took)
                wires.spend(_REST)
    for relay in (here, there):
        relay.end()
    near, far = found[there.url], found[here.url]
    low, middle, high = statistics.quantiles([two - one for one, two in zip(near, far, strict=True)], n=4)
    return Later(statistics.median(near), statistics.median(far), (low, middle, high))


def _pair(stage: Stage, store: Store, name: str) -> tuple[Program, Program]:
    here, there = (
        stage.relay("--blind", "--store", store.url, name=f"{name}-{side}", env=QUIET) for side in ("here", "there")
    )
    until(lambda: all(get_json(f"{relay.url}/healthz")["replicas"] == 1 for relay in (here, there)), "them to meet")
    return here, there
