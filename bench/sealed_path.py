"""The sealed path beside the bare engine: same weights, same settings, in turns."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stage import EMBEDDED, Stage
from tokenplace.client.client import Client
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue
from tokenplace.openai.events import EventParser
from tokenplace.wire.card import ModelCard

SLOTS, CONTEXT = 8, 2048
_PROMPT = "Write a long story about a lighthouse keeper and the sea. Story number {number}."


@dataclass(frozen=True)
class Timed:
    """One answer: seconds to its first token, seconds in all, tokens."""

    first: float
    whole: float
    tokens: int


Ask = Callable[[int, int], Awaitable[Timed]]
"""(number, max tokens) → how it went."""


def body(number: int, tokens: int) -> dict[str, object]:
    """The same request for both ways."""
    return {
        "model": EMBEDDED,
        "messages": [{"role": "user", "content": _PROMPT.format(number=number)}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "temperature": 0,
        "seed": number,
    }


class Watch:
    """Times an answer from its chunks, alike for both ways."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first = 0.0
        self._tokens = 0

    def take(self, chunk: dict[str, object]) -> None:
        for choice in chunk.get("choices") or ():  # type: ignore[attr-defined]
            if choice["delta"].get("content") and not self._first:
                self._first = time.perf_counter() - self._began
        if usage := chunk.get("usage"):
            self._tokens = usage["completion_tokens"]  # type: ignore[index]

    def stop(self) -> Timed:
        return Timed(self._first, time.perf_counter() - self._began, self._tokens)


def bare_engine() -> LlamaEngine:
    """An engine of our own, asked without anything between."""
    entry = Catalogue.load().weights_of(EMBEDDED)
    path = Weights(NodeSettings().weights_dir).locate(entry)
    card = ModelCard(entry.id, CONTEXT)
    return LlamaEngine(path, card, LlamaOptions(slots=SLOTS, context=CONTEXT))


def directly(engine: LlamaEngine) -> Ask:
    """The engine's own server, over its socket."""

    async def ask(number: int, tokens: int) -> Timed:
        watch, parser = Watch(), EventParser()
        async with engine.open("/v1/chat/completions", {**body(number, tokens), "top_p": 0.9}) as answer:
            async for piece in answer.chunks():
                for event in parser.feed(piece):
                    if not event.done:
                        watch.take(json.loads(event.data))
        return watch.stop()

    return ask


def sealed(client: Client) -> Ask:
    """Client, relay, node, engine: each a process of its own."""

    async def ask(number: int, tokens: int) -> Timed:
        watch = Watch()
        options = body(number, tokens)
        messages = options.pop("messages")
        options.pop("stream")
        async for chunk in client.stream(messages, **options):  # type: ignore[arg-type]
            watch.take(chunk)
        return watch.stop()

    return ask


async def rate(ask: Ask, streams: int, tokens: int) -> float:
    """Tokens per second of all streams together."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(ask(number, tokens) for number in range(streams)))
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - began)


@dataclass(frozen=True)
class Compared:
    """Medians over the rounds."""

    direct: float
    sealed: float
    ratio: float
    low: float
    high: float


async def compare(direct: Ask, through: Ask, streams: int, tokens: int, rounds: int) -> Compared:
    """Tokens per second in turns; the ratio is taken round by round."""
    pairs = []
    for turn in range(rounds):
        order = (direct, through) if turn % 2 == 0 else (through, direct)
        measured = {ask: await rate(ask, streams, tokens) for ask in order}
        pairs.append((measured[direct], measured[through]))
    ratios = sorted(b / a for a, b in pairs)
    return Compared(
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(ratios),
        ratios[0],
        ratios[-1],
    )


async def first_tokens(direct: Ask, through: Ask, rounds: int) -> tuple[float, float]:
    """Median seconds to the first token: bare, and how much later over the sealed path."""
    pairs = []
    for turn in range(rounds):
        order = (direct, through) if turn % 2 == 0 else (through, direct)
        measured = {ask: (await ask(turn, 4)).first for ask in order}
        pairs.append((measured[direct], measured[through] - measured[direct]))
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


async def stand(stage: Stage) -> tuple[LlamaEngine, Client]:
    """Both ways, warm."""
    engine = bare_engine()
    await engine.start()
    relay = stage.relay("--blind", name="relay-sealed")
    flags = ["--slots", str(SLOTS), "--context", str(CONTEXT)]
    stage.node(relay, engine="llama", flags=flags, name="sealed-node")
    return engine, Client([relay.url])
