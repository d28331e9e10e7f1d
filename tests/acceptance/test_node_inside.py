"""A node inside the test, at a real relay: what only its owner can see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from stage import EMBEDDED, Program, Stage, all_free, nodes_at, staged, until
from tokenplace.cli.node import settings_with, working_node
from tokenplace.cli.running import Stop
from tokenplace.client.client import Client
from tokenplace.errors import ApiError, JobFailed
from tokenplace.node.engines.llama import LlamaEngine
from tokenplace.node.service import NodeService
from tokenplace.sealing.identity import Identity

LONG = [{"role": "user", "content": "Count from one to two thousand in words, do not stop."}]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("inside")) as stage:
        yield stage.relay("--blind")


@asynccontextmanager
async def a_node(relay: Program, engine: str) -> AsyncIterator[NodeService]:
    settings = settings_with(engine=engine, slots=4, context=1024, echo_delay=0.02)
    async with working_node(Identity.generate(), settings, [relay.url], Stop()) as node:
        while not node.state.connected:
            await asyncio.sleep(0.02)
        yield node


def engine_of(node: NodeService) -> LlamaEngine:
    engine = node.engine
    assert isinstance(engine, LlamaEngine)
    return engine


@pytest.mark.model
async def test_leaving_an_answer_frees_the_engine_s_slot(relay: Program) -> None:
    async with a_node(relay, "llama") as node, Client([relay.url]) as client:
        engine = engine_of(node)
        for way in ("leave the stream", "cancel the task"):
            if way == "leave the stream":
                stream = client.stream(LONG, model=EMBEDDED, max_tokens=900)
                await anext(stream)
                assert await engine.busy_slots() == 1
                await stream.aclose()
            else:
                task = asyncio.create_task(client.chat(LONG, model=EMBEDDED, max_tokens=900))
                while not await engine.busy_slots():
                    await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with asyncio.timeout(5.0):  # a second where nothing else runs; the whole answer takes far longer
                while await engine.busy_slots():
                    await asyncio.sleep(0.02)


@pytest.mark.model
async def test_a_killed_engine_is_an_error_for_its_answers_and_is_back_for_the_next(relay: Program) -> None:
    async with a_node(relay, "llama") as node, Client([relay.url]) as client:
        pid = engine_of(node).pid
        assert pid is not None

        async def one(number: int) -> str:
            text = ""
            async for chunk in client.stream(LONG, model=EMBEDDED, max_tokens=900, seed=number):
                text += json.dumps(chunk)
            return text

        asking = [asyncio.create_task(one(number)) for number in range(4)]
        while await engine_of(node).busy_slots() < 4:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        down = asyncio.create_task(node.engine.wait_ready(False))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        results = await asyncio.gather(*asking, return_exceptions=True)
        for result in results:
            assert isinstance(result, ApiError | JobFailed), result
            begun = isinstance(result, ApiError)  # of what has not begun another node is asked, and here is none
            assert result.code == ("engine_crashed" if begun else "engine_failed")
        async with asyncio.timeout(60):
            await down  # its answers are told before the node has noticed
            await node.engine.wait_ready()
        assert nodes_at(relay)[0]["breaker"] == "closed", "one crash is one failure, however much it held"
        whole = await client.chat([{"role": "user", "content": "Say hello."}], model=EMBEDDED, max_tokens=4)
        assert whole["choices"][0]["message"]["content"]
        assert engine_of(node).pid != pid


async def test_a_request_in_flight_outlives_the_rotation_of_keys(relay: Program) -> None:
    async with a_node(relay, "echo") as node, Client([relay.url]) as client:
        before = node.card
        stream = client.stream([{"role": "user", "content": "word " * 30}], model="echo")
        first = await anext(stream)
        node.rotate_keys()
        rest = [chunk async for chunk in stream]
        text = "".join(choice["delta"].get("content") or "" for chunk in [first, *rest] for choice in chunk["choices"])
        assert text == "echo: " + "word " * 30
        assert node.card.body.sequence > before.body.sequence
        assert node.card.body.keys[0].key_id != before.body.keys[0].key_id
        again = await client.chat([{"role": "user", "content": "hi"}], model="echo")
        assert again["choices"][0]["message"]["content"] == "echo: hi"
        async with Client([relay.url]) as fresh:
            await fresh.chat([{"role": "user", "content": "hi"}], model="echo")


async def test_a_client_that_waits_hears_its_place_in_the_queue(stage: Stage) -> None:
    relay = stage.relay("--blind")
    stage.node(relay, delay=0.1, flags=["--slots", "1"])
    places: list[int | None] = []
    async with Client([relay.url]) as client:
        first = asyncio.create_task(client.chat([{"role": "user", "content": "word " * 20}], model="echo"))
        await asyncio.to_thread(until, lambda: not all_free(relay), "the only slot to be taken")
        body = {"model": "echo", "messages": [{"role": "user", "content": "quick"}]}
        async with client.ask(
            "/v1/chat/completions", body, on_news=lambda news: places.append(news.position)
        ) as answer:
            await answer.read()
        await first
    assert places[0] == 1
