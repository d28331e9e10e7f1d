"""What the relay spends: processor time of its process per forwarded piece and per request (echo engine)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from bench.load import Asker, ask, chat_call, listings
from stage import Program, Stage, metric

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(program: Program) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pieces(relay: Program) -> float:
    """Pieces forwarded so far."""
    return metric(relay, "tokenplace_relay_pieces_total")


async def per_piece(stage: Stage, *, streams: int, rate: float, seconds: float) -> tuple[float, float]:
    """(µs of processor time per piece, pieces per second) with so many streams at `rate` pieces each per second."""
    relay = stage.relay("--blind", name="relay-pieces", env={"TOKENPLACE_LOG_LEVEL": "WARNING"})
    count = -(-streams // 64)
    for number in range(count):
        stage.node(relay, delay=1 / rate, flags=["--slots", "64"], name=f"piece-node-{number}")
    nodes = await listings(relay.url, count)
    call = chat_call(" ".join("word" for _ in range(int(rate * (seconds + 8)))))
    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            group.create_task(ask(relay.url, nodes[number % count], call))
        await asyncio.sleep(3.0)  # all streams flow
        before, began, spent = pieces(relay), time.monotonic(), cpu_seconds(relay)
        await asyncio.sleep(seconds)
        moved, spent, took = pieces(relay) - before, cpu_seconds(relay) - spent, time.monotonic() - began
    relay.end()
    return spent / moved * 1e6, moved / took


async def per_request(stage: Stage, *, requests: int, together: int) -> tuple[float, float, float]:
    """(µs of processor time per request with its whole short answer, requests per second, pieces each)."""
    relay = stage.relay("--blind", name="relay-requests", env={"TOKENPLACE_LOG_LEVEL": "WARNING"})
    stage.node(relay, flags=["--slots", "64"], name="request-node")
    nodes = await listings(relay.url, 1)
    call = chat_call("hi")

    async def several(count: int) -> None:
        async with Asker(relay.url, nodes[0]) as asker:
            for _ in range(count):
                await asker.ask(call)

    await several(50)
    before, spent, began = pieces(relay), cpu_seconds(relay), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(together):
            group.create_task(several(requests // together))
    spent, took, moved = cpu_seconds(relay) - spent, time.monotonic() - began, pieces(relay) - before
    relay.end()
    return spent / requests * 1e6, requests / took, moved / requests
