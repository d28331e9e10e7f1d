from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.asking import EngineBody, Traits, ask_chat, ask_completion, folded_seed
from tokenplace.openai.chat import ChatOrder
from tokenplace.openai.completions import CompletionOrder
from tokenplace.openai.requests import read_chat, read_completion

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
USER: dict[str, Any] = {"role": "user", "content": "hello"}
WEATHER: dict[str, Any] = {"name": "weather", "description": "Weather", "parameters": {"type": "object"}}
CLOCK: dict[str, Any] = {"name": "clock"}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": CLOCK}]
NAMED = {"type": "function", "function": {"name": "clock"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
CALLED: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]

NATIVE = Traits()
PLAIN = Traits(native_tools=False)
BASE: EngineBody = {
    "model": "m",
    "messages": [USER],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def asked(traits: Traits = NATIVE, **fields: Any) -> tuple[EngineBody, ChatOrder]:
    request = read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())
    return ask_chat(request, traits, model="m", created=5)


def body(traits: Traits = NATIVE, **fields: Any) -> EngineBody:
    return asked(traits, **fields)[0]


def completion(traits: Traits = NATIVE, **fields: Any) -> tuple[EngineBody, CompletionOrder]:
    request = read_completion(json.dumps({"model": "m", "prompt": "Once", **fields}).encode())
    return ask_completion(request, traits, model="m", created=5)


def refused(traits: Traits, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asked(traits, **fields)
    return caught.value


def test_the_engine_is_always_asked_to_stream_and_to_tell_usage() -> None:
    assert body() == BASE
    assert body(stream=False) == BASE
    assert body(stream=True, stream_options={"include_usage": False}) == BASE


PASSED_ON: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
    ({"stop": "END"}, {"stop": ["END"]}),
    ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"seed": 5}, {"seed": 5}),
    ({"n": 2}, {"n": 2}),
    ({"n": 1}, {}),
    ({"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1, "frequency_penalty": -1}),
    ({"logit_bias": {"5": -100}}, {"logit_bias": {"5": -100}}),
    ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1}),
    ({"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 1}),
    ({"logprobs": True, "top_logprobs": 7}, {"logprobs": True, "top_logprobs": 7}),
    ({"logprobs": False}, {}),
    ({"response_format": {"type": "text"}}, {}),
    ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
    ),
    ({"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "reasoning_effort": "none"}, {}),
]


@pytest.mark.parametrize(("fields", "passed"), PASSED_ON, ids=lambda value: json.dumps(value)[:60])
def test_the_engine_gets(fields: dict[str, Any], passed: dict[str, Any]) -> None:
    assert body(**fields) == {**BASE, **passed}


def test_what_suits_the_model_is_sent_where_the_request_says_nothing() -> None:
    traits = Traits(defaults=MappingProxyType({"temperature": 0.2, "timings_per_token": True}))
    assert body(traits)["temperature"] == 0.2
    assert body(traits, temperature=1)["temperature"] == 1
    assert body(traits, temperature=1)["timings_per_token"] is True


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**32, 2**63 - 1, -(2**63), 0, 5])
def test_every_seed_becomes_one_that_engines_take_for_a_seed(seed: int) -> None:
    assert 0 <= folded_seed(seed) < 2**32 - 1
    assert folded_seed(seed) == folded_seed(seed)


def test_small_seeds_stay_what_they_are_and_others_stay_apart() -> None:
    assert folded_seed(42) == 42
    assert len({folded_seed(seed) for seed in (-1, -2, 2**40, 2**41, 2**63 - 1)}) == 5


# ── What an engine cannot do ─────────────────────────────────────────────────────────────────────────────────────

CANNOT: list[tuple[Traits, dict[str, Any], str, str]] = [
    (Traits(max_choices=4), {"n": 5}, "n", "integer_above_max_value"),
    (Traits(lacks=frozenset({"logprobs"})), {"logprobs": True}, "logprobs", "unsupported_parameter"),
    (Traits(lacks=frozenset({"seed"})), {"seed": 0}, "seed", "unsupported_parameter"),
    (Traits(lacks=frozenset({"tools"})), {"tools": TOOLS}, "tools", "unsupported_parameter"),
    (NATIVE, {"top_k": 5}, "top_k", "unknown_parameter"),
    (Traits(samplers=frozenset({"top_k"})), {"min_p": 0.1}, "min_p", "unknown_parameter"),
    (Traits(vocabulary=100), {"logit_bias": {"100": 1}}, "logit_bias.100", "invalid_value"),
    (
        NATIVE,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": PNG}]}]},
        "messages[0].content[0].type",
        "unsupported_value",
    ),
    (PLAIN, {"tools": TOOLS, "logprobs": True}, "logprobs", "unsupported_parameter"),
    (PLAIN, {"tools": TOOLS, "stop": "a"}, "stop", "unsupported_parameter"),
    (PLAIN, {"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    (
        Traits(native_tools=False, lacks=frozenset({"response_format"})),
        {"tools": TOOLS},
        "tools",
        "unsupported_parameter",
    ),
    (
        Traits(native_tools=False, lacks=frozenset({"response_format"})),
        {"functions": [CLOCK]},
        "functions",
        "unsupported_parameter",
    ),
]


@pytest.mark.parametrize(("traits", "fields", "param", "code"), CANNOT, ids=lambda value: str(value)[:60])
def test_what_the_engine_cannot_do_is_refused_by_name(
    traits: Traits, fields: dict[str, Any], param: str, code: str
) -> None:
    refusal = refused(traits, **fields)
    assert (refusal.status, refusal.param, refusal.code) == (400, param, code)


def test_the_refusal_of_too_many_choices_tells_the_number_there_can_be() -> None:
    assert "<= 4, but got 9" in refused(Traits(max_choices=4), n=9).message


def test_what_the_engine_can_do_beyond_openai_is_passed_on() -> None:
    traits = Traits(samplers=frozenset({"top_k", "min_p"}))
    assert body(traits, top_k=5, min_p=0.1) == {**BASE, "top_k": 5, "min_p": 0.1}


def test_an_engine_that_thinks_is_told_how_much() -> None:
    assert body(Traits(reasoning=True), reasoning_effort="low")["reasoning_effort"] == "low"


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def told(traits: Traits, *messages: dict[str, Any], **fields: Any) -> Any:
    return body(traits, messages=list(messages), **fields)["messages"]


def test_the_developer_is_the_system() -> None:
    assert told(NATIVE, {"role": "developer", "content": "be kind"}, USER)[0] == {
        "role": "system",
        "content": "be kind",
    }


def test_parts_that_are_words_become_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert told(NATIVE, {"role": "user", "content": parts}) == [{"role": "user", "content": "a\nb"}]


def test_pictures_are_passed_on_to_a_model_that_looks_at_them() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "input_image", "image": {"b64_json": PNG.partition(",")[2]}},
    ]
    assert told(Traits(vision=True), {"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": PNG}},
    ]


def test_names_are_passed_on() -> None:
    message = {"role": "user", "content": "a", "name": "Ann"}
    assert told(NATIVE, message) == [message]


def test_a_refusal_of_the_assistant_is_what_it_said() -> None:
    assert told(NATIVE, USER, {"role": "assistant", "content": None, "refusal": "No."}, USER)[1] == {
        "role": "assistant",
        "content": "No.",
    }


def test_earlier_calls_go_to_a_template_that_knows_tools_as_they_are() -> None:
    assert told(NATIVE, *CALLED) == CALLED


def test_earlier_calls_go_to_a_template_without_tools_as_words_behind_the_question() -> None:
    assert told(PLAIN, *CALLED) == [
        {"role": "user", "content": 'hello\n\nweather({"city":"Bonn"}) returned: sunny'},
    ]


def test_words_beside_a_call_stay_the_assistants() -> None:
    second = {**CALL, "id": "c2", "function": {"name": "clock", "arguments": "{}"}}
    conversation = [
        USER,
        {"role": "assistant", "content": "I ask.", "tool_calls": [CALL, second]},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "assistant", "content": "Sunny noon."},
    ]
    assert told(PLAIN, *conversation)[1:] == [
        {"role": "assistant", "content": "I ask."},
        {"role": "user", "content": 'clock({}) returned: noon\n\nweather({"city":"Bonn"}) returned: sunny'},
        {"role": "assistant", "content": "Sunny noon."},
    ]


def test_a_result_stands_behind_the_pictures_of_the_question() -> None:
    question = {"role": "user", "content": [{"type": "image_url", "image_url": PNG}]}
    (message,) = told(Traits(native_tools=False, vision=True), question, *CALLED[1:])
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]


def test_the_older_functions_become_tools() -> None:
    conversation = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "sunny"},
    ]
    assert told(NATIVE, *conversation)[1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]


def test_earlier_thoughts_go_to_models_that_think() -> None:
    thought = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert "reasoning_content" not in told(NATIVE, USER, thought, USER)[1]
    assert told(Traits(reasoning=True), USER, thought, USER)[1] == thought


# ── Tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


def tool_fields(made: EngineBody) -> dict[str, Any]:
    return {key: made[key] for key in ("tools", "tool_choice", "parallel_tool_calls") if key in made}


NATIVE_TOOLS: list[tuple[Traits, dict[str, Any], dict[str, Any]]] = [
    (NATIVE, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}),
    (
        NATIVE,
        {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        NATIVE,
        {"tools": TOOLS, "tool_choice": NAMED},
        {"tools": TOOLS, "tool_choice": NAMED, "parallel_tool_calls": True},
    ),
    (
        Traits(named_tools=False),
        {"tools": TOOLS, "tool_choice": NAMED},
        {"tools": TOOLS[1:], "tool_choice": "required", "parallel_tool_calls": True},
    ),
    (NATIVE, {"tools": TOOLS, "tool_choice": "none"}, {"tools": TOOLS, "tool_choice": "none"}),
    (
        NATIVE,
        {
            "tools": TOOLS,
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
        },
        {"tools": TOOLS[1:], "tool_choice": "auto", "parallel_tool_calls": True},
    ),
    (NATIVE, {"functions": [CLOCK]}, {"tools": TOOLS[1:], "tool_choice": "auto", "parallel_tool_calls": False}),
    (
        NATIVE,
        {"functions": [CLOCK], "function_call": {"name": "clock"}},
        {"tools": TOOLS[1:], "tool_choice": NAMED, "parallel_tool_calls": False},
    ),
    (NATIVE, {"functions": [CLOCK], "function_call": "none"}, {"tools": TOOLS[1:], "tool_choice": "none"}),
    (PLAIN, {"tools": TOOLS, "tool_choice": "none"}, {}),
    (PLAIN, {"tool_choice": "auto"}, {}),
]


@pytest.mark.parametrize(("traits", "fields", "sent"), NATIVE_TOOLS, ids=lambda value: str(value)[:70])
def test_tools_reach_an_engine_that_has_them(traits: Traits, fields: dict[str, Any], sent: dict[str, Any]) -> None:
    made, wanted = asked(traits, **fields)
    assert tool_fields(made) == sent
    assert wanted.forcing is None


FORCED: list[tuple[Traits, dict[str, Any], list[str], bool]] = [
    (PLAIN, {"tools": TOOLS}, ["weather", "clock"], False),
    (PLAIN, {"tools": TOOLS, "tool_choice": "required"}, ["weather", "clock"], True),
    (PLAIN, {"tools": TOOLS, "tool_choice": NAMED}, ["clock"], True),
    (PLAIN, {"functions": [WEATHER], "function_call": {"name": "weather"}}, ["weather"], True),
    (Traits(required_tools=False), {"tools": TOOLS, "tool_choice": "required"}, ["weather", "clock"], True),
    (Traits(required_tools=False), {"tools": TOOLS, "tool_choice": NAMED}, ["clock"], True),
    (PLAIN, {"tools": TOOLS, "tool_choice": "required", "messages": CALLED}, ["weather", "clock"], True),
]


@pytest.mark.parametrize(("traits", "fields", "names", "required"), FORCED, ids=lambda value: str(value)[:70])
def test_calls_are_forced_where_the_engine_has_none(
    traits: Traits, fields: dict[str, Any], names: list[str], required: bool
) -> None:
    made, wanted = asked(traits, **fields)
    assert tool_fields(made) == {}
    assert made["response_format"]["type"] == "json_schema"
    assert made["messages"][0]["role"] == "system"
    assert wanted.forcing is not None
    assert [function.name for function in wanted.forcing.functions] == names
    assert wanted.forcing.required is required


def test_an_engine_that_has_tools_is_not_forced_where_the_model_may_choose() -> None:
    assert asked(Traits(required_tools=False), tools=TOOLS)[1].forcing is None


def test_after_a_result_a_model_without_tools_is_asked_for_words() -> None:
    made, wanted = asked(PLAIN, messages=CALLED, tools=TOOLS)
    assert wanted.forcing is None
    assert "response_format" not in made


def test_the_system_is_told_of_tools_behind_what_it_was_told() -> None:
    messages = told(PLAIN, {"role": "system", "content": "Be kind."}, USER, tools=TOOLS)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"].startswith("Be kind.\n\nYou can call these functions:")


# ── The order ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_order_says_what_the_answer_must_look_like() -> None:
    _, wanted = asked(n=2, logprobs=True, stream=True, stream_options={"include_usage": True}, metadata={"a": "b"})
    assert (wanted.model, wanted.created, wanted.choices, wanted.top_alternatives) == ("m", 5, 2, 0)
    assert (wanted.usage_in_stream, wanted.legacy, wanted.metadata) == (True, False, {"a": "b"})


# ── Completions ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_completion_is_put_to_the_engine() -> None:
    made, wanted = completion(n=2, logprobs=0, echo=False, stop="x")
    assert made == {
        "model": "m",
        "prompt": "Once",
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 2,
        "stop": ["x"],
        "logprobs": 1,
    }
    assert (wanted.choices, wanted.top_alternatives, wanted.echoes) == (2, 0, ())


def test_one_prompt_in_a_list_is_one_prompt() -> None:
    assert completion(prompt=["Once"])[0]["prompt"] == "Once"
    assert completion(prompt=[1, 2])[0]["prompt"] == [1, 2]


def test_every_prompt_has_its_choices_and_echoes() -> None:
    _, wanted = completion(Traits(max_choices=4), prompt=["a", "b"], n=2, echo=True)
    assert (wanted.choices, wanted.echoes) == (4, ("a", "a", "b", "b"))


COMPLETION_CANNOT: list[tuple[Traits, dict[str, Any], str, str]] = [
    (Traits(max_choices=4), {"n": 5}, "n", "integer_above_max_value"),
    (Traits(max_choices=4), {"prompt": ["a", "b"], "n": 3}, "prompt", "invalid_value"),
    (Traits(max_choices=4), {"prompt": ["a"] * 5}, "prompt", "invalid_value"),
    (Traits(vocabulary=100), {"prompt": [99, 100]}, "prompt", "invalid_value"),
    (Traits(context=3), {"prompt": [1, 2, 3, 4]}, "prompt", "context_length_exceeded"),
    (Traits(lacks=frozenset({"logprobs"})), {"logprobs": 0}, "logprobs", "unsupported_parameter"),
]


@pytest.mark.parametrize(("traits", "fields", "param", "code"), COMPLETION_CANNOT, ids=lambda value: str(value)[:60])
def test_a_completion_the_engine_cannot_do_is_refused_by_name(
    traits: Traits, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        completion(traits, **fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


def test_too_many_token_ids_are_refused_with_both_numbers_before_the_engine_is_asked() -> None:
    with pytest.raises(ApiError, match=r"maximum context length is 3 tokens.*has 4 tokens"):
        completion(Traits(context=3), prompt=[1, 2, 3, 4])
