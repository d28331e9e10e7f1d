"""The API described for machines (OpenAPI 3.1), out of the very shapes by which the node reads requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from tokenplace.gateway import described_board, described_classic
from tokenplace.gateway.flavours import OPERATIONS, Flavour, Operation

Json = dict[str, Any]
_REF = "#/components/schemas/"

_REFUSALS: Mapping[str, str] = {
    "400": "The request cannot be honoured; `param` names the part at fault",
    "401": "This gateway wants an API key, or the operator's token",
    "404": "There is no such model",
    "413": "The request is too large",
    "415": "The body is not JSON",
    "429": "Too much waits already; Retry-After says when to ask again",
    "502": "The node failed",
    "503": "Nobody serves this (model) now; the message says who could",
}

_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_MAYBE_TEXT = {"type": ["string", "null"]}


def describe(flavours: Iterable[Flavour]) -> Json:
    """The whole document."""
    modes: list[Any] = [(operation.shape, "validation") for operation in OPERATIONS]
    _, shapes = models_json_schema(modes, ref_template=_REF + "{model}")
    paths: Json = {}
    for flavour in flavours:
        for prefix in flavour.prefixes:
            paths |= _paths(flavour, prefix)
    paths |= described_board.paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "token.place",
            "version": version("tokenplace"),
            "summary": "OpenAI's API, answered by volunteers' machines, sealed on the way.",
            "description": "`/v1` and `/api/v1` answer in JSON, `/v2` and `/api/v2` stream as well. Every answer says "
            "in `x-token-place-privacy` where its words could be read: `end-to-end` on a gateway of your own, "
            "`gateway` on one that somebody else runs, `classic` where the program sealed them itself in the "
            "original's way (docs/how-to/encrypted-requests.md). The parameters, and which of them are refused, stand "
            "in docs/reference/parameters.md.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": {**shapes.get("$defs", {}), **_ANSWERS, **described_board.SHAPES, **described_classic.SHAPES},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Only where the gateway wants keys"}
            },
        },
        "security": [{}, {"key": []}],
    }


def _paths(flavour: Flavour, prefix: str) -> Json:
    tag = f"{flavour.version} ({prefix})"
    paths: Json = {
        f"{prefix}/models": {
            "get": _operation("What can be asked for, and how many nodes serve it now", tag, "Models", ("401", "503"))
        },
        f"{prefix}/models/{{model_id}}": {
            "get": {
                **_operation("One model; aliases are understood", tag, "Model", ("401", "404", "503")),
                "parameters": [{"name": "model_id", "in": "path", "required": True, "schema": _TEXT}],
            }
        },
        f"{prefix}/health": {"get": _operation("Whether this gateway is up", tag, "Health", ())},
        f"{prefix}/public-key": {
            "get": {
                **_operation("A node's key for encrypted requests", tag, "PublicKey", ("401", "503")),
                **described_classic.FOR_MODEL,
            }
        },
        f"{prefix}/public-key/rotate": {
            "post": {
                **_operation("Have the operator's nodes make fresh keys", tag, "RotatedKey", ("401", "503")),
                **described_classic.ROTATION,
            }
        },
    }
    for operation in flavour.operations:
        paths[f"{prefix}{operation.path}"] = {"post": _asking(operation, tag, streams=flavour.streams)}
    return paths


def _asking(operation: Operation, tag: str, *, streams: bool) -> Json:
    asked = _operation(operation.summary, tag, operation.answer, _REFUSALS)
    if operation.streams and streams:
        asked["responses"]["200"]["content"]["text/event-stream"] = {}
    body: Json = {"$ref": _REF + operation.shape.__name__}
    if operation.streams and not streams:
        body = {"allOf": [body, {"properties": {"stream": {"enum": [False, None]}}}]}
    return described_classic.with_encryption(operation.node_path, asked, body)


def _operation(summary: str, tag: str, answer: str, refusals: Iterable[str]) -> Json:
    def content(name: str) -> Json:
        return {"application/json": {"schema": {"$ref": _REF + name}}}

    responses = {"200": {"description": "The answer", "headers": _HEADERS, "content": content(answer)}}
    for status in refusals:
        responses[status] = {"description": _REFUSALS[status], "headers": _HEADERS, "content": content("Error")}
    return {"summary": summary, "tags": [tag], "responses": responses}


_HEADERS: Json = {
    "x-request-id": {"description": "The request's own, or a fresh one", "schema": _TEXT},
    "x-token-place-privacy": {
        "description": "Where the words could be read",
        "schema": {"type": "string", "enum": ["end-to-end", "classic", "gateway"]},
    },
}


def _object(required: Json, **optional: Any) -> Json:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _list(item: Json) -> Json:
    return {"type": "array", "items": item}


_USAGE = {
    "anyOf": [
        _object({"prompt_tokens": _WHOLE, "completion_tokens": _WHOLE, "total_tokens": _WHOLE}),
        {"type": "null"},
    ]
}
_LOOSE = {"type": ["object", "null"]}

_ANSWERS: Json = {
    "Error": _object(
        {
            "error": _object(
                {"message": _TEXT, "type": _TEXT, "param": _MAYBE_TEXT, "code": _MAYBE_TEXT},
                **described_classic.EXPIRED,
            )
        }
    ),
    "Health": _object({"status": {"const": "ok"}, "version": _TEXT, "service": _TEXT, "timestamp": _WHOLE}),
    "Model": _object(
        {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _WHOLE,
            "owned_by": _TEXT,
            "root": _TEXT,
            "parent": _MAYBE_TEXT,
            "context_length": {"type": ["integer", "null"]},
            "capabilities": _list(_TEXT),
            "nodes": _WHOLE,
            "loaded": _FLAG,
        },
        permission=_list({"type": "object"}),
        metadata={"type": "object"},
        stand_in=_TEXT,
    ),
    "Models": _object({"object": {"const": "list"}, "data": _list({"$ref": _REF + "Model"})}),
    "ChatCompletion": _object(
        {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": _WHOLE,
            "model": _TEXT,
            "choices": _list(
                _object(
                    {
                        "index": _WHOLE,
                        "finish_reason": _TEXT,
                        "logprobs": _LOOSE,
                        "message": _object(
                            {"role": {"const": "assistant"}, "content": _MAYBE_TEXT, "refusal": _MAYBE_TEXT},
                            tool_calls=_list({"type": "object"}),
                            function_call={"type": "object"},
                            reasoning_content=_TEXT,
                            annotations=_list({"type": "object"}),
                        ),
                    }
                )
            ),
            "usage": _USAGE,
        },
        metadata={"type": "object"},
        system_fingerprint=_MAYBE_TEXT,
    ),
    "Completion": _object(
        {
            "id": _TEXT,
            "object": {"const": "text_completion"},
            "created": _WHOLE,
            "model": _TEXT,
            "choices": _list(_object({"index": _WHOLE, "text": _TEXT, "finish_reason": _TEXT, "logprobs": _LOOSE})),
            "usage": _USAGE,
        },
        system_fingerprint=_MAYBE_TEXT,
    ),
    "Response": _object(
        {
            "id": _TEXT,
            "object": {"const": "response"},
            "created_at": _WHOLE,
            "status": {"enum": ["completed", "incomplete"]},
            "model": _TEXT,
            "output": _list(_object({"id": _TEXT, "type": {"enum": ["message", "function_call", "reasoning"]}})),
            "incomplete_details": _LOOSE,
            "store": {"const": False},
            "usage": {
                "anyOf": [
                    _object({"input_tokens": _WHOLE, "output_tokens": _WHOLE, "total_tokens": _WHOLE}),
                    {"type": "null"},
                ]
            },
        }
    ),
    "Embeddings": _object(
        {
            "object": {"const": "list"},
            "model": _TEXT,
            "data": _list(
                _object(
                    {
                        "object": {"const": "embedding"},
                        "index": _WHOLE,
                        "embedding": {"anyOf": [_list({"type": "number"}), _TEXT]},
                    }
                )
            ),
            "usage": _object({"prompt_tokens": _WHOLE, "total_tokens": _WHOLE}),
        }
    ),
    "Images": _object(
        {
            "created": _WHOLE,
            "data": _list(_object({"b64_json": _TEXT, "revised_prompt": _TEXT})),
            "size": _TEXT,
            "model": _TEXT,
        },
        seed=_WHOLE,
        output_format=_TEXT,
    ),
}
