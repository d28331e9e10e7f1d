"""What the openai SDK makes of our answers: its own types, its own accumulator, no server in between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ParsedChatCompletion

from tokenplace.openai.chat import ChatAssembly, ChatOrder, ChatRepair, Chunk
from tokenplace.openai.completions import CompletionAssembly, CompletionOrder, CompletionRepair
from tokenplace.openai.requests import read_chat
from tokenplace.openai.usage import Tally

SCORES = {"content": [{"token": "Hello", "bytes": [72], "logprob": -1.0, "top_logprobs": []}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}


def piece(index: int = 0, finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]}


def call(index: int, id: str | None = None, **function: Any) -> dict[str, Any]:
    return piece(tool_calls=[{"index": index, "id": id, "function": function}])


ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "words": ({}, [piece(content="Hel"), piece(content="lo"), piece(finish="stop"), USAGE]),
    "scores": ({"top_alternatives": 0}, [piece(content="Hello", logprobs=SCORES), piece(finish="stop"), USAGE]),
    "choices": (
        {"choices": 2},
        [piece(1, content="b"), piece(0, content="a"), piece(1, "stop"), piece(0, "stop"), USAGE, USAGE],
    ),
    "calls": (
        {},
        [
            call(0, "a", name="f", arguments=""),
            call(0, arguments='{"x":'),
            call(0, arguments="1}"),
            call(1, "b", name="g", arguments="{}"),
            piece(finish="tool_calls"),
            USAGE,
        ],
    ),
    "older": ({"legacy": True}, [call(0, "a", name="f", arguments="{}"), piece(finish="tool_calls"), USAGE]),
    "refusal": ({}, [piece(refusal="No."), piece(finish="stop"), USAGE]),
}


def made(name: str) -> tuple[list[Chunk], dict[str, Any]]:
    fields, chunks = ANSWERS[name]
    order = ChatOrder(model="m", created=1_700_000_000, usage_in_stream=True, **fields)
    tally = Tally(order.choices)
    repair, assembly = ChatRepair(order, tally), ChatAssembly(order)
    out = [chunk for each in chunks for chunk in repair.take(each)] + repair.end()
    assembly.take(out)
    return out, assembly.whole(tally.told)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_chunk_is_one_of_the_sdks_strictly(name: str) -> None:
    for chunk in made(name)[0]:
        ChatCompletionChunk.model_validate_json(json.dumps(chunk), strict=True)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_is_one_of_the_sdks_strictly(name: str) -> None:
    ChatCompletion.model_validate_json(json.dumps(made(name)[1]), strict=True)


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "older"])
def test_the_sdk_adds_the_chunks_up_to_the_very_answer(name: str) -> None:
    chunks, whole = made(name)
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    total: ParsedChatCompletion[None] = state.get_final_completion()
    ours = ChatCompletion.model_validate(whole)
    assert total.usage == ours.usage
    for theirs, choice in zip(total.choices, ours.choices, strict=True):
        assert theirs.finish_reason == choice.finish_reason
        assert theirs.message.role == "assistant"
        assert (theirs.message.content or "") == (choice.message.content or "")
        assert theirs.message.refusal == choice.message.refusal
        assert [(c.id, c.type, c.function.name, c.function.arguments) for c in theirs.message.tool_calls or ()] == [
            (c.id, c.type, c.function.name, c.function.arguments)  # type: ignore[union-attr]  # functions only
            for c in choice.message.tool_calls or ()
        ]
        assert (theirs.logprobs is None) == (choice.logprobs is None)


@pytest.mark.parametrize("name", ["words", "calls", "refusal"])
def test_a_program_may_send_the_answers_message_back(name: str) -> None:
    _, whole = made(name)
    message = ChatCompletion.model_validate(whole).choices[0].message
    results = [{"role": "tool", "tool_call_id": each.id, "content": "42"} for each in message.tool_calls or ()]
    conversation = [{"role": "user", "content": "hi"}, message.to_dict(), *results]
    assert read_chat(json.dumps({"model": "m", "messages": conversation}).encode())
    conversation[1] = message.model_dump()  # … or with every null there is
    assert read_chat(json.dumps({"model": "m", "messages": conversation}).encode())


def test_completions_are_the_sdks_strictly() -> None:
    order = CompletionOrder(model="m", created=1_700_000_000, top_alternatives=1, usage_in_stream=True)
    tally = Tally()
    repair, assembly = CompletionRepair(order, tally), CompletionAssembly(order)
    chunks = repair.take({"choices": [{"index": 0, "text": "Hello", "logprobs": SCORES, "finish_reason": "stop"}]})
    chunks += repair.take(USAGE) + repair.end()
    assembly.take(chunks)
    for made in [*chunks, assembly.whole(tally.told)]:
        for choice in made["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # the SDK's type forgot the null in chunks
        Completion.model_validate_json(json.dumps(made), strict=True)
