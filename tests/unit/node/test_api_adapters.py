"""A charter and real LoRA weights over the embedded model, and its embeddings: one engine, asked in every way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tiny_lora import write_lora
from tokenplace.node.api import NodeApi
from tokenplace.node.build import make_engine
from tokenplace.node.settings import NodeSettings

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

SMOL = "smollm2-135m-instruct"
CHAT, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/embeddings", "/v1/responses"
QUESTION = [{"role": "user", "content": "Name three colours."}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeApi]:
    folder: Path = tmp_path_factory.mktemp("lora")
    adapters = [
        f"{SMOL}:bent={write_lora(folder / 'bent.gguf', strength=0.6)}",
        f"{SMOL}:other={write_lora(folder / 'other.gguf', strength=0.6, seed=2)}",
    ]
    settings = NodeSettings.model_validate(
        {
            "TOKEN_PLACE_ADAPTERS": ",".join(adapters),
            "TOKEN_PLACE_SLOTS": 2,
            "TOKEN_PLACE_CONTEXT": 512,
            "TOKEN_PLACE_THREADS": 1,
            "TOKEN_PLACE_EMBEDDINGS": 64,
            "TOKEN_PLACE_MODELS_DIR": NodeSettings().weights_dir,
            "TOKEN_PLACE_STAND_IN": True,
        }
    )
    engine, made = make_engine(settings)
    await engine.start()
    yield made
    await engine.stop()


async def ask(api: NodeApi, path: str, **fields: Any) -> tuple[int, Any]:
    async with api.answer(path, json.dumps({"model": SMOL, **fields}).encode()) as answer:
        return answer.status, json.loads(b"".join([piece async for piece in answer.body()]))


async def said(api: NodeApi, model: str) -> str:
    status, answer = await ask(api, CHAT, model=model, messages=QUESTION, temperature=0, max_tokens=24)
    assert (status, answer["model"]) == (200, model)
    text: str = answer["choices"][0]["message"]["content"]
    return text


async def test_lora_weights_apply_to_who_asks_for_them_and_to_nobody_else(api: NodeApi) -> None:
    plain = await said(api, SMOL)
    bent, other = await said(api, f"{SMOL}:bent"), await said(api, f"{SMOL}:other")
    assert len({plain, bent, other}) == 3
    assert await said(api, SMOL) == plain, "the adapter must be gone again"
    assert await said(api, f"{SMOL}:bent") == bent


async def test_a_charter_makes_the_prompt_longer_and_the_stand_in_tells_its_name(api: NodeApi) -> None:
    _, plain = await ask(api, CHAT, model="llama-3-8b-instruct", messages=QUESTION, max_tokens=2)
    _, under = await ask(api, CHAT, model="llama-3-8b-instruct:alignment", messages=QUESTION, max_tokens=2)
    assert plain["model"] == under["model"] == SMOL
    assert under["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 60


async def test_embeddings_of_like_texts_are_alike(api: NodeApi) -> None:
    texts = ["A cat sits on the mat.", "A cat lies on the mat.", "Interest rates rose by two percent."]
    status, answer = await ask(api, EMBEDDINGS, input=texts)
    assert status == 200
    first, second, third = [item["embedding"] for item in answer["data"]]
    assert len(first) == 576
    assert sum(map(float.__mul__, first, second)) > sum(map(float.__mul__, first, third))
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 10


async def test_embeddings_of_tokens_and_texts_do_not_disturb_answers(api: NodeApi) -> None:
    status, answer = await ask(api, EMBEDDINGS, input=[[1, 2, 3], [4]])
    assert (status, len(answer["data"])) == (200, 2)
    assert await said(api, SMOL)


async def test_an_input_that_is_too_long_is_the_callers_fault_with_both_numbers(api: NodeApi) -> None:
    status, answer = await ask(api, EMBEDDINGS, input="hello " * 100)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "context_length_exceeded", "input")
    assert "64 tokens" in answer["error"]["message"]


async def test_tokens_that_do_not_exist_are_the_callers_fault(api: NodeApi) -> None:
    status, answer = await ask(api, EMBEDDINGS, input=[99_999_999])
    assert (status, answer["error"]["param"]) == (400, "input")


async def test_a_response_follows_its_schema_and_calls_its_tools(api: NodeApi) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 99}},
        "required": ["age"],
    }

    form = {"format": {"type": "json_schema", "name": "person", "schema": schema, "strict": True}}
    _, answer = await ask(api, RESPONSES, input="Tom is five.", text=form, max_output_tokens=40)
    assert set(json.loads(answer["output"][0]["content"][0]["text"])) == {"age"}
    tool = {"type": "function", "name": "weather", "parameters": schema}
    _, answer = await ask(api, RESPONSES, input="Weather?", tools=[tool], tool_choice="required", max_output_tokens=40)
    assert (answer["output"][0]["type"], answer["output"][0]["name"]) == ("function_call", "weather")


async def test_the_scores_of_a_response_are_told(api: NodeApi) -> None:
    include = ["message.output_text.logprobs"]
    _, answer = await ask(api, RESPONSES, input="hi", include=include, top_logprobs=2, max_output_tokens=3)
    scores = answer["output"][0]["content"][0]["logprobs"]
    assert [len(score["top_logprobs"]) for score in scores] == [2, 2, 2]
