from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.messages import text_of
from tokenplace.openai.requests import ChatRequest, read_chat

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PNG_URI = f"data:image/png;base64,{PNG}"
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "42"}
USER = {"role": "user", "content": "hello"}


def read(*messages: Any) -> ChatRequest:
    return read_chat(json.dumps({"model": "m", "messages": messages}).encode())


TAKEN: list[list[dict[str, Any]]] = [
    [USER],
    [{"role": "user", "content": ""}],
    [{"role": "system", "content": "be kind"}, USER],
    [{"role": "developer", "content": [{"type": "text", "text": "be kind"}]}, USER],
    [{"role": "system", "content": "x", "name": "adapter:llama-3-8b-instruct:alignment"}, USER],
    [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]}],
    [{"role": "user", "content": "a", "name": "Ann"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG_URI, "detail": "low"}}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": PNG_URI}]}],
    [{"role": "user", "content": [{"type": "input_image", "image_url": PNG_URI}]}],
    [{"role": "user", "content": [{"type": "input_image", "image": {"b64_json": PNG}}]}],
    [{"role": "user", "content": [{"type": "input_image", "image_url": {"base64": PNG}}]}],
    [USER, {"role": "assistant", "content": "hi"}, USER],
    [USER, {"role": "assistant", "content": None, "refusal": "no"}, USER],
    [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, USER],
    [USER, {"role": "assistant", "content": "hi", "annotations": [], "audio": None, "function_call": None}, USER],
    [USER, CALLING, RESULT],
    [USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT],
    [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT, USER],
    [USER, {**CALLING, "tool_calls": [CALL, {**CALL, "id": "c2"}]}, {**RESULT, "tool_call_id": "c2"}, RESULT],
    [USER, CALLING, RESULT, CALLING, RESULT],
    [USER, {**CALLING, "tool_calls": [{**CALL, "index": 0}]}, RESULT],
    [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
    ],
]


@pytest.mark.parametrize("messages", TAKEN, ids=lambda value: json.dumps(value)[:70])
def test_a_conversation_may_be(messages: list[dict[str, Any]]) -> None:
    assert len(read(*messages).messages) == len(messages)


def user(part: Any) -> list[Any]:
    return [{"role": "user", "content": [part]}]


REFUSED: list[tuple[list[Any], str, str]] = [
    (["hello"], "messages[0]", "invalid_type"),
    ([{"content": "x"}], "messages[0].role", "missing_required_parameter"),
    ([{"role": "robot", "content": "x"}], "messages[0].role", "invalid_value"),
    ([{"role": 5, "content": "x"}], "messages[0].role", "invalid_type"),
    ([{"role": "user"}], "messages[0].content", "missing_required_parameter"),
    ([{"role": "user", "content": None}], "messages[0].content", "invalid_type"),
    ([{"role": "user", "content": 5}], "messages[0].content", "invalid_type"),
    ([{"role": "user", "content": []}], "messages[0].content", "empty_array"),
    ([USER, {"role": "user", "content": "x", "tool_calls": []}], "messages[1].tool_calls", "unknown_parameter"),
    ([{"role": "user", "content": "x", "name": ""}], "messages[0].name", "empty_string"),
    (user("x"), "messages[0].content[0]", "invalid_type"),
    (user({"text": "x"}), "messages[0].content[0].type", "missing_required_parameter"),
    (user({"type": "smell"}), "messages[0].content[0].type", "invalid_value"),
    (user({"type": "input_audio", "input_audio": {}}), "messages[0].content[0].type", "unsupported_value"),
    (user({"type": "file", "file": {}}), "messages[0].content[0].type", "unsupported_value"),
    (user({"type": "text"}), "messages[0].content[0].text", "missing_required_parameter"),
    (user({"type": "text", "text": "a", "b": 1}), "messages[0].content[0].b", "unknown_parameter"),
    (user({"type": "refusal", "refusal": "a"}), "messages[0].content[0].type", "invalid_value"),
    (
        user({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}),
        "messages[0].content[0].image_url.url",
        "invalid_value",
    ),
    (
        user({"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}),
        "messages[0].content[0].image_url.url",
        "invalid_value",
    ),
    (
        user({"type": "image_url", "image_url": {"url": "data:text/html;base64,AAAA"}}),
        "messages[0].content[0].image_url.url",
        "invalid_value",
    ),
    (
        user({"type": "image_url", "image_url": {"url": PNG_URI, "detail": "huge"}}),
        "messages[0].content[0].image_url.detail",
        "invalid_value",
    ),
    (user({"type": "input_image"}), "messages[0].content[0]", "invalid_value"),
    (user({"type": "input_image", "image": {"x": PNG}}), "messages[0].content[0].image", "invalid_value"),
    (
        [{"role": "system", "content": [{"type": "image_url", "image_url": PNG_URI}]}],
        "messages[0].content[0].type",
        "invalid_value",
    ),
    ([USER, {"role": "assistant"}], "messages[1].content", "invalid_value"),
    ([USER, {"role": "assistant", "content": None, "tool_calls": []}], "messages[1].content", "invalid_value"),
    (
        [USER, {"role": "assistant", "tool_calls": [{"id": "a", "type": "function"}]}],
        "messages[1].tool_calls[0].function",
        "missing_required_parameter",
    ),
    (
        [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}],
        "messages[1].tool_calls[0].function.arguments",
        "invalid_type",
    ),
    ([USER, RESULT], "messages[1].tool_call_id", "invalid_value"),
    ([USER, {"role": "tool", "content": "x"}], "messages[1].tool_call_id", "missing_required_parameter"),
    ([USER, CALLING, {**RESULT, "tool_call_id": "c9"}], "messages[2].tool_call_id", "invalid_value"),
    ([USER, CALLING, RESULT, RESULT], "messages[3].tool_call_id", "invalid_value"),
    ([USER, CALLING], "messages[1].tool_calls", "invalid_value"),
    ([USER, CALLING, USER, RESULT], "messages[1].tool_calls", "invalid_value"),
    ([USER, {**CALLING, "tool_calls": [CALL, CALL]}, RESULT], "messages[1].tool_calls", "invalid_value"),
    ([USER, {"role": "function", "content": "x"}], "messages[1].name", "missing_required_parameter"),
    ([USER, {"role": "function", "content": "x", "name": "f"}], "messages[1].name", "invalid_value"),
]


@pytest.mark.parametrize(("messages", "param", "code"), REFUSED, ids=lambda value: str(value)[:70])
def test_a_conversation_is_refused_at_the_place_that_is_wrong(messages: list[Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(*messages)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


def test_a_wrong_role_is_answered_with_the_roles_there_are() -> None:
    with pytest.raises(ApiError) as caught:
        read({"role": "robot", "content": "x"})
    assert caught.value.message == (
        "Invalid value: 'robot'. "
        "Supported values are: 'system', 'developer', 'user', 'assistant', 'tool' or 'function'."
    )


def test_the_parts_of_a_message_are_its_words_line_by_line() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "input_text", "text": "two"}]
    message: Any = read({"role": "user", "content": parts}).messages[0]
    assert text_of(message.content) == "one\ntwo"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (base64.b64decode(PNG), "image/png"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\1\0\1", "image/jpeg"),
        (b"GIF89a\1\0\1\0", "image/gif"),
        (b"RIFF0000WEBPVP8L0000\x2f\0\0\0\0", "image/webp"),
    ],
)
def test_a_picture_without_a_media_type_is_known_by_its_first_bytes(head: bytes, kind: str) -> None:
    text = base64.b64encode(head).decode()
    message: Any = read(*user({"type": "input_image", "image": {"data": text}})).messages[0]
    assert message.content[0].url == f"data:{kind};base64,{text}"
