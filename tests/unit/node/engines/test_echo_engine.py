"""The echo: what it says, and that it says no more than it was asked for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tokenplace.node.engines.echo import EchoEngine

CHAT = "/v1/chat/completions"


@pytest.fixture
async def echo() -> AsyncIterator[EchoEngine]:
    engine = EchoEngine()
    await engine.start()
    yield engine
    await engine.stop()


async def chunks(engine: EchoEngine, path: str, **body: Any) -> list[dict[str, Any]]:
    async with engine.open(path, {"stream": True, **body}) as answer:
        lines = b"".join([chunk async for chunk in answer.chunks()]).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


async def said(engine: EchoEngine, content: Any, **body: Any) -> str:
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": content}]
    got = await chunks(engine, CHAT, messages=messages, **body)
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in got if chunk["choices"])


@pytest.mark.parametrize(
    "text", ["Hello you there", "", "  two  spaces\nand lines\n", "naïve 日本語 🙂", 'quotes " and \\ slashes']
)
async def test_it_says_the_last_user_message_after_echo(echo: EchoEngine, text: str) -> None:
    assert await said(echo, text) == f"echo: {text}"


async def test_a_message_of_parts_is_its_texts(echo: EchoEngine) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "two"}]
    assert await said(echo, parts) == "echo: one two"


async def test_only_the_last_of_several_user_messages_counts(echo: EchoEngine) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    got = await chunks(echo, CHAT, messages=messages)
    assert [chunk["choices"][0]["delta"] for chunk in got] == [
        {"role": "assistant", "content": ""},
        {"content": "echo:"},
        {"content": " c"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in got] == [None, None, None, "stop"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_it_stops_where_it_was_told(echo: EchoEngine, name: str) -> None:
    assert await said(echo, "one two three", **{name: 2}) == "echo: one"


async def test_an_answer_as_long_as_the_limit_was_not_cut(echo: EchoEngine) -> None:
    got = await chunks(echo, CHAT, messages=[{"role": "user", "content": "one"}], max_tokens=2)
    assert got[-1]["choices"][0]["finish_reason"] == "stop"


async def test_all_chunks_of_an_answer_share_its_id_and_name_the_model_asked_for(echo: EchoEngine) -> None:
    got = await chunks(echo, CHAT, model="gpt-5", messages=[{"role": "user", "content": "x"}])
    assert len({chunk["id"] for chunk in got}) == 1
    assert {chunk["model"] for chunk in got} == {"gpt-5"}


async def test_a_completion_says_its_prompt(echo: EchoEngine) -> None:
    got = await chunks(echo, "/v1/completions", prompt="once upon", stream_options={"include_usage": True})
    assert "".join(chunk["choices"][0]["text"] for chunk in got if chunk["choices"]) == "echo: once upon"
    assert {chunk["object"] for chunk in got} == {"text_completion"}
    assert got[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


async def test_usage_is_told_only_to_who_asked(echo: EchoEngine) -> None:
    assert all("usage" not in chunk for chunk in await chunks(echo, CHAT, messages=[]))


async def test_many_streams_do_not_wait_for_each_other() -> None:
    engine = EchoEngine(delay=0.01)
    await engine.start()
    start = time.monotonic()
    await asyncio.gather(*(said(engine, "a b c d e f g h i") for _ in range(100)))
    assert time.monotonic() - start < 100 * 0.1 / 2  # one after the other they would take ten seconds
    assert await engine.busy_slots() == 0
    await engine.stop()
