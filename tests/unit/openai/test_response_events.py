"""The events of /v1/responses, as the openai SDK's own types and accumulator take them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tokenplace.openai.chat import ChatOrder, ChatRepair, Chunk
from tokenplace.openai.events import EventParser
from tokenplace.openai.response_events import ResponseVoice
from tokenplace.openai.responses import read_response
from tokenplace.openai.usage import Tally

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
SCORES = {"content": [{"token": "Hi", "bytes": [72], "logprob": -1.0, "top_logprobs": []}]}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": None}


def piece(finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]}


def call(index: int, id: str | None = None, **function: Any) -> dict[str, Any]:
    return piece(tool_calls=[{"index": index, "id": id, "function": function}])


ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "words": ({}, [piece(content="Hel"), piece(content="lo"), piece("stop"), USAGE]),
    "nothing": ({}, [piece(role="assistant", content=""), piece("stop"), USAGE]),
    "cut": ({"max_output_tokens": 2}, [piece(content="Hel"), piece("length"), USAGE]),
    "scores": (
        {"include": ["message.output_text.logprobs"]},
        [piece(content="Hi", logprobs=SCORES), piece("stop"), USAGE],
    ),
    "calls": (
        {"tools": [TOOL]},
        [
            piece(content="Let me see."),
            call(0, "a", name="f", arguments=""),
            call(0, arguments='{"x":'),
            call(0, arguments="1}"),
            call(1, "b", name="f", arguments="{}"),
            piece("tool_calls"),
            USAGE,
        ],
    ),
    "refusal": ({}, [piece(refusal="No."), piece("stop"), USAGE]),
    "thoughts": (
        {},
        [piece(reasoning_content="Hm"), piece(reasoning_content="."), piece(content="Yes."), piece("stop"), USAGE],
    ),
}


def made(name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    fields, chunks = ANSWERS[name]
    request = read_response(json.dumps({"model": "m", "input": "hi", "stream": True, **fields}).encode())
    scored = 0 if "include" in fields else None
    events, whole = b"", {}
    for as_json in (False, True):
        order = ChatOrder(model="m", created=5, top_alternatives=scored)
        tally = Tally()
        repair = ChatRepair(order, tally)
        voice = ResponseVoice(request, model="m", created=1_700_000_000)
        out: list[list[Chunk]] = [repair.take(chunk) for chunk in chunks]
        out.append(repair.end())
        if as_json:
            for each in out:
                voice.take(each)
            whole = voice.whole(tally.told)
        else:
            events = b"".join(voice.say(each) for each in out) + voice.end(tally.told)
    parsed = EventParser().feed(events)
    for event in parsed:
        assert json.loads(event.data)["type"].encode() == event.name
    return [json.loads(event.data) for event in parsed], whole


@pytest.mark.parametrize("name", ANSWERS)
def test_every_event_is_one_of_the_sdks_and_numbered(name: str) -> None:
    events, _ = made(name)
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        assert EVENT.validate_python(event).type == event["type"]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_response_is_one_of_the_sdks(name: str) -> None:
    Response.model_validate_json(json.dumps(made(name)[1]), strict=True)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_sdks_accumulator_comes_to_the_same_response(name: str) -> None:
    events, whole = made(name)
    state: Any = ResponseStreamState(text_format=omit, input_tools=omit)
    for event in events:
        state.handle_event(EVENT.validate_python(event))
    final = state._completed_response
    if final is None:
        assert name == "cut"  # the SDK's helper takes only `completed` for an ending
        return
    assert final.output_text == Response.model_validate(whole).output_text
    assert [item.type for item in final.output] == [item["type"] for item in whole["output"]]


def test_the_events_of_words_come_in_openais_order() -> None:
    events, _ = made("words")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["usage"]["output_tokens"] == 2


def test_items_follow_one_another_with_their_own_places() -> None:
    events, whole = made("calls")
    assert [item["type"] for item in whole["output"]] == ["message", "function_call", "function_call"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1, 2]
    assert whole["output"][1]["arguments"] == '{"x":1}'
    assert whole["output"][1]["call_id"] == "a"
    done = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [event["arguments"] for event in done] == ['{"x":1}', "{}"]


def test_a_cut_answer_is_incomplete_and_says_why() -> None:
    events, whole = made("cut")
    assert events[-1]["type"] == "response.incomplete"
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["output"][0]["status"] == "incomplete"


def test_thoughts_are_an_item_before_the_words() -> None:
    _, whole = made("thoughts")
    thought, said = whole["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert said["content"][0]["text"] == "Yes."


@pytest.mark.parametrize("name", ["words", "calls", "refusal", "thoughts"])
def test_a_program_may_send_the_output_back(name: str) -> None:
    _, whole = made(name)
    calls = [item for item in whole["output"] if item["type"] == "function_call"]
    results = [{"type": "function_call_output", "call_id": item["call_id"], "output": "42"} for item in calls]
    items = [{"role": "user", "content": "hi"}, *whole["output"], *results]
    assert read_response(json.dumps({"model": "m", "input": items}).encode())
    sdk = [item.to_dict() for item in Response.model_validate(whole).output]
    assert read_response(json.dumps({"model": "m", "input": [items[0], *sdk, *results]}).encode())
    nulls = [item.model_dump() for item in Response.model_validate(whole).output]
    assert read_response(json.dumps({"model": "m", "input": [items[0], *nulls, *results]}).encode())
