from __future__ import annotations

import json
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.requests import NOT_HONOURED, ChatRequest, CompletionRequest, read_chat, read_completion

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object"}, "strict": True}}


def chat(**fields: Any) -> ChatRequest:
    return read_chat(json.dumps({"model": "m", "messages": HELLO, **fields}).encode())


def completion(**fields: Any) -> CompletionRequest:
    return read_completion(json.dumps({"model": "m", "prompt": "Once", **fields}).encode())


def refusal_of_chat(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    return caught.value


def refusal_of_completion(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        completion(**fields)
    return caught.value


CHAT_TAKES: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 2.0},
    {"top_p": 0},
    {"top_p": 1},
    {"max_tokens": 1},
    {"max_completion_tokens": 1},
    {"max_tokens": 7, "max_completion_tokens": 7},
    {"stop": "END"},
    {"stop": ["a", "b", "c", "d"]},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1},
    {"n": 128},
    {"presence_penalty": -2},
    {"frequency_penalty": 2},
    {"logit_bias": {"5": -100, "6": 100}},
    {"logit_bias": {}},
    {"logprobs": True, "top_logprobs": 20},
    {"logprobs": False},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_object"}},
    {"response_format": SCHEMA},
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": "none"},
    {"tools": [TOOL], "tool_choice": "auto"},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    {
        "tools": [TOOL],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]},
        },
    },
    {"tool_choice": "auto"},
    {"tools": [TOOL], "parallel_tool_calls": False},
    {"functions": [TOOL["function"]], "function_call": "auto"},
    {"functions": [TOOL["function"]], "function_call": {"name": "weather"}},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    {"stream": False, "stream_options": None},
    {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
    {"prompt_cache_retention": "24h"},
    {"store": False},
    {"store": None},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"modalities": ["text"]},
    {"audio": None},
    {"reasoning_effort": "low"},
    {"verbosity": "medium"},
    {"top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1},
    dict.fromkeys(["temperature", "top_p", "stop", "seed", "n", "tools", "tool_choice", "logit_bias", "logprobs"]),
]


@pytest.mark.parametrize("fields", CHAT_TAKES, ids=json.dumps)
def test_a_chat_request_may_say(fields: dict[str, Any]) -> None:
    assert chat(**fields).model == "m"


CHAT_REFUSES: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "invalid_type"),
    ({"model": ""}, "model", "empty_string"),
    ({"model": 3}, "model", "invalid_type"),
    ({"model": "m" * 257}, "model", "string_above_max_length"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": HELLO * 2049}, "messages", "array_above_max_length"),
    ({"messages": "hello"}, "messages", "invalid_type"),
    ({"messages": {"role": "user"}}, "messages", "invalid_type"),
    ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
    ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
    ({"temperature": "1"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"top_p": 1.01}, "top_p", "decimal_above_max_value"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
    ({"max_tokens": 2**31}, "max_tokens", "integer_above_max_value"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
    ({"stop": ""}, "stop", "empty_string"),
    ({"stop": []}, "stop", "empty_array"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
    ({"stop": ["a", ""]}, "stop[1]", "empty_string"),
    ({"stop": ["a", 1]}, "stop[1]", "invalid_type"),
    ({"stop": 1}, "stop", "invalid_type"),
    ({"seed": 2**63}, "seed", "integer_above_max_value"),
    ({"seed": -(2**63) - 1}, "seed", "integer_below_min_value"),
    ({"seed": 1.5}, "seed", "invalid_type"),
    ({"n": 0}, "n", "integer_below_min_value"),
    ({"n": 129}, "n", "integer_above_max_value"),
    ({"n": True}, "n", "invalid_type"),
    ({"presence_penalty": 2.5}, "presence_penalty", "decimal_above_max_value"),
    ({"frequency_penalty": -2.5}, "frequency_penalty", "decimal_below_min_value"),
    ({"logit_bias": []}, "logit_bias", "invalid_type"),
    ({"logit_bias": {"word": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"²": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
    ({"logit_bias": {"1": "ban"}}, "logit_bias.1", "invalid_value"),
    ({"logit_bias": {"1": True}}, "logit_bias.1", "invalid_value"),
    ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias", "invalid_value"),
    ({"logprobs": 5}, "logprobs", "invalid_type"),
    ({"top_logprobs": 5}, "top_logprobs", "invalid_value"),
    ({"logprobs": False, "top_logprobs": 5}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "integer_below_min_value"),
    ({"response_format": "json"}, "response_format", "invalid_type"),
    ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ({"response_format": {"type": "json_object", "x": 1}}, "response_format.x", "unknown_parameter"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format.json_schema.schema",
        "missing_required_parameter",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "response_format.json_schema.name",
        "invalid_value",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": []}}},
        "response_format.json_schema.schema",
        "invalid_type",
    ),
    ({"tools": []}, "tools", "empty_array"),
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
    (
        {"tools": [{"type": "function", "function": {"name": "a" * 65}}]},
        "tools[0].function.name",
        "string_above_max_length",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": "{}"}}]},
        "tools[0].function.parameters",
        "invalid_type",
    ),
    ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].type", "unsupported_value"),
    ({"tools": [{"type": "retrieval", "function": {"name": "a"}}]}, "tools[0].type", "invalid_value"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "invalid_value"),
    ({"tools": [TOOL] * 129}, "tools", "array_above_max_length"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice", "invalid_value"),
    ({"tools": [TOOL], "tool_choice": 1}, "tool_choice", "invalid_type"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        "tool_choice.function.name",
        "invalid_value",
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function", "missing_required_parameter"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls", "invalid_value"),
    ({"functions": [TOOL["function"]], "tools": [TOOL]}, "functions", "invalid_value"),
    ({"function_call": "auto"}, "function_call", "invalid_value"),
    ({"functions": [TOOL["function"]], "function_call": {"name": "x"}}, "function_call.name", "invalid_value"),
    ({"stream": "no"}, "stream", "invalid_type"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
        "unsupported_parameter",
    ),
    ({"user": 5}, "user", "invalid_type"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"reasoning_effort": "immense"}, "reasoning_effort", "invalid_value"),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"store": 0}, "store", "unsupported_parameter"),
    ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
    ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
    ({"service_tier": "flex"}, "service_tier", "unsupported_parameter"),
    ({"verbosity": "low"}, "verbosity", "unsupported_parameter"),
    ({"max_token": 5}, "max_token", "unknown_parameter"),
    ({"Temperature": 1}, "Temperature", "unknown_parameter"),
    ({"encrypted": True}, "encrypted", "unknown_parameter"),
]


@pytest.mark.parametrize(("fields", "param", "code"), CHAT_REFUSES, ids=lambda value: str(value)[:60])
def test_a_chat_request_is_refused_by_the_name_of_what_is_wrong(fields: dict[str, Any], param: str, code: str) -> None:
    refusal = refusal_of_chat(**fields)
    assert (refusal.status, refusal.type) == (400, "invalid_request_error")
    assert (refusal.param, refusal.code) == (param, code)


@pytest.mark.parametrize("param", ["model", "messages"])
def test_what_a_chat_request_must_have_is_asked_for_by_name(param: str) -> None:
    body = {"model": "m", "messages": HELLO}
    del body[param]
    with pytest.raises(ApiError) as caught:
        read_chat(json.dumps(body).encode())
    assert caught.value.as_json()["error"] == {
        "message": f"Missing required parameter: '{param}'.",
        "type": "invalid_request_error",
        "param": param,
        "code": "missing_required_parameter",
    }


def test_an_unknown_name_is_told_before_what_else_is_wrong() -> None:
    refusal = refusal_of_chat(temperature=9, max_token=5)
    assert refusal.message == "Unrecognized request argument supplied: max_token"


def test_the_bound_and_the_value_are_told() -> None:
    assert refusal_of_chat(max_tokens=0).message == (
        "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead."
    )
    assert refusal_of_chat(temperature=3).message == (
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2.0, but got 3 instead."
    )


def test_a_long_wrong_value_is_not_sent_back_whole() -> None:
    assert len(refusal_of_chat(response_format={"type": "x" * 10_000}).message) < 300


def test_every_parameter_that_is_not_honoured_says_why() -> None:
    for param, (_, why) in NOT_HONOURED.items():
        refusal = refusal_of_chat(**{param: {"something": "else"}})
        assert refusal.param == param
        assert why in refusal.message


COMPLETION_TAKES: list[dict[str, Any]] = [
    {"prompt": "a"},
    {"prompt": ["a"]},
    {"prompt": ["a", "b"]},
    {"prompt": [1, 2, 3]},
    {"prompt": [[1, 2], [3]]},
    {"best_of": 1},
    {"best_of": 3, "n": 3},
    {"echo": True},
    {"echo": False, "logprobs": 2},
    {"logprobs": 0},
    {"logprobs": 5},
    {"suffix": None},
    {"suffix": ""},
    {"max_tokens": 5},
    {"stream": True, "stream_options": {"include_usage": True}},
]


@pytest.mark.parametrize("fields", COMPLETION_TAKES, ids=json.dumps)
def test_a_completion_request_may_say(fields: dict[str, Any]) -> None:
    assert completion(**fields).model == "m"


COMPLETION_REFUSES: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "prompt", "empty_string"),
    ({"prompt": []}, "prompt", "empty_array"),
    ({"prompt": ["a", ""]}, "prompt[1]", "empty_string"),
    ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type"),
    ({"prompt": [1, "a"]}, "prompt[1]", "invalid_type"),
    ({"prompt": [-1]}, "prompt[0]", "integer_below_min_value"),
    ({"prompt": [[]]}, "prompt[0]", "empty_array"),
    ({"prompt": None}, "prompt", "invalid_type"),
    ({"prompt": ["a"] * 65}, "prompt", "array_above_max_length"),
    ({"best_of": 2}, "best_of", "unsupported_parameter"),
    ({"suffix": "end"}, "suffix", "unsupported_parameter"),
    ({"echo": True, "logprobs": 1}, "echo", "unsupported_parameter"),
    ({"echo": True, "prompt": [1, 2]}, "echo", "unsupported_parameter"),
    ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
    ({"logprobs": True}, "logprobs", "invalid_type"),
    ({"messages": HELLO}, "messages", "unknown_parameter"),
    ({"max_completion_tokens": 5}, "max_completion_tokens", "unknown_parameter"),
]


@pytest.mark.parametrize(("fields", "param", "code"), COMPLETION_REFUSES, ids=lambda value: str(value)[:60])
def test_a_completion_request_is_refused_by_the_name_of_what_is_wrong(
    fields: dict[str, Any], param: str, code: str
) -> None:
    refusal = refusal_of_completion(**fields)
    assert (refusal.status, refusal.param, refusal.code) == (400, param, code)


def test_a_completion_has_sixteen_tokens_where_nothing_is_said() -> None:
    assert completion().answer_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
    ids=str,
)
def test_every_form_of_prompt_is_a_list_of_prompts(prompt: Any, prompts: list[Any]) -> None:
    assert completion(prompt=prompt).prompts == prompts


def test_a_repr_of_a_refused_body_is_not_in_the_message() -> None:
    refusal = refusal_of_chat(messages=[{"role": "user", "content": "my secret words", "colour": "red"}])
    assert "secret" not in refusal.message
