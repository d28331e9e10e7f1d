"""What an engine refuses: a fault of the caller, translated for him, or one that another node may not have.

Engines answer faults of the caller with 500, codes that are numbers and no `param`; and faults of the node's owner
(a wrong key, a missing model) with what would read as a fault of the caller. Words of the engine are passed on only
where they are about the caller's own request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tokenplace.errors import ApiError, EngineCrashed, EngineError, EngineFull

MAX_WORDS = 1000
"""Characters of an engine's message that are passed on."""

_TOO_LONG = re.compile(
    r"exceed(?:s|_)?.{0,40}context|context.{0,40}exceed|maximum context length|context_length_exceeded", re.I
)
_BATCH = re.compile(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)", re.S)
"""llama.cpp on an input of /v1/embeddings that has more tokens than it computes at once."""

_SCHEMA = re.compile(r"JSON schema|json_schema|grammar|\$ref", re.I)
_PICTURE = re.compile(r"image|mmproj|multimodal", re.I)
_TEMPLATE = re.compile(r"template|jinja|raise_exception|roles? must|alternate|must be|required|expected|invalid", re.I)
_PLACE = re.compile(r"https?://[^\s'\"]+|(?<![\w#/.$])(?:[A-Za-z]:)?[\\/](?:[\w. -]+[\\/])+[\w.-]+")
"""Files and addresses of the volunteer's machine; references in a JSON schema (`#/$defs/City`) are none."""

_ABOUT = (("logprobs", re.compile(r"logprobs")), ("response_format", _SCHEMA))
"""Which parameter a complaint is about, where the engine does not say."""


@dataclass(frozen=True, slots=True)
class _Told:
    message: str
    type: str
    code: str
    param: str | None
    prompt_tokens: int | None
    context: int | None


def _read(body: bytes) -> _Told:
    try:
        raw: Any = json.loads(body)
    except (ValueError, RecursionError):
        raw = None
    error: Any = raw.get("error", raw) if isinstance(raw, dict) else raw
    if not isinstance(error, Mapping):
        error = {"message": error if isinstance(error, str) else ""}

    def text(key: str) -> str:
        value = error.get(key)
        return value[:MAX_WORDS] if isinstance(value, str) else ""

    def count(key: str) -> int | None:
        value = error.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    return _Told(
        message=text("message") or text("detail"),
        type=text("type"),
        code=text("code"),
        param=text("param") or None,
        prompt_tokens=count("n_prompt_tokens"),
        context=count("n_ctx"),
    )


def too_long(prompt_tokens: int | None, context: int | None, param: str) -> ApiError:
    """The words do not fit; both numbers, as far as they are known."""
    most = f"This model's maximum context length is {context} tokens." if context else "The context is full."
    yours = f"However, your request has {prompt_tokens} tokens." if prompt_tokens else "Your request has more."
    return ApiError(
        f"{most} {yours} Please shorten it.",
        param=param,
        code="context_length_exceeded",
    )


def translate(status: int, body: bytes, *, context: int | None, words: str = "messages") -> ApiError | EngineError:
    """An engine's error answer: an ApiError where the caller is at fault, else an EngineError.

    `words` is the parameter that carries them, `context` the model's size.
    """
    told = _read(body)
    if batch := _BATCH.search(told.message):
        return too_long(int(batch[1]), int(batch[2]), words)
    if told.type == "exceed_context_size_error" or (
        status != HTTPStatus.INTERNAL_SERVER_ERROR and _TOO_LONG.search(f"{told.message} {told.code}")
    ):
        if told.prompt_tokens is None and told.message:
            return ApiError(_PLACE.sub("…", told.message), param=words, code="context_length_exceeded")
        return too_long(told.prompt_tokens, told.context or context, words)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return EngineFull()
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return EngineCrashed()
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return _callers_fault(told, words)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and _blames_request(told):
        return _callers_fault(told, words)
    return EngineError()  # 401, 403, 404 and the rest are between the node and its engine


def in_stream(data: bytes, *, context: int | None, words: str) -> ApiError | EngineError:
    """An error event inside a stream whose status was 200; its `code` may be the status it should have had."""
    try:
        code = json.loads(data)["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        code = None
    status = code if isinstance(code, int) and 400 <= code < 600 else HTTPStatus.INTERNAL_SERVER_ERROR
    return translate(status, data, context=context, words=words)


def _blames_request(told: _Told) -> bool:
    return any(sign.search(told.message) for sign in (_SCHEMA, _PICTURE, _TEMPLATE))


def _callers_fault(told: _Told, words: str) -> ApiError:
    message = _PLACE.sub("…", told.message) or "The model runtime refused this request without saying why."
    param = told.param or next((name for name, sign in _ABOUT if sign.search(message)), words)
    return ApiError(message, param=param, code=told.code or "invalid_request_error")
