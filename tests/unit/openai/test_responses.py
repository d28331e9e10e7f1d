from __future__ import annotations

import json
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.asking import Traits, ask_chat
from tokenplace.openai.responses import NOT_KEPT, read_response
from tokenplace.openai.responses_as_chat import as_chat

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "Sunny."}
USER = {"role": "user", "content": "hi"}


def read(**fields: Any) -> Any:
    return read_response(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def chat(**fields: Any) -> Any:
    return as_chat(read(**fields)).request


def engine(traits: Traits | None = None, **fields: Any) -> dict[str, Any]:
    return ask_chat(chat(**fields), traits or Traits(vision=True, reasoning=True), model="m", created=5)[0]


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        as_chat(read(**fields))
    return caught.value


def test_a_string_is_what_the_person_says_and_instructions_come_before_it() -> None:
    assert engine(instructions="Be brief.")["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_options_reach_the_engine_under_chats_names() -> None:
    form = {"type": "json_schema", "name": "p", "schema": {"type": "object"}, "strict": True}
    body = engine(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.25,
        text={"format": form},
        include=["message.output_text.logprobs"],
        top_logprobs=3,
        reasoning={"effort": "low"},
    )
    assert (body["max_completion_tokens"], body["temperature"], body["top_p"]) == (9, 0.5, 0.25)
    assert (body["logprobs"], body["top_logprobs"], body["reasoning_effort"]) == (True, 3, "low")
    assert body["response_format"]["json_schema"] == {"name": "p", "schema": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}, "required"),
    ],
)
def test_tools_and_their_choice_are_chats(choice: Any, told: Any) -> None:
    body = engine(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    function = {key: value for key, value in WEATHER.items() if key != "type"}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == told
    assert body["parallel_tool_calls"] is False


def test_a_conversation_with_calls_is_told_as_chat_tells_it() -> None:
    said = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": []}],
    }
    second = {**CALL, "call_id": "c2", "id": "fc_2", "status": "completed"}
    output = [{"type": "input_text", "text": "Rain."}]
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    items = [USER, thought, said, CALL, second, RESULT, {**RESULT, "call_id": "c2", "output": output}, USER]
    messages = engine(input=items, tools=[WEATHER])["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[1]["content"] == "Let me see."
    assert messages[1]["reasoning_content"] == "Hm."
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert [message["content"] for message in messages[2:4]] == ["Sunny.", "Rain."]


def test_pictures_are_passed_on() -> None:
    content = [{"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": PNG, "detail": "auto"}]
    assert engine(input=[{"role": "user", "content": content}])["messages"][0]["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}},
    ]


@pytest.mark.parametrize("param", NOT_KEPT)
def test_what_needs_a_memory_is_refused_by_name(param: str) -> None:
    refusal = refused(**{param: "x"})
    assert (refusal.status, refusal.param, refusal.code) == (400, param, "unsupported_parameter")


def test_harmless_values_pass() -> None:
    assert read(store=False, background=False, truncation="disabled", service_tier="auto", previous_response_id=None)
    assert read(include=["reasoning.encrypted_content"], text={"verbosity": "medium"}, reasoning={"effort": None})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": ""}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": PNG}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [USER, RESULT]}, "input[1].call_id"),
        ({"input": [USER, CALL]}, "input[1].call_id"),
        ({"input": [USER, CALL, USER, RESULT]}, "input[1].call_id"),
        ({"input": [USER, CALL, CALL, RESULT]}, "input[2].call_id"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"n": 2}, "n"),
        ({"max_tokens": 2}, "max_tokens"),
    ],
)
def test_what_is_not_served_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refusal = refused(**fields)
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("messages[0].content", "instructions"),
        ("messages[1].content[0].type", "input[0].content[0].type"),
        ("messages", "input"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format", "text.format"),
        ("reasoning_effort", "reasoning.effort"),
        ("tools[2].function.name", "tools[2].name"),
        ("temperature", "temperature"),
        (None, None),
    ],
)
def test_chats_parameters_are_named_as_they_came(param: str | None, told: str | None) -> None:
    assert as_chat(read(instructions="x", input=[USER])).param(param) == told
