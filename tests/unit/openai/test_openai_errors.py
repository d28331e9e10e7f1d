from __future__ import annotations

import json
from typing import Any

import pytest

from tokenplace.errors import ApiError, EngineCrashed, EngineError, EngineFull
from tokenplace.openai.errors import in_stream, translate


def translated(status: int, error: Any, *, context: int | None = 2048) -> ApiError | EngineError:
    body = error if isinstance(error, bytes) else json.dumps({"error": error}).encode()
    return translate(status, body, context=context)


def told(status: int, error: Any, *, context: int | None = 2048) -> ApiError:
    refusal = translated(status, error, context=context)
    assert isinstance(refusal, ApiError)
    return refusal


def test_a_context_that_is_exceeded_is_told_with_both_numbers() -> None:
    refusal = told(
        400,
        {
            "code": 400,
            "message": "request (6031 tokens) exceeds the available context size (2048 tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 6031,
            "n_ctx": 2048,
        },
    )
    assert refusal.as_json()["error"] == {
        "message": "This model's maximum context length is 2048 tokens. "
        "However, your request has 6031 tokens. Please shorten it.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    assert refusal.status == 400


def test_openais_own_words_for_a_context_that_is_exceeded_pass() -> None:
    words = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."
    refusal = told(400, {"message": words, "code": "context_length_exceeded", "type": "invalid_request_error"})
    assert (refusal.message, refusal.code) == (words, "context_length_exceeded")


CASES: list[tuple[int, Any, int, str, str, str | None]] = [
    # status, error → status, type, code, param
    (400, {"code": 400, "message": "bad n"}, 400, "invalid_request_error", "invalid_request_error", "messages"),
    (422, {"message": "x", "param": "n"}, 400, "invalid_request_error", "invalid_request_error", "n"),
    (400, {"message": "x", "code": "odd"}, 400, "invalid_request_error", "odd", "messages"),
    (
        400,
        {"message": "JSON schema error at #: unrecognized type nope"},
        400,
        "invalid_request_error",
        "invalid_request_error",
        "response_format",
    ),
    (
        400,
        {"message": "logprobs is not supported with tools + stream"},
        400,
        "invalid_request_error",
        "invalid_request_error",
        "logprobs",
    ),
    (
        500,
        {"code": 500, "message": "image input is not supported - hint: mmproj", "type": "server_error"},
        400,
        "invalid_request_error",
        "invalid_request_error",
        "messages",
    ),
    (
        500,
        {"message": "Jinja Exception: Conversation roles must alternate user/assistant"},
        400,
        "invalid_request_error",
        "invalid_request_error",
        "messages",
    ),
    (400, b"", 400, "invalid_request_error", "invalid_request_error", "messages"),
    (400, b'{"error":"just words"}', 400, "invalid_request_error", "invalid_request_error", "messages"),
    (400, b'{"detail":"words"}', 400, "invalid_request_error", "invalid_request_error", "messages"),
]


@pytest.mark.parametrize(
    ("given", "error", "status", "type", "code", "param"), CASES, ids=lambda value: str(value)[:50]
)
def test_what_an_engine_refuses_becomes(
    given: int, error: Any, status: int, type: str, code: str, param: str | None
) -> None:
    refusal = told(given, error)
    assert (refusal.status, refusal.type, refusal.code, refusal.param) == (status, type, code, param)
    assert refusal.message


@pytest.mark.parametrize(
    ("given", "error", "kind"),
    [
        (500, {"message": "CUDA error: out of memory"}, EngineError),
        (500, b"<html>", EngineError),
        (500, b"", EngineError),
        (500, b"[" * 5000, EngineError),
        (401, {"message": "Incorrect API key provided: sk-secret"}, EngineError),
        (403, {"message": "no"}, EngineError),
        (404, {"message": "model 'x' not found"}, EngineError),
        (429, {"message": "slow down"}, EngineFull),
        (503, {"message": "Loading model"}, EngineCrashed),
        (302, b"", EngineError),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_not_the_callers_fault_is_the_engines(given: int, error: Any, kind: type[EngineError]) -> None:
    assert type(translated(given, error)) is kind


def test_what_is_between_the_node_and_its_engine_is_not_passed_on() -> None:
    assert "sk-secret" not in translated(401, {"message": "Incorrect API key provided: sk-secret"}).message


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ("cannot open /home/bob/models/a-b.gguf here", "cannot open … here"),
        ("cannot open C:\\Users\\Bob\\a.gguf here", "cannot open … here"),
        ("see http://192.168.1.5:8000/v1/x for more", "see … for more"),
        ("cannot resolve $ref #/$defs/City/x, x not found", "cannot resolve $ref #/$defs/City/x, x not found"),
        ("roles must alternate user/assistant/user", "roles must alternate user/assistant/user"),
    ],
)
def test_files_and_addresses_of_the_node_are_not_passed_on(words: str, passed: str) -> None:
    assert told(400, {"message": words}).message == passed


def test_a_long_complaint_is_cut() -> None:
    assert len(told(400, {"message": "x" * 100_000}).message) == 1000


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"error":{"code":400,"message":"bad"}}', ApiError),
        (b'{"error":{"code":500,"message":"oom"}}', EngineError),
        (b'{"error":{"message":"no code"}}', EngineError),
        (b'{"error":"words"}', EngineError),
        (b"nonsense", EngineError),
    ],
)
def test_an_error_inside_a_stream_is_what_its_status_would_have_made_it(data: bytes, kind: type) -> None:
    assert type(in_stream(data, context=None, words="messages")) is kind
