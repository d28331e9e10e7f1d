"""What every engine does alike; one body, inherited by each engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from tiny_openai import TinyOpenAI, tiny_openai

from tokenplace.errors import EngineError
from tokenplace.node.engines.base import Engine
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.node.engines.upstream import UpstreamEngine
from tokenplace.node.weights import Weights, default_models_dir
from tokenplace.openai.catalogue import Catalogue
from tokenplace.wire.card import ModelCard

CHAT = "/v1/chat/completions"
FREED_WITHIN = 1.0


class Bench(Protocol):
    """An engine under test, and a way to look behind it."""

    @property
    def engine(self) -> Engine: ...
    async def busy(self) -> int: ...
    def left(self) -> list[str]: ...


async def until(true: Callable[[], Awaitable[bool]], *, within: float = 10.0) -> float:
    """Look again and again; returns the seconds it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.timeout(within):
        while not await true():
            await asyncio.sleep(0.01)
    return loop.time() - start


async def read(engine: Engine, path: str, body: dict[str, Any]) -> tuple[int, str, bytes]:
    async with engine.open(path, body) as answer:
        return answer.status, answer.content_type, b"".join([chunk async for chunk in answer.chunks()])


def events(body: bytes) -> list[dict[str, Any]]:
    """The stream's events; fails unless it is one of data lines that ends in [DONE]."""
    lines = [line for line in body.decode().split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


class EngineContract:
    """The body. A subclass gives `bench`: a warm engine."""

    prompt = "Tell me a long story about a lighthouse keeper and the sea."
    long_prompt = "apple banana cherry " * 40

    def chat(self, engine: Engine, **fields: Any) -> dict[str, Any]:
        return {
            "model": engine.models[0].id,
            "messages": [{"role": "user", "content": self.prompt}],
            "stream": True,
            "max_tokens": 5,
            **fields,
        }

    def endless(self, engine: Engine) -> dict[str, Any]:
        return self.chat(engine, max_tokens=1500, ignore_eos=True)

    async def test_it_is_ready_and_says_what_it_serves(self, bench: Bench) -> None:
        assert bench.engine.ready
        assert bench.engine.slots >= 1
        [card, *_] = bench.engine.models
        assert card.context >= 512

    async def test_a_chat_streams_events_and_ends_in_done(self, bench: Bench) -> None:
        status, content_type, body = await read(bench.engine, CHAT, self.chat(bench.engine))
        assert (status, content_type) == (200, "text/event-stream")
        chunks = events(body)
        assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert await bench.busy() == 0

    async def test_a_completion_streams_events_and_ends_in_done(self, bench: Bench) -> None:
        body = {"model": bench.engine.models[0].id, "prompt": "One two three", "stream": True, "max_tokens": 3}
        status, content_type, got = await read(bench.engine, "/v1/completions", body)
        assert (status, content_type) == (200, "text/event-stream")
        assert events(got)[-1]["choices"][0]["finish_reason"] in ("length", "stop")

    async def test_usage_comes_last_when_it_is_asked_for(self, bench: Bench) -> None:
        body = self.chat(bench.engine, stream_options={"include_usage": True})
        last = events((await read(bench.engine, CHAT, body))[2])[-1]
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 5
        assert last["usage"]["total_tokens"] == 5 + last["usage"]["prompt_tokens"]

    async def test_an_answer_may_end_before_the_limit_is_reached(self, bench: Bench) -> None:
        body = self.chat(bench.engine, max_tokens=1)
        assert events((await read(bench.engine, CHAT, body))[2])[-1]["choices"][0]["finish_reason"] == "length"

    async def test_leaving_after_the_first_piece_frees_the_slot(self, bench: Bench) -> None:
        async with bench.engine.open(CHAT, self.endless(bench.engine)) as answer:
            async for _ in answer.chunks():
                break
            assert await bench.busy() == 1
        await self.is_free(bench)

    async def test_leaving_without_reading_frees_the_slot(self, bench: Bench) -> None:
        async with bench.engine.open(CHAT, self.endless(bench.engine)):
            pass
        await self.is_free(bench)

    async def test_leaving_while_the_prompt_is_computed_frees_the_slot(self, bench: Bench) -> None:
        body = self.endless(bench.engine)
        body["messages"] = [{"role": "user", "content": self.long_prompt}]

        async def ask() -> None:
            await read(bench.engine, CHAT, body)

        asking = asyncio.create_task(ask())
        await until(lambda: self.busy_is(bench, 1))
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await self.is_free(bench)

    async def test_several_answers_go_on_at_once(self, bench: Bench) -> None:
        """Each of three has begun while none has ended."""
        begun = [asyncio.Event() for _ in range(3)]

        async def ask(number: int) -> None:
            async with bench.engine.open(CHAT, self.endless(bench.engine)) as answer:
                async for _ in answer.chunks():
                    begun[number].set()

        asking = [asyncio.create_task(ask(number)) for number in range(3)]
        async with asyncio.timeout(30):
            for event in begun:
                await event.wait()
        assert not any(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        await self.is_free(bench)

    async def test_an_unknown_path_is_refused_and_not_waited_for(self, bench: Bench) -> None:
        async with asyncio.timeout(5):
            status, content_type, body = await read(bench.engine, "/v1/frobnicate", {"stream": True})
        assert status in (404, 501)
        assert content_type == "application/json"
        assert "error" in json.loads(body)

    async def test_stop_leaves_nothing_and_may_be_called_twice(self, bench: Bench) -> None:
        await read(bench.engine, CHAT, self.chat(bench.engine))
        async with asyncio.timeout(5):
            await bench.engine.stop()
            await bench.engine.stop()
        assert bench.left() == []
        assert not bench.engine.ready

    async def test_a_stopped_engine_refuses(self, bench: Bench) -> None:
        await bench.engine.stop()
        with pytest.raises(EngineError):
            async with bench.engine.open(CHAT, self.chat(bench.engine)):
                pass

    async def test_who_waits_learns_that_it_went_down(self, bench: Bench) -> None:
        await bench.engine.wait_ready()
        waiting = asyncio.create_task(bench.engine.wait_ready(False))
        await asyncio.sleep(0)
        assert not waiting.done()
        await bench.engine.stop()
        async with asyncio.timeout(1):
            await waiting

    async def test_it_can_be_started_again_after_stop(self, bench: Bench) -> None:
        await bench.engine.stop()
        await bench.engine.start()
        assert bench.engine.ready
        events((await read(bench.engine, CHAT, self.chat(bench.engine)))[2])

    async def is_free(self, bench: Bench) -> None:
        await until(lambda: self.busy_is(bench, 0), within=FREED_WITHIN)

    async def busy_is(self, bench: Bench, count: int) -> bool:
        return await bench.busy() == count


class EchoBench:
    def __init__(self) -> None:
        self.engine = EchoEngine(delay=0.002)

    async def busy(self) -> int:
        return await self.engine.busy_slots()

    def left(self) -> list[str]:
        return []


class TestEcho(EngineContract):
    prompt = "word " * 5000

    @pytest.fixture
    async def bench(self) -> AsyncIterator[EchoBench]:
        bench = EchoBench()
        await bench.engine.start()
        yield bench
        await bench.engine.stop()


class UpstreamBench:
    def __init__(self, server: TinyOpenAI) -> None:
        self.server = server
        self.engine = UpstreamEngine(server.url)

    async def busy(self) -> int:
        return self.server.busy

    def left(self) -> list[str]:
        return [f"connection to {other.raddr}" for other in _connections_to(self.server.port)]


def _connections_to(port: int) -> list[Any]:
    mine = psutil.Process().net_connections(kind="tcp")
    return [one for one in mine if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED]


class TestUpstream(EngineContract):
    @pytest.fixture
    async def bench(self) -> AsyncIterator[UpstreamBench]:
        async with tiny_openai() as server:
            bench = UpstreamBench(server)
            await bench.engine.start()
            yield bench
            await bench.engine.stop()


@pytest.fixture(scope="session")
def model_file() -> Path:
    """The embedded model, fetched once per machine."""
    entry = Catalogue.load().weights_of("smollm2-135m-instruct")
    return Weights(default_models_dir(os.environ)).ensure(entry).path


class LlamaBench:
    def __init__(self, model: Path, *, tcp: bool = False) -> None:
        self.engine = LlamaEngine(
            model,
            ModelCard(Catalogue.load().models[0].id, 8192, ("chat", "completions")),
            LlamaOptions(slots=3, context=2048, threads=1, tcp=tcp),
        )
        self.pids: list[int] = []
        self.home: Path | None = None

    async def busy(self) -> int:
        return await self.engine.busy_slots()

    async def start(self) -> None:
        await self.engine.start()
        assert self.engine.pid is not None
        self.pids.append(self.engine.pid)
        self.home = self.engine.home

    def left(self) -> list[str]:
        left = [f"process {pid}" for pid in self.pids if psutil.pid_exists(pid)]
        if self.home is not None and self.home.exists():
            left.append(str(self.home))
        return left


@pytest.mark.model
class TestLlama(EngineContract):
    long_prompt = "apple banana cherry " * 500  # some 1,500 tokens: seconds of computing

    @pytest.fixture
    async def bench(self, model_file: Path) -> AsyncIterator[LlamaBench]:
        bench = LlamaBench(model_file)
        await bench.start()
        yield bench
        await bench.engine.stop()
        assert bench.left() == []


class UpstreamOnLlamaBench(LlamaBench):
    """The upstream engine in front of a real llama.cpp server, over TCP."""

    def __init__(self, model: Path) -> None:
        super().__init__(model, tcp=True)
        self.server = self.engine
        self.pids = []

    async def busy(self) -> int:
        return await self.server.busy_slots()


@pytest.mark.model
class TestUpstreamOnLlama(EngineContract):
    @pytest.fixture
    async def bench(self, model_file: Path) -> AsyncIterator[Bench]:
        server = LlamaBench(model_file, tcp=True)
        await server.start()
        try:
            engine = UpstreamEngine(server.engine.address, key=server.engine.key)
            await engine.start()
            yield _Through(engine, server)
            await engine.stop()
        finally:
            await server.engine.stop()


class _Through:
    def __init__(self, engine: Engine, server: LlamaBench) -> None:
        self.engine = engine
        self._server = server

    async def busy(self) -> int:
        return await self._server.busy()

    def left(self) -> list[str]:
        return []
