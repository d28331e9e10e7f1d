"""Many answers at once: the node's engine beside llama.cpp's plain server, same weights, same threads, in turns."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.sealed_path import Ask, Timed, Watch, body, directly
from stage import EMBEDDED
from tokenplace.node.engines.endpoint import Endpoint
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions, default_threads
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue
from tokenplace.openai.events import EventParser
from tokenplace.wire.card import ModelCard

SLOTS, CONTEXT = 16, 1024
SAME = {"top_p": 0.9, "cache_prompt": False}
"""What the node's engine says too. With its cache the plain server would skip the prompts that come again."""


def plainly(server: Endpoint) -> Ask:
    """The plain server, over its port."""

    async def ask(number: int, tokens: int) -> Timed:
        watch, parser = Watch(), EventParser()
        async with server.open("/v1/chat/completions", {**body(number, tokens), **SAME}) as answer:
            async for piece in answer.chunks():
                for event in parser.feed(piece):
                    if not event.done:
                        watch.take(json.loads(event.data))
        return watch.stop()

    return ask


@dataclass(frozen=True)
class Way:
    """One of the two: how to ask it, and the process that computes."""

    ask: Ask
    pid: int

    def spent(self) -> float:
        """Seconds of processor time so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True)
class Together:
    """So many answers at once. Rates are tokens per second, on the clock and per second of processor time."""

    streams: int
    plain: float
    ours: float
    ratio: float
    low: float
    high: float
    by_processor: float
    """Ours in relation to the plain server's, by processor time: what other programs take does not count."""


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Way, Way]]:
    """(plain, ours), warm."""
    entry = Catalogue.load().weights_of(EMBEDDED)
    path = Weights(NodeSettings().weights_dir).locate(entry)
    threads = default_threads()
    engine = LlamaEngine(
        path, ModelCard(entry.id, CONTEXT), LlamaOptions(slots=SLOTS, context=CONTEXT, threads=threads)
    )
    process = await _plain(path, threads)
    if process.stdout is None or process.stdin is None:
        raise RuntimeError("no pipes")
    server = Endpoint((await process.stdout.readline()).decode().strip())
    await engine.start()
    if engine.pid is None:
        raise RuntimeError("no engine")
    try:
        plain, ours = Way(plainly(server), process.pid), Way(directly(engine), engine.pid)
        for way in (plain, ours):
            await way.ask(0, 16)
        yield plain, ours
    finally:
        await engine.stop()
        await server.close()
        process.stdin.close()
        await process.wait()


async def _plain(path: Path, threads: int) -> Process:
    script = Path(__file__).with_name("plain_server.py")
    return await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(path), str(SLOTS), str(CONTEXT), str(threads), stdin=PIPE, stdout=PIPE
    )


async def _once(way: Way, streams: int, tokens: int) -> tuple[float, float]:
    """(tokens per second, tokens per second of processor time)."""
    began, spent = time.perf_counter(), way.spent()
    answers = await asyncio.gather(*(way.ask(number, tokens) for number in range(streams)))
    made = sum(answer.tokens for answer in answers)
    return made / (time.perf_counter() - began), made / (way.spent() - spent)


async def batching(rounds: int) -> AsyncIterator[Together]:
    """1, 4 and 16 answers together, the two in turns; ratios are taken round by round."""
    async with both() as (plain, ours):
        for streams, tokens in ((1, 128), (4, 96), (16, 96)):
            pairs = []
            for turn in range(rounds):
                order = (plain, ours) if turn % 2 == 0 else (ours, plain)
                found = {way.pid: await _once(way, streams, tokens) for way in order}
                pairs.append((found[plain.pid], found[ours.pid]))
            ratios = sorted(b[0] / a[0] for a, b in pairs)
            yield Together(
                streams,
                statistics.median(a[0] for a, _ in pairs),
                statistics.median(b[0] for _, b in pairs),
                statistics.median(ratios),
                ratios[0],
                ratios[-1],
                statistics.median(b[1] / a[1] for a, b in pairs),
            )
