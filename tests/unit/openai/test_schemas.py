"""How large a JSON schema may be before it holds others up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.requests import read_chat
from tokenplace.openai.schemas import MAX_PATTERN, MAX_WAYS, MAX_WORDS, check


def text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


FINE: list[dict[str, Any]] = [
    {},
    {"type": "string", "enum": [f"v{number}" for number in range(MAX_WAYS)]},
    {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(300)}},
    {"$defs": {"tree": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}}, "$ref": "#/$defs/tree"},
    text(r"^([0-9]{1,3}\.){3}[0-9]{1,3}$"),
    text(r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"),
    text(r"^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"),
    text(r"^[a-f0-9]{64}$"),
    text(r"^.{0,500}$"),
    text(r"^(https?://)?([\da-z.-]+)\.([a-z.]{2,6})([/\w .-]*)*/?$"),
    text(r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$"),
    text(r"^(a{1,30}){1,30}$"),
    text("^" + "[({]" * 200 + "$"),
]
TOO_LARGE: list[dict[str, Any]] = [
    {"type": "string", "enum": [f"v{number}" for number in range(MAX_WAYS + 1)]},
    {"anyOf": [{"anyOf": [{"const": f"{a}-{b}"} for a in range(40)]} for b in range(40)]},
    {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(MAX_WAYS + 1)}},
    {"type": "string", "enum": ["x" * (MAX_WORDS + 1)]},
    text("^((((a?){50}){50}){50}){50}$"),
    text("^(((a*)*)*)*$"),
    text("^(a{1000}){1000}$"),
    text("^(a?){500}$"),
    text("^(a{0,30}){30}$"),
    text("^((a?b?){9}){9}$"),
    text("a" * (MAX_PATTERN + 1)),
    text("a{999999}"),
    {"properties": {"deep": {"items": text("(a{200}){200}")}}},
]


@pytest.mark.parametrize("schema", FINE, ids=lambda schema: str(schema)[:60])
def test_schemas_that_people_write_are_followed(schema: dict[str, Any]) -> None:
    assert check([schema]) is None


@pytest.mark.parametrize("schema", TOO_LARGE, ids=lambda schema: str(schema)[:60])
def test_a_schema_that_would_stop_the_engine_is_refused(schema: dict[str, Any]) -> None:
    assert check([schema]) is not None


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}).encode()


def test_the_refusal_names_the_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": TOO_LARGE[0]}}
    with pytest.raises(ApiError) as caught:
        read_chat(chat(response_format=form))
    assert caught.value.param == "response_format.json_schema.schema"
    assert (caught.value.status, caught.value.code) == (400, "invalid_value")


def test_functions_count_together() -> None:
    half = {"type": "string", "enum": [f"v{number}" for number in range(MAX_WAYS // 2 + 1)]}

    def tools(count: int) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": f"f{at}", "parameters": half}} for at in range(count)]

    read_chat(chat(tools=tools(15)))
    with pytest.raises(ApiError) as caught:
        read_chat(chat(tools=tools(16)))
    assert (caught.value.param, caught.value.code) == ("tools", "invalid_value")
