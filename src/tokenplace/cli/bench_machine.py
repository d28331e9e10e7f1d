"""`tokenplace bench`: how fast this machine answers, and which model suits it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tokenplace.cli.models import progress_bar
from tokenplace.cli.node import settings_with
from tokenplace.cli.running import configure_logs
from tokenplace.errors import EngineError
from tokenplace.node.build import make_engine
from tokenplace.node.engines.base import Engine
from tokenplace.node.hardware import Sensors
from tokenplace.node.named import model_named
from tokenplace.node.roofline import Suggestion, read_bandwidth, suggestions
from tokenplace.node.settings import EMBEDDED
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue

CHAT = "/v1/chat/completions"
_PROMPT = "Tell a long story about a lighthouse, its keeper, the sea and the ships that pass by night. " * 12
_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. Speeds are tokens per second; `bandwidth` is bytes per second."""

    model: str
    model_bytes: int
    load_s: float
    prompt_tokens: int
    prompt_speed: float
    decode_speed: float
    streams: int
    streams_speed: float
    bandwidth: float
    suggested: tuple[Suggestion, ...]

    @property
    def roofline(self) -> float:
        """Tokens per second of one answer that reading the weights alone would allow."""
        return self.bandwidth / self.model_bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    prompt_tokens: int
    prompt_s: float
    tokens: int
    decode_s: float


def run(*, model: str | None, streams: int, tokens: int, as_json: bool) -> None:
    """Measure with the embedded engine and print."""
    configure_logs("ERROR")
    measured = asyncio.run(_measure(model or EMBEDDED, streams, tokens))
    if as_json:
        typer.echo(json.dumps({**asdict(measured), "roofline": round(measured.roofline, 1)}))
    else:
        _print(measured)


async def _measure(model: str, streams: int, tokens: int) -> Measured:
    settings = settings_with(engine="llama", model=model, slots=streams, embeddings=0)
    settings = settings.model_copy(update={"mock": False, "context": min(_CONTEXT, 1024 + tokens)})
    hardware = Sensors().hardware()
    bandwidth = await asyncio.to_thread(read_bandwidth, threads=hardware.cores, room=hardware.memory_free)
    catalogue = Catalogue.load()
    entry = model_named(catalogue, model)
    with progress_bar(entry.id) as tell:
        engine, _ = await asyncio.to_thread(make_engine, settings, tell)
    size = Weights(settings.weights_dir).locate(entry).stat().st_size
    began = time.perf_counter()
    await engine.start()
    try:
        load = time.perf_counter() - began
        served = engine.models[0].id
        await _ask(engine, served, 4)  # the first answer pays for what is made once
        alone = await _ask(engine, served, tokens)
        together = await asyncio.gather(*(_ask(engine, served, tokens, "Count.") for _ in range(streams)))
        longest = max(answer.decode_s for answer in together)
    finally:
        await engine.stop()
    decode = _per(alone.tokens, alone.decode_s)
    room = max([hardware.memory_free, *(gpu.free for gpu in hardware.gpus)])
    return Measured(
        model=entry.id,
        model_bytes=size,
        load_s=round(load, 2),
        prompt_tokens=alone.prompt_tokens,
        prompt_speed=_per(alone.prompt_tokens, alone.prompt_s),
        decode_speed=decode,
        streams=streams,
        streams_speed=_per(sum(answer.tokens for answer in together), longest),
        bandwidth=bandwidth,
        suggested=tuple(suggestions(catalogue.models, room=room, measured_bytes=size, tokens_per_second=decode)),
    )


def _per(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds > 0 else 0.0


async def _ask(engine: Engine, model: str, tokens: int, prompt: str = _PROMPT) -> _Answer:
    """One answer of exactly so many tokens, timed by the engine's own clock. Raises EngineError."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
        "cache_prompt": False,
        "timings_per_token": True,
    }
    timings: dict[str, Any] = {}
    buffer = b""
    async with engine.open(CHAT, body) as answer:
        async for chunk in answer.chunks():
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    timings = json.loads(line[6:]).get("timings") or timings
    try:
        return _Answer(
            int(timings["prompt_n"]),
            float(timings["prompt_ms"]) / 1000,
            int(timings["predicted_n"]),
            float(timings["predicted_ms"]) / 1000,
        )
    except (KeyError, TypeError, ValueError):
        raise EngineError("The engine does not tell its timings; only the embedded one can be measured.") from None


def _print(measured: Measured) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row("model", f"{measured.model} ({measured.model_bytes / 1e6:,.0f} MB), loaded in {measured.load_s} s")
    table.add_row("prompt", f"{measured.prompt_speed:,.1f} tokens/s ({measured.prompt_tokens} tokens)")
    table.add_row("one answer", f"{measured.decode_speed:,.1f} tokens/s")
    table.add_row(f"{measured.streams} at once", f"{measured.streams_speed:,.1f} tokens/s together")
    table.add_row(
        "roofline",
        f"{measured.bandwidth / 1e9:.1f} GB/s of memory ÷ {measured.model_bytes / 1e6:,.1f} MB per token = "
        f"{measured.roofline:,.0f} tokens/s; one answer reaches {measured.decode_speed / measured.roofline:.0%}",
    )
    console = Console()
    console.print(table)
    if not measured.suggested:
        console.print("\nNo larger model of the catalogue fits this machine's memory and speed.")
        return
    best, *rest = measured.suggested
    console.print(
        f"\nThe largest model that fits at reading speed: {best.model} "
        f"({best.bytes / 1e9:.1f} GB, about {best.tokens_per_second} tokens/s)"
    )
    for other in rest[:3]:
        console.print(f"  also: {other.model} ({other.bytes / 1e9:.1f} GB, about {other.tokens_per_second} tokens/s)")
    console.print(f"  tokenplace models pull {best.model}")
