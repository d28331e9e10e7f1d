"""The answer of `/v1/responses`, out of the chunks of a chat answer: OpenAI's typed events, and the whole response.

    created → in_progress → for each item: output_item.added → its content … → output_item.done → completed | incomplete

An item is a message, a function call or a thought; one ends where the next begins. Every event has the next
`sequence_number`. There is no [DONE]: `response.completed` (or `.incomplete`) is the end of a whole stream.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenplace.openai import jsontext
from tokenplace.openai.chat import Chunk, new_id
from tokenplace.openai.responses import ResponseRequest
from tokenplace.openai.usage import Usage

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class _Item:
    """One output item while it grows. `kind` is message, function_call or reasoning."""

    kind: str
    id: str
    index: int
    part: str = ""
    """output_text, refusal or reasoning_text: the kind of the content part that is open."""
    content: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    call_id: str = ""
    name: str = ""


class ResponseVoice:
    """Takes chat chunks, as `ChatRepair` gave them; gives events, and the whole response."""

    def __init__(
        self, request: ResponseRequest, *, model: str, created: int, temperature: float = 1.0, top_p: float = 1.0
    ) -> None:
        self._request = request
        self._id = new_id("resp_")
        self._model = model
        self._created = created
        self._temperature = temperature if request.temperature is None else request.temperature
        self._top_p = top_p if request.top_p is None else request.top_p
        self._number = 0
        self._began = False
        self._output: list[dict[str, Any]] = []
        self._item: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._finish: str | None = None
        self._out: list[bytes] = []

    # ── As events ──

    def say(self, chunks: Sequence[Chunk]) -> bytes:
        """What these chunks become."""
        self.take(chunks)
        return self._said()

    def end(self, usage: Usage | None) -> bytes:
        """The last events."""
        self._close()
        whole = self._response(usage)
        self._tell(f"response.{whole['status']}", {"response": whole})
        return self._said()

    # ── As JSON ──

    def take(self, chunks: Sequence[Chunk]) -> None:
        """Add chunks."""
        if not self._began:
            self._began = True
            self._tell("response.created", {"response": self._response(None, "in_progress")})
            self._tell("response.in_progress", {"response": self._response(None, "in_progress")})
        for chunk in chunks:
            for choice in chunk["choices"]:
                self._take(choice["delta"], choice["logprobs"])
                self._finish = choice["finish_reason"] or self._finish

    def whole(self, usage: Usage | None) -> dict[str, Any]:
        """The response."""
        self._close()
        self._out.clear()
        return self._response(usage)

    # ── Deltas ──

    def _take(self, delta: Mapping[str, Any], logprobs: Mapping[str, Any] | None) -> None:
        if thought := delta.get("reasoning_content"):
            item = self._open("reasoning", "rs_", "reasoning_text")
            item.pieces.append(thought)
            self._tell("response.reasoning_text.delta", {**self._place(item), "delta": thought})
        if (content := delta.get("content")) or logprobs:
            item = self._open("message", "msg_", "output_text")
            scores = [_score(token) for token in (logprobs or {}).get("content") or ()]
            item.pieces.append(content or "")
            item.scores += scores
            told = {**self._place(item), "delta": content or "", "logprobs": scores}
            self._tell("response.output_text.delta", told)
        if refusal := delta.get("refusal"):
            item = self._open("message", "msg_", "refusal")
            item.pieces.append(refusal)
            self._tell("response.refusal.delta", {**self._place(item), "delta": refusal})
        for call in delta.get("tool_calls", ()):
            self._call(call)

    def _call(self, call: Mapping[str, Any]) -> None:
        function = call["function"]
        if "id" in call:
            self._close()
            item = self._item = _Item("function_call", new_id("fc_"), len(self._output))
            item.call_id, item.name = call["id"], function["name"]
            self._calls[call["index"]] = item
            added = {"output_index": item.index, "item": self._shown(item, "in_progress")}
            self._tell("response.output_item.added", added)
            return
        item = self._calls[call["index"]]
        item.pieces.append(function["arguments"])
        told = {"item_id": item.id, "output_index": item.index, "delta": function["arguments"]}
        self._tell("response.function_call_arguments.delta", told)

    # ── Items and their parts ──

    def _open(self, kind: str, prefix: str, part: str) -> _Item:
        """The item and part that this piece belongs to; the ones before it end where it begins."""
        item = self._item
        if item is None or item.kind != kind:
            self._close()
            item = self._item = _Item(kind, new_id(prefix), len(self._output))
            added = {"output_index": item.index, "item": self._shown(item, "in_progress")}
            self._tell("response.output_item.added", added)
        if item.part != part:
            self._close_part(item)
            item.part = part
            self._tell("response.content_part.added", {**self._place(item), "part": _part(part, "", [])})
        return item

    def _close_part(self, item: _Item) -> None:
        if not item.part:
            return
        text = "".join(item.pieces)
        part = _part(item.part, text, item.scores)
        match item.part:
            case "output_text":
                done = {"text": text, "logprobs": item.scores}
            case "refusal":
                done = {"refusal": text}
            case _:
                done = {"text": text}
        self._tell(f"response.{item.part}.done", {**self._place(item), **done})
        self._tell("response.content_part.done", {**self._place(item), "part": part})
        item.content.append(part)
        item.pieces, item.scores, item.part = [], [], ""

    def _close(self) -> None:
        item, self._item = self._item, None
        if item is None:
            return
        self._close_part(item)
        if item.kind == "function_call":
            arguments = "".join(item.pieces)
            told = {"item_id": item.id, "output_index": item.index, "name": item.name, "arguments": arguments}
            self._tell("response.function_call_arguments.done", told)
        shown = self._shown(item, "incomplete" if self._finish in _INCOMPLETE else "completed")
        self._output.append(shown)
        self._tell("response.output_item.done", {"output_index": item.index, "item": shown})

    @staticmethod
    def _place(item: _Item) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": item.index, "content_index": len(item.content)}

    @staticmethod
    def _shown(item: _Item, status: str) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": item.id, "type": item.kind, "status": status}
        match item.kind:
            case "message":
                return {**shown, "role": "assistant", "content": list(item.content)}
            case "reasoning":
                return {**shown, "summary": [], "content": list(item.content), "encrypted_content": None}
            case _:
                arguments = "".join(item.pieces)
                return {**shown, "arguments": arguments, "call_id": item.call_id, "name": item.name}

    # ── Writing ──

    def _tell(self, type: str, fields: Mapping[str, Any]) -> None:
        event = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        self._out.append(b"event: " + type.encode() + b"\ndata: " + jsontext.write(event) + b"\n\n")

    def _said(self) -> bytes:
        said = b"".join(self._out)
        self._out.clear()
        return said

    def _response(self, usage: Usage | None, status: str | None = None) -> dict[str, Any]:
        request = self._request
        reason = _INCOMPLETE.get(self._finish or "")
        text = request.text
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status or ("incomplete" if reason else "completed"),
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if reason and status is None else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": None,
            "model": self._model,
            "output": [] if status is not None else list(self._output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": self._temperature,
            "text": {
                "format": text.format.model_dump(by_alias=True, exclude_none=True)
                if text is not None and text.format is not None
                else {"type": "text"},
                "verbosity": "medium",
            },
            "tool_choice": _dumped(request.tool_choice) or "auto",
            "tools": [_tool(tool.model_dump()) for tool in request.tools or ()],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": self._top_p,
            "truncation": "disabled",
            "usage": _usage(usage),
            "user": request.user,
            "metadata": dict(request.metadata or {}),
        }


def _part(kind: str, text: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
    match kind:
        case "output_text":
            return {"type": kind, "text": text, "annotations": [], "logprobs": scores}
        case "refusal":
            return {"type": kind, "refusal": text}
        case _:
            return {"type": kind, "text": text}


def _score(token: Mapping[str, Any]) -> dict[str, Any]:
    return {**token, "bytes": token["bytes"] or []}


def _dumped(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's response tells every field of a tool, `strict` as what it is by default."""
    return {**tool, "strict": tool["strict"] is not False}


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None or "prompt_tokens" not in usage:
        return None
    cached = usage.get("prompt_tokens_details") or {}
    thought = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": thought.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
