"""Two replicas over a real store beside one relay, in turns: processor time per piece, and how much later it is."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

from bench.load import Asker, ask, chat_call, listings
from bench.relay_cost import cpu_seconds, pieces
from stage import Program, Stage
from store import Store
from tokenplace.wire.messages import Listing

_QUIET = {"TOKENPLACE_LOG_LEVEL": "WARNING", "API_RATE_LIMIT": "", "API_DAILY_QUOTA": ""}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of forwarding spends."""

    per_piece: float
    """µs of processor time, of all relays on the way together."""
    shares: tuple[float, ...]
    """… of each."""
    speed: float
    """Pieces per second."""
    round_trip: float
    """Seconds for a whole short answer beside that load, at the median."""


async def beside(stage: Stage, store: Store, *, streams: int, rate: float, seconds: float) -> tuple[Cost, Cost]:
    """(one relay, two replicas with the clients at one and the nodes at the other)."""
    alone = stage.relay("--blind", name=f"alone-{streams}", env=_QUIET)
    one = await _measured(stage, alone, alone, streams=streams, rate=rate, seconds=seconds)
    alone.end()
    here, there = _pair(stage, store, f"load-{streams}")
    two = await _measured(stage, here, there, streams=streams, rate=rate, seconds=seconds)
    for relay in (here, there):
        relay.end()
    return one, two


async def later(stage: Stage, store: Store, rounds: int) -> tuple[float, float]:
    """Medians of (a whole short answer at the node's own replica, at the other one), in turns, in seconds."""
    here, there = _pair(stage, store, "quiet")
    stage.node(there, flags=["--slots", "8"], name="quiet-node")
    node = (await listings(here.url, 1))[0]
    found: dict[str, list[float]] = {here.url: [], there.url: []}
    async with Asker(here.url, node) as far, Asker(there.url, node) as near:
        for number in range(rounds + 20):
            for url, asker in ((here.url, far), (there.url, near)):
                began = time.perf_counter()
                await asker.ask(chat_call("hi"))
                if number >= 20:
                    found[url].append(time.perf_counter() - began)
    for relay in (here, there):
        relay.end()
    return statistics.median(found[there.url]), statistics.median(found[here.url])


def _pair(stage: Stage, store: Store, name: str) -> tuple[Program, Program]:
    here, there = (
        stage.relay("--blind", "--store", store.url, name=f"{name}-{side}", env=_QUIET) for side in ("here", "there")
    )
    return here, there


async def _measured(stage: Stage, here: Program, there: Program, *, streams: int, rate: float, seconds: float) -> Cost:
    """Clients at `here`, nodes at `there`, which may be the same."""
    count = -(-streams // 64) + 1
    for number in range(count):
        delay = 0.0 if number == 0 else 1 / rate
        stage.node(there, delay=delay, flags=["--slots", "64"], name=f"{there.name}-node-{number}")
    nodes = sorted(await listings(here.url, count), key=lambda listing: listing.card.node)
    quick = await _quickest(here, nodes)
    nodes.remove(quick)
    call = chat_call(" ".join("word" for _ in range(int(rate * (seconds + 12)))))
    relays = [here] if here is there else [here, there]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(here.url, nodes[number % len(nodes)], call)) for number in range(streams)]
        await asyncio.sleep(4.0)  # all streams flow
        before, began, spent = pieces(there), time.monotonic(), [cpu_seconds(relay) for relay in relays]
        trips: list[float] = []
        async with Asker(here.url, quick) as asker:
            while time.monotonic() - began < seconds:
                asked = time.perf_counter()
                await asker.ask(chat_call("hi"))
                trips.append(time.perf_counter() - asked)
                await asyncio.sleep(0.02)
        moved, took = pieces(there) - before, time.monotonic() - began
        shares = [(cpu_seconds(relay) - old) / moved * 1e6 for relay, old in zip(relays, spent, strict=True)]
        for task in tasks:
            task.cancel()
    return Cost(sum(shares), tuple(shares), moved / took, statistics.median(trips))


async def _quickest(relay: Program, nodes: list[Listing]) -> Listing:
    """The node that answers at once, found by asking each for one word."""
    times: dict[str, float] = {}
    for node in nodes:
        began = time.perf_counter()
        await ask(relay.url, node, chat_call("one two three four"))
        times[node.card.node] = time.perf_counter() - began
    return min(nodes, key=lambda listing: times[listing.card.node])
