"""Whatever JSON stands in whichever place of a request: the answer is an answer or a refusal that names a parameter."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenplace.errors import EngineError
from tokenplace.node.api import NodeApi
from tokenplace.openai.asking import Traits
from tokenplace.openai.screening import PhraseScreen
from unit.node.test_api import CHAT, COMPLETIONS, EMBEDDINGS, HELLO_WORLD, IMAGES, PNG, RESPONSES, ScriptedEngine, ask

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}}
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: {
        "model": "tiny",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "x"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
            {"role": "user", "content": "hi", "name": "a"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": FORM,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["a"],
        "logit_bias": {"5": 1},
        "logprobs": True,
        "top_logprobs": 2,
        "metadata": {"a": "b"},
        "seed": 5,
        "n": 2,
    },
    COMPLETIONS: {"model": "tiny", "prompt": ["a", "b"], "stop": "x", "logprobs": 2, "echo": False, "best_of": 1},
    RESPONSES: {
        "model": "tiny",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "42"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
            {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
        "include": ["message.output_text.logprobs"],
        "reasoning": {"effort": "low"},
        "stream": True,
    },
    EMBEDDINGS: {"model": "tiny", "input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 2},
    IMAGES: {"prompt": "sea", "size": "32x32", "n": 1, "seed": 5, "response_format": "b64_json"},
}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["function", "required", "json_object", "user", "system", "tool", PNG, "data:image/png;base64,", "64x64"]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += places(child, (*path, key))
    return found


def changed(request: dict[str, Any], path: tuple[Any, ...], value: Any, *, removed: bool) -> dict[str, Any]:
    made = copy.deepcopy(request)
    place: Any = made
    for step in path[:-1]:
        place = place[step]
    if removed:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("native", [True, False], ids=["native tools", "forced tools"])
def test_whatever_stands_anywhere_is_answered_or_refused(path: str, native: bool) -> None:
    request = REQUESTS[path]

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(places(request)), JSON, st.booleans())
    def once(place: tuple[Any, ...], value: Any, removed: bool) -> None:
        body = json.dumps(changed(request, place, value, removed=removed)).encode()
        traits = Traits(native_tools=native, embeddings=True, reasoning=True, samplers=frozenset({"top_k"}))
        api = NodeApi(ScriptedEngine(*HELLO_WORLD), traits=traits, screen=PhraseScreen(["zxqj"]))
        try:
            got = asyncio.run(ask(api, body, path))
        except EngineError:  # the script gives one answer of chat, whatever was asked
            return
        if got.status != 200:
            error = got.error
            assert set(error) == {"message", "type", "param", "code"}
            assert error["message"]
            assert got.status in (400, 404) or path == EMBEDDINGS, error

    once()
