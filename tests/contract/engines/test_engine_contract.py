"""What every engine does alike; one body, inherited by each engine."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from tokenplace.errors import EngineCrashed, EngineError
from tokenplace.node.engines.base import Engine
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.engines.endpoint import Endpoint
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.node.engines.llama_child import ChildConfig
from tokenplace.node.engines.upstream import UpstreamEngine
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

CHAT = "/v1/chat/completions"
SMOL = ModelId("smollm2-135m-instruct")
LONG = "apple banana cherry " * 500  # some 1,500 tokens: seconds of computing
FREED_WITHIN = 2.5
"""Seconds. The answers that are left would go on for 3 s at least."""
COMPUTED = 10.0
"""The same where a model computes them: they would go on for 15 s at least, and on a busy machine for longer."""


PIECE = 0.002


class TinyOpenAI:
    """A real server on a real socket, that can misbehave.

    Streams "word " until max_tokens. `ending` is how a stream ends: done, no_done, cut."""

    def __init__(self, models: Sequence[Mapping[str, Any]] = ({"id": "tiny"},), key: str | None = None) -> None:
        self.models = list(models)
        self.key = key
        self.busy = 0
        self.ending = "done"
        self.asked: list[Mapping[str, Any]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            method, path, _ = head[0].split()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                await self._json(writer, 401, {"error": {"message": "no"}})
            elif (method, path) == ("GET", "/v1/models"):
                await self._json(writer, 200, {"object": "list", "data": self.models})
            elif path in ("/v1/chat/completions", "/v1/completions"):
                self.asked.append(body)
                await self._stream(reader, writer, path, body)
            else:
                await self._json(writer, 404, {"error": {"message": "no such path"}})
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _json(self, writer: asyncio.StreamWriter, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        writer.write(
            f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body)
        await writer.drain()

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: Mapping[str, Any]
    ) -> None:
        self.busy += 1
        gone = asyncio.create_task(reader.read(1))
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for event in self._events(path, body):
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.wait([gone], timeout=PIECE)
                if gone.done():
                    return
            if self.ending != "cut":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        finally:
            gone.cancel()
            self.busy -= 1

    def _events(self, path: str, body: Mapping[str, Any]) -> list[bytes]:
        base = {"id": "x", "created": 1, "model": body.get("model")}
        chat = path.endswith("/chat/completions")
        base["object"] = "chat.completion.chunk" if chat else "text_completion"
        words = int(body.get("max_tokens", 16))
        said = {"delta": {"content": "word "}} if chat else {"text": "word "}
        last: dict[str, object] = {"delta": {}} if chat else {"text": ""}
        pieces: list[dict[str, object]] = [{"index": 0, **said, "finish_reason": None} for _ in range(words)]
        pieces.append({"index": 0, **last, "finish_reason": "length"})
        events: list[dict[str, object]] = [{**base, "choices": [piece]} for piece in pieces]
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 1, "completion_tokens": words, "total_tokens": words + 1}
            events.append({**base, "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
        return [*lines, b"data: [DONE]\n\n"] if self.ending == "done" else lines


@asynccontextmanager
async def tiny_openai(server: TinyOpenAI | None = None) -> AsyncIterator[TinyOpenAI]:
    """A server for as long as the block."""
    server = server or TinyOpenAI()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Bench(Protocol):
    """An engine under test, and two ways to look behind it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def freed_within(self) -> float: ...

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


async def busy(bench: Bench) -> bool:
    """Whether it answers somebody now."""
    return await bench.busy() == 1


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
            await until(lambda: busy(bench))
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
        await until(lambda: self.busy_is(bench, 0), within=bench.freed_within)

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
        async with asyncio.timeout(20):
            await waiting

    async def test_it_can_be_started_again_after_stop(self, bench: Bench) -> None:
        await bench.engine.stop()
        await bench.engine.start()
        assert bench.engine.ready
        events((await read(bench.engine, CHAT, self.chat(bench.engine)))[2])

    async def is_free(self, bench: Bench) -> None:
        await until(lambda: self.busy_is(bench, 0), within=bench.freed_within)

    async def busy_is(self, bench: Bench, count: int) -> bool:
        return await bench.busy() == count


class EchoBench:
    freed_within = FREED_WITHIN

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
    freed_within = FREED_WITHIN

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
    entry = Catalogue.load().weights_of(SMOL)
    return Weights(NodeSettings().weights_dir).ensure(entry).path


class LlamaBench:
    freed_within = COMPUTED

    def __init__(self, model: Path) -> None:
        self.engine = LlamaEngine(
            model, ModelCard(SMOL, 8192, ("chat", "completions")), LlamaOptions(slots=3, context=2048, threads=1)
        )
        self._pid = 0
        self._socket = Path()

    async def start(self) -> None:
        await self.engine.start()
        assert self.engine.pid is not None
        assert self.engine.socket is not None
        self._pid, self._socket = self.engine.pid, self.engine.socket

    async def busy(self) -> int:
        return await self.engine.busy_slots()

    def left(self) -> list[str]:
        process = [f"process {self._pid}"] if psutil.pid_exists(self._pid) else []
        return [*process, *(str(path) for path in (self._socket, self._socket.parent) if path.exists())]


@pytest.mark.model
class TestLlama(EngineContract):
    long_prompt = LONG

    @pytest.fixture
    async def bench(self, model_file: Path) -> AsyncIterator[LlamaBench]:
        bench = LlamaBench(model_file)
        await bench.start()
        yield bench
        await bench.engine.stop()
        assert bench.left() == []


class UpstreamOnLlamaBench:
    """The upstream engine in front of a real llama.cpp server, over TCP."""

    freed_within = COMPUTED

    def __init__(self, address: str, key: str) -> None:
        self.engine = UpstreamEngine(f"{address}/v1", key=key)
        self.server = Endpoint(address, key=key)

    async def busy(self) -> int:
        return sum(slot["is_processing"] for slot in await self.server.get_json("/slots"))

    def left(self) -> list[str]:
        return []


@pytest.mark.model
class TestUpstreamOnLlama(EngineContract):
    @pytest.fixture
    async def bench(self, model_file: Path) -> AsyncIterator[UpstreamOnLlamaBench]:
        config = ChildConfig(
            model=str(model_file), key="the key", socket=None, slots=3, context=2048, threads=1, batch=64,
            reuse_prompts=False, cache_ram_mib=0, gpu_layers=0, split=(), vision=None, adapters=(), embeddings=False,
        )  # fmt: skip
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "tokenplace.node.engines.llama_child", stdin=PIPE, stdout=PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b'{"confine": true, "network": true}\n' + config.line())
        assert "devices" in json.loads(await child.stdout.readline())
        bench = UpstreamOnLlamaBench(json.loads(await child.stdout.readline())["ready"], "the key")
        await bench.engine.start()
        yield bench
        await bench.engine.stop()
        await bench.server.close()
        child.stdin.close()
        await child.wait()


class TestUpstreamApart:
    """What only a server of somebody else's can do to us."""

    async def test_without_v1_or_with_it_the_address_means_the_same(self) -> None:
        async with tiny_openai() as server:
            for url in (server.url, f"{server.url}/", f"{server.url}/v1", f"{server.url}/v1/"):
                engine = UpstreamEngine(url)
                await engine.start()
                assert [card.id for card in engine.models] == ["tiny"]
                await engine.stop()

    @pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", ""])
    def test_an_address_of_another_kind_is_refused(self, url: str) -> None:
        with pytest.raises(EngineError, match="http://"):
            UpstreamEngine(url)

    async def test_a_server_that_is_not_there_is_told(self) -> None:
        async with tiny_openai() as server:
            url = server.url
        engine = UpstreamEngine(url)
        with pytest.raises(EngineError, match=f"Nothing answers at {url}"):
            await engine.start()
        assert not engine.ready

    @pytest.mark.parametrize(
        ("listed", "context"),
        [
            ({"id": "m", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}, 2048),
            ({"id": "m", "max_model_len": 32768}, 32768),
            ({"id": "m", "context_length": 131072}, 131072),
            ({"id": "m", "meta": None, "max_model_len": "many"}, 1234),
            ({"id": "m"}, 1234),
        ],
    )
    async def test_the_context_is_what_the_server_tells_or_else_what_was_configured(
        self, listed: dict[str, Any], context: int
    ) -> None:
        async with tiny_openai(TinyOpenAI([listed])) as server:
            engine = UpstreamEngine(server.url, context=1234)
            await engine.start()
            assert engine.models[0].context == context
            await engine.stop()

    async def test_only_the_models_that_were_named_are_served_and_under_our_names(self) -> None:
        async with tiny_openai(TinyOpenAI([{"id": "llama3.1:8b"}, {"id": "other"}])) as server:
            engine = UpstreamEngine(server.url, names={ModelId("llama-3-8b-instruct"): "llama3.1:8b"})
            await engine.start()
            assert [card.id for card in engine.models] == ["llama-3-8b-instruct"]
            await read(engine, CHAT, {"model": "llama-3-8b-instruct", "max_tokens": 1})
            assert server.asked[0]["model"] == "llama3.1:8b"
            await engine.stop()

    async def test_a_named_model_that_is_not_there_is_told_with_those_that_are(self) -> None:
        async with tiny_openai(TinyOpenAI([{"id": "b"}, {"id": "a"}])) as server:
            with pytest.raises(EngineError, match="has no model 'c'; it has a, b"):
                await UpstreamEngine(server.url, names={ModelId("c"): "c"}).start()

    async def test_a_server_without_models_is_refused(self) -> None:
        async with tiny_openai(TinyOpenAI([])) as server:
            with pytest.raises(EngineError, match="load one there first"):
                await UpstreamEngine(server.url).start()

    async def test_the_key_travels_in_its_header_and_a_wrong_one_is_told(self) -> None:
        async with tiny_openai(TinyOpenAI(key="secret")) as server:
            engine = UpstreamEngine(server.url, key="secret")
            await engine.start()
            assert "secret" not in repr(vars(engine).get("_endpoint"))
            await engine.stop()
            with pytest.raises(EngineError, match="status 401"):
                await UpstreamEngine(server.url, key="wrong").start()

    @pytest.mark.parametrize("ending", ["no_done", "cut"])
    async def test_a_stream_that_stops_without_done_is_a_crash_and_no_ending(self, ending: str) -> None:
        async with tiny_openai() as server:
            engine = UpstreamEngine(server.url)
            await engine.start()
            server.ending = ending
            with pytest.raises(EngineCrashed):
                await read(engine, CHAT, {"model": "tiny", "max_tokens": 3})
            await engine.stop()

    async def test_a_server_that_goes_away_is_noticed_and_one_that_comes_back_too(self) -> None:
        async with tiny_openai() as server:
            engine = UpstreamEngine(server.url, look_every=0.02)
            await engine.start()
            await server.stop()
            async with asyncio.timeout(10):
                await engine.wait_ready(False)
                await server.start()
                await engine.wait_ready()
            await engine.stop()

    async def test_a_request_that_finds_nobody_makes_the_engine_look_at_once(self) -> None:
        async with tiny_openai() as server:
            engine = UpstreamEngine(server.url, look_every=3600)
            await engine.start()
            await server.stop()
            with pytest.raises(EngineError):
                await read(engine, CHAT, {"model": "tiny"})
            async with asyncio.timeout(10):
                await engine.wait_ready(False)
            await engine.stop()

    async def test_an_answer_under_way_raises_when_the_engine_is_stopped(self) -> None:
        async with tiny_openai() as server:
            engine = UpstreamEngine(server.url)
            await engine.start()
            asking = asyncio.create_task(read(engine, CHAT, {"model": "tiny", "max_tokens": 5000}))
            async with asyncio.timeout(10):
                while not server.busy:
                    await asyncio.sleep(0.01)
            await engine.stop()
            with pytest.raises(EngineCrashed):
                await asking
