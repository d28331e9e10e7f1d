"""From settings to an engine and its API, as far as no weights are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokenplace.errors import EngineError
from tokenplace.node.build import ECHO, _dealt_out, make_engine
from tokenplace.node.engines.several import SeveralEngines
from tokenplace.node.settings import NodeSettings
from tokenplace.openai.screening import DEFAULT_PHRASES


def settings(**fields: Any) -> NodeSettings:
    return NodeSettings.model_validate(fields)


async def refusal(made: NodeSettings, **fields: Any) -> dict[str, Any]:
    engine, api = make_engine(made)
    await engine.start()
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], **fields}
    async with api.answer("/v1/chat/completions", json.dumps(body).encode()) as answer:
        told = json.loads(b"".join([piece async for piece in answer.body()]))
    await engine.stop()
    error: dict[str, Any] = told.get("error", {})
    return error


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True},
        {"logit_bias": {"5": 1}},
        {"response_format": {"type": "json_object"}},
        {"stop": "a"},
        {"tools": [TOOL]},
        {"functions": [TOOL["function"]]},
        {"n": 2},
        {"reasoning_effort": "low"},
    ],
)
async def test_a_parrot_refuses_what_it_cannot_do(fields: dict[str, Any]) -> None:
    error = await refusal(settings(TOKEN_PLACE_ENGINE="echo"), **fields)
    assert error["param"] == next(iter(fields))


async def test_a_parrot_says_what_it_can() -> None:
    assert await refusal(settings(TOKEN_PLACE_ENGINE="echo"), temperature=1, max_tokens=5) == {}
    assert not ECHO.native_tools


async def test_the_settings_moderate_and_let_the_parrot_stand_in() -> None:
    moderated = settings(
        TOKEN_PLACE_ENGINE="echo", CONTENT_MODERATION_MODE="block", CONTENT_MODERATION_BLOCKLIST="hello"
    )
    assert (await refusal(moderated))["code"] == "content_blocked"
    assert (await refusal(settings(TOKEN_PLACE_ENGINE="echo"), model="gpt-3.5-turbo"))["code"] == "model_not_found"
    assert await refusal(settings(TOKEN_PLACE_ENGINE="echo", TOKEN_PLACE_STAND_IN="1"), model="gpt-3.5-turbo") == {}


@pytest.mark.parametrize("mode", ["", "off", "Disabled", " none "])
def test_moderation_is_off(mode: str) -> None:
    assert settings(CONTENT_MODERATION_MODE=mode, CONTENT_MODERATION_BLOCKLIST="x").phrases == ()


@pytest.mark.parametrize("mode", ["block", "1", "true", "on", "whatever"])
@pytest.mark.parametrize(
    ("defaults", "phrases"),
    [("1", (*DEFAULT_PHRASES, "a", "b c")), ("no", ("a", "b c")), ("0", ("a", "b c")), ("False", ("a", "b c"))],
)
def test_moderation_is_on_with_the_lists_that_are_wanted(mode: str, defaults: str, phrases: tuple[str, ...]) -> None:
    made = settings(
        CONTENT_MODERATION_MODE=mode,
        CONTENT_MODERATION_BLOCKLIST="a, b c,,",
        CONTENT_MODERATION_INCLUDE_DEFAULTS=defaults,
    )
    assert made.phrases == phrases


def test_lora_files_are_named_as_pairs(tmp_path: Path) -> None:
    assert settings(TOKEN_PLACE_ADAPTERS=f"bold={tmp_path}/b.gguf").lora_files == {"bold": tmp_path / "b.gguf"}
    for wrong in ("bold", "=x", "bold="):
        with pytest.raises(ValueError, match="ID=FILE"):
            _ = settings(TOKEN_PLACE_ADAPTERS=wrong).lora_files


def test_an_engine_is_one_of_three_kinds() -> None:
    with pytest.raises(EngineError, match="llama, echo, auto or"):
        make_engine(settings(TOKEN_PLACE_ENGINE="magic"))


def test_several_engines_are_named_with_commas_and_work_as_one() -> None:
    engine, _ = make_engine(
        settings(TOKEN_PLACE_ENGINE="http://127.0.0.1:9, http://127.0.0.1:10", TOKEN_PLACE_MODEL="a,b")
    )
    assert isinstance(engine, SeveralEngines)
    assert engine.slots == 4


def test_what_the_catalogue_knows_is_ours_and_the_rest_is_the_servers() -> None:
    names = ["llama-3-8b-instruct", "gpt-3.5-turbo", "hf:a/b/c.gguf", "llama3.2:latest"]
    assert _dealt_out(names, inside=True, outside=True) == (names[:3], names[3:])
    assert _dealt_out(names, inside=False, outside=True)[1] == names
