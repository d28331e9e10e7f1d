"""What of our API hangs on the real engine, seen with the embedded model: a new build cannot undo it quietly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tokenplace.node.api import NodeApi
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.asking import Traits
from tokenplace.openai.catalogue import Catalogue
from tokenplace.openai.events import EventParser
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

SMOL = ModelId("smollm2-135m-instruct")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/City"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"City": {"type": "string", "maxLength": 12}},
        },
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[NodeApi]:
    weights = Weights(NodeSettings().weights_dir).ensure(Catalogue.load().weights_of(SMOL))
    engine = LlamaEngine(weights.path, ModelCard(SMOL, 512, ("chat",)), LlamaOptions(slots=2, context=512, threads=1))
    await engine.start()
    traits = Traits(
        native_tools=False,
        samplers=frozenset({"top_k", "min_p", "repeat_penalty"}),
        defaults={"temperature": 0, "timings_per_token": True},
    )
    yield NodeApi(engine, traits=traits)
    await engine.stop()


async def ask(api: NodeApi, path: str = CHAT, **fields: Any) -> tuple[int, Any]:
    async with api.answer(path, json.dumps({"model": SMOL, **fields}).encode()) as answer:
        body = b"".join([piece async for piece in answer.body()])
        if answer.content_type == "application/json":
            return answer.status, json.loads(body)
        *events, last = EventParser().feed(body)
        assert last.done
        return answer.status, [json.loads(event.data) for event in events]


async def test_a_context_that_is_exceeded_is_told_with_both_numbers(api: NodeApi) -> None:
    status, answer = await ask(api, messages=[{"role": "user", "content": "hello " * 600}])
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "512 tokens" in answer["error"]["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str)
async def test_a_required_call_is_made(api: NodeApi, choice: Any) -> None:
    _, answer = await ask(api, messages=[QUESTION], tools=[WEATHER], tool_choice=choice, max_tokens=80)
    (made,) = answer["choices"][0]["message"]["tool_calls"]
    assert made["function"]["name"] == "weather"
    assert set(json.loads(made["function"]["arguments"])) == {"city"}
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_call_survives_streaming(api: NodeApi) -> None:
    _, chunks = await ask(api, messages=[QUESTION], tools=[WEATHER], tool_choice="required", max_tokens=80, stream=True)
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "weather"
    assert json.loads("".join(call["function"]["arguments"] for call in calls))
    assert len(calls) > 3


async def test_after_the_result_the_answer_is_words(api: NodeApi) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    conversation = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Sunny, 30 degrees."},
    ]
    _, answer = await ask(api, messages=conversation, tools=[WEATHER], max_tokens=40)
    assert answer["choices"][0]["message"]["content"]
    assert "tool_calls" not in answer["choices"][0]["message"]


STRANGE = [f'a "{sign}" \\ {number}' for sign in ("(", "[x]", "é", "☃", ".*", "^$", "-", "\n") for number in range(8)]


@pytest.mark.parametrize(
    "values",
    [
        [f"item number {number}" for number in range(999)],
        [f"{day} {hour}:00" for day in ("Monday", "Tuesday", "Sunday") for hour in range(24)],
        STRANGE,
        list(range(999)),
    ],
    ids=["shared beginnings", "times", "signs", "numbers"],
)
async def test_an_answer_out_of_a_long_enum_is_one_of_its_values(api: NodeApi, values: list[Any]) -> None:
    """The engine is given other words for it (`openai.enums`); what it writes must not show."""
    schema = {
        "type": "object",
        "properties": {"all": {"type": "array", "items": {"enum": values}, "minItems": 4, "maxItems": 4}},
        "required": ["all"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "chosen", "schema": schema, "strict": True}}
    for seed in range(2):
        status, answer = await ask(
            api, messages=[QUESTION], response_format=form, temperature=2.0, seed=seed, max_tokens=200
        )
        assert status == 200, answer
        chosen = json.loads(answer["choices"][0]["message"]["content"])["all"]
        assert len(chosen) == 4
        assert all(any(each == value and type(each) is type(value) for value in values) for each in chosen)


async def test_an_answer_follows_its_schema(api: NodeApi) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    _, answer = await ask(api, messages=[QUESTION], response_format=form, max_tokens=80)
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"name", "age"}


async def test_a_schema_nobody_can_follow_is_the_callers_fault(api: NodeApi) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}}
    status, answer = await ask(api, messages=[QUESTION], response_format=form)
    assert (status, answer["error"]["param"]) == (400, "response_format")


@pytest.mark.parametrize("most", [0, 2])
async def test_log_probabilities_are_as_many_as_asked(api: NodeApi, most: int) -> None:
    _, answer = await ask(api, messages=[QUESTION], logprobs=True, top_logprobs=most, max_tokens=3)
    scores = answer["choices"][0]["logprobs"]["content"]
    assert [len(score["top_logprobs"]) for score in scores] == [most] * 3
    assert all(score["logprob"] <= 0 for score in scores)


async def test_several_choices_begin_in_order_and_their_usage_is_told_once(api: NodeApi) -> None:
    _, chunks = await ask(
        api,
        messages=[QUESTION],
        n=2,
        temperature=1,
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    roles = [c["index"] for chunk in chunks for c in chunk["choices"] if "role" in c["delta"]]
    assert roles == [0, 1]
    (usage,) = [chunk["usage"] for chunk in chunks if chunk["usage"]]
    assert usage["completion_tokens"] == 6


async def test_equal_seeds_give_equal_answers_also_those_llama_takes_for_none(api: NodeApi) -> None:
    said = [
        (await ask(api, messages=[QUESTION], seed=seed, temperature=2, max_tokens=12))[1]["choices"][0]["message"]
        for seed in (-1, -1, 2**32 - 1, 2**32 - 1)
    ]
    assert said[0] == said[1]
    assert said[2] == said[3]
    assert said[0] != said[2]


async def test_completions_of_several_prompts_echo_and_count_each_prompt(api: NodeApi) -> None:
    _, answer = await ask(api, COMPLETIONS, prompt=["Once upon", "The sea"], echo=True, max_tokens=2)
    assert [choice["text"][:7] for choice in answer["choices"]] == ["Once up", "The sea"]
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 4


async def test_an_answer_that_was_dropped_has_cost_what_it_cost(api: NodeApi) -> None:
    body = json.dumps({"model": SMOL, "messages": [QUESTION], "stream": True, "max_tokens": 200}).encode()
    async with api.answer(CHAT, body) as answer:
        pieces = 0
        async for _ in answer.body():
            pieces += 1
            if pieces == 6:
                break
        usage = answer.usage
    assert usage["prompt_tokens"] > 10
    assert 4 <= usage["completion_tokens"] <= 12


async def said(api: NodeApi, **fields: Any) -> str:
    """What the model says to a question whose plain answer repeats itself, greedily unless told otherwise."""
    fields = {"messages": [{"role": "user", "content": "Write the word sea many times."}], "max_tokens": 24, **fields}
    text: str = (await ask(api, **fields))[1]["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 2, "seed": 3},
        {"frequency_penalty": 2},
        {"presence_penalty": 2},
        {"repeat_penalty": 2},
        {"max_tokens": 3},
        {"max_completion_tokens": 3, "max_tokens": None},
        {"stop": " "},
        {"stop": ["e", "a"]},
    ],
    ids=json.dumps,
)
async def test_an_option_changes_what_the_model_says(api: NodeApi, fields: dict[str, Any]) -> None:
    assert await said(api, **fields) != await said(api)


@pytest.mark.parametrize("narrow", [{"top_p": 0}, {"top_k": 1}, {"min_p": 1}], ids=json.dumps)
async def test_an_option_that_leaves_one_choice_makes_the_wildest_model_say_its_first(
    api: NodeApi, narrow: dict[str, Any]
) -> None:
    assert await said(api, temperature=2, seed=3, **narrow) == await said(api)


async def test_a_token_that_is_wanted_comes_and_one_that_is_banned_does_not(api: NodeApi) -> None:
    fields: dict[str, Any] = {"prompt": "The sea is", "max_tokens": 1}
    _, plain = await ask(api, COMPLETIONS, **fields)
    _, wanted = await ask(api, COMPLETIONS, **fields, logit_bias={"1000": 100})
    _, banned = await ask(api, COMPLETIONS, **fields, logit_bias={"1000": -100, "1001": 100})
    said_each = {answer["choices"][0]["text"] for answer in (plain, wanted, banned)}
    assert len(said_each) == 3


async def test_a_stop_is_not_part_of_what_is_said(api: NodeApi) -> None:
    _, answer = await ask(api, COMPLETIONS, prompt="one, two, three, four,", stop=["six"], max_tokens=20)
    assert "six" not in answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] == "stop"
