"""A chat answer: the engine's chunks made into OpenAI's, and a whole answer put together from them.

Engines differ in the small print: the role comes late or never, `logprobs: null` is missing, calls have no id, usage
comes once per choice, private fields ride along. `ChatRepair` takes whatever comes and gives chunks that hold to
https://platform.openai.com/docs/api-reference/chat-streaming; `ChatAssembly` adds those up.

For every choice: one chunk with the role, then pieces, then one chunk with the finish reason and nothing else.
"""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenplace.errors import EngineError
from tokenplace.openai import jsontext
from tokenplace.openai.forced import ForcedText, Forcing, Part
from tokenplace.openai.usage import Tally, Usage

Chunk = dict[str, Any]
"""One `chat.completion.chunk` or `text_completion`, ready to be written."""

_LETTERS = string.ascii_letters + string.digits

FINISHES = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "limit": "length",
    "max_tokens": "length",
    "max_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""Every engine's word for why it ended → OpenAI's."""

NO_PROBABILITY = -9999.0
"""OpenAI's log probability of what is next to impossible; JSON has no -∞."""


def new_id(prefix: str) -> str:
    """`chatcmpl-…`, `call_…`: unguessable, of OpenAI's alphabet."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(24))


@dataclass(frozen=True, slots=True)
class ChatOrder:
    """What was asked, as far as the answer's shape depends on it."""

    model: str
    created: int
    choices: int = 1
    top_alternatives: int | None = None
    """None: no log probabilities."""
    usage_in_stream: bool = False
    forcing: Forcing | None = None
    legacy: bool = False
    """Answer with `function_call` instead of `tool_calls`."""
    metadata: Mapping[str, str] | None = None
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))


@dataclass(slots=True)
class _Choice:
    """How far one choice has come."""

    forced: ForcedText | None
    told_role: bool = False
    seen: bool = False
    """Whether the engine has sent anything for it."""
    finished: bool = False
    calls: dict[tuple[int, str | None], int] = field(default_factory=dict)
    """(the engine's index, its id) → ours."""
    latest: dict[int, int] = field(default_factory=dict)
    """The engine's index → ours, of the latest call there."""
    legacy_call: int | None = None


class ChatRepair:
    """Makes one answer's chunks right. `tally` keeps what it costs."""

    def __init__(self, order: ChatOrder, tally: Tally) -> None:
        self._order = order
        self._tally = tally
        forcing = order.forcing
        self._choices = [
            _Choice(None if forcing is None else ForcedText(required=forcing.required)) for _ in range(order.choices)
        ]
        self._base: Chunk = {
            "id": order.id,
            "object": "chat.completion.chunk",
            "created": order.created,
            "model": order.model,
            "system_fingerprint": None,
        }

    def take(self, chunk: Mapping[str, Any]) -> list[Chunk]:
        """What one chunk of the engine becomes. Raises EngineError for what is no chunk."""
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise EngineError("The model runtime sent something that is not a chunk of a chat answer.")
        if fingerprint := chunk.get("system_fingerprint"):
            self._base["system_fingerprint"] = fingerprint if isinstance(fingerprint, str) else None
        if not choices:
            self._tally.read(chunk, None)
            return []
        out: list[Chunk] = []
        for raw in choices:
            index = raw.get("index", 0) if isinstance(raw, dict) else None
            if not isinstance(index, int) or not 0 <= index < len(self._choices):
                raise EngineError("The model runtime sent a choice that nobody asked for.")
            self._tally.read(chunk, index)
            if "prompt_progress" in chunk:  # llama.cpp tells how far the prompt is, as if it were a piece
                continue
            self._take_choice(index, raw, out)
        return out

    def end(self) -> list[Chunk]:
        """What is left to say once the engine said [DONE]. Raises EngineError when it gave no answer at all."""
        out: list[Chunk] = []
        for index, choice in enumerate(self._choices):
            if not choice.finished:
                if not choice.seen:
                    raise EngineError("The model runtime ended its answer without giving one.")
                self._finish(index, choice, "stop", out)
        if self._order.usage_in_stream and (usage := self._tally.told) is not None:
            out.append({**self._base, "choices": [], "usage": usage})
        return out

    def _take_choice(self, index: int, raw: Mapping[str, Any], out: list[Chunk]) -> None:
        choice = self._choices[index]
        if choice.finished:
            return
        choice.seen = True
        delta = raw.get("delta")
        if isinstance(delta, dict):
            self._take_delta(index, choice, delta, raw.get("logprobs"), out)
        if (reason := raw.get("finish_reason")) is not None:
            self._finish(index, choice, FINISHES.get(reason, "stop"), out)

    def _take_delta(
        self, index: int, choice: _Choice, delta: Mapping[str, Any], logprobs: Any, out: list[Chunk]
    ) -> None:
        content, calls = delta.get("content"), delta.get("tool_calls")
        self._tell_roles(index, bool(calls), out)
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            self._tally.count(index)
            out.append(self._chunk(index, {"reasoning_content": thought}))
        if refusal := delta.get("refusal"):
            out.append(self._chunk(index, {"refusal": refusal}))
        scores = self._logprobs(logprobs)
        if isinstance(content, str) and (content or scores):
            self._tally.count(index, len(scores["content"]) if scores else 1)
            if choice.forced is not None:
                self._take_forced(index, choice, choice.forced, content, out)
            else:
                out.append(self._chunk(index, {"content": content}, scores))
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._tally.count(index)
                    self._take_call(index, choice, call, out)

    def _tell_roles(self, index: int, calling: bool, out: list[Chunk]) -> None:
        """The first chunk of a choice. OpenAI's own SDK falls over a stream that does not begin them in order."""
        if self._choices[index].told_role:
            return
        for place, choice in enumerate(self._choices[: index + 1]):
            if not choice.told_role:
                choice.told_role = True
                wordless = choice.forced is not None or (calling and place == index)
                role = {"role": "assistant", "content": None if wordless else "", "refusal": None}
                out.append(self._chunk(place, role))

    def _take_forced(self, index: int, choice: _Choice, forced: ForcedText, content: str, out: list[Chunk]) -> None:
        for part, text in forced.feed(content):
            if part is Part.WORDS:
                out.append(self._chunk(index, {"content": text}))
            elif part is Part.NAME:
                self._call_begins(index, choice, (0, None), None, text, out)
            else:
                self._call_goes_on(index, 0, text, out)

    def _take_call(self, index: int, choice: _Choice, call: Mapping[str, Any], out: list[Chunk]) -> None:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments, given = function.get("name"), function.get("arguments"), call.get("id")
        if isinstance(arguments, dict):  # some engines send the object itself
            arguments = jsontext.write_text(arguments)
        given = given if isinstance(given, str) and given else None
        place = call.get("index")
        # Engines that send whole calls may leave the index out, or send 0 for all: a new name with a new id is a new
        # call; without any place it goes behind those we have.
        place = place if isinstance(place, int) else (len(choice.calls) if name else max(choice.latest, default=0))
        known = choice.latest.get(place)
        if known is None or (name and given is not None and (place, given) not in choice.calls):
            if not isinstance(name, str) or not name:
                raise EngineError("The model runtime sent a tool call without a name.")
            known = self._call_begins(index, choice, (place, given), given, name, out)
        if isinstance(arguments, str) and arguments:
            self._call_goes_on(index, known, arguments, out)

    def _call_begins(
        self, index: int, choice: _Choice, key: tuple[int, str | None], given: str | None, name: str, out: list[Chunk]
    ) -> int:
        ours = len(choice.calls)
        choice.calls[key] = ours
        choice.latest[key[0]] = ours
        if self._order.legacy:
            if ours == 0:  # the older form has room for one call
                out.append(self._chunk(index, {"function_call": {"name": name, "arguments": ""}}))
            return ours
        call = {
            "index": ours,
            "id": given or new_id("call_"),
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        out.append(self._chunk(index, {"tool_calls": [call]}))
        return ours

    def _call_goes_on(self, index: int, ours: int, arguments: str, out: list[Chunk]) -> None:
        if not self._order.legacy:
            out.append(self._chunk(index, {"tool_calls": [{"index": ours, "function": {"arguments": arguments}}]}))
        elif ours == 0:
            out.append(self._chunk(index, {"function_call": {"arguments": arguments}}))

    def _finish(self, index: int, choice: _Choice, reason: str, out: list[Chunk]) -> None:
        self._tell_roles(index, False, out)
        if choice.forced is not None and reason == "stop" and not choice.forced.whole:
            raise EngineError("The model runtime ended a tool call in its middle.")
        if choice.calls and reason == "stop":
            reason = "tool_calls"
        if self._order.legacy and reason == "tool_calls":
            reason = "function_call"
        choice.finished = True
        out.append(self._chunk(index, {}, None, reason))

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> Chunk:
        chunk = {
            **self._base,
            "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
        }
        if self._order.usage_in_stream:
            chunk["usage"] = None
        return chunk

    def _logprobs(self, raw: Any) -> dict[str, Any] | None:
        most = self._order.top_alternatives
        if most is None or self._order.forcing is not None or not isinstance(raw, dict):
            return None
        tokens = raw.get("content")
        if not isinstance(tokens, list):
            return None
        return {"content": [scored(token, most) for token in tokens if isinstance(token, dict)], "refusal": None}


def scored(token: Mapping[str, Any], most: int) -> dict[str, Any]:
    """One token with its log probability and `most` alternatives, in OpenAI's shape."""
    alternatives = token.get("top_logprobs")
    return {
        **_score(token),
        "top_logprobs": [_score(other) for other in alternatives[:most]] if isinstance(alternatives, list) else [],
    }


def _score(token: Mapping[str, Any]) -> dict[str, Any]:
    text, logprob, raw = token.get("token"), token.get("logprob"), token.get("bytes")
    number = logprob if isinstance(logprob, int | float) and math.isfinite(logprob) else NO_PROBABILITY
    return {
        "token": text if isinstance(text, str) else "",
        "logprob": max(float(number), NO_PROBABILITY),
        "bytes": raw if isinstance(raw, list) else None,
    }


@dataclass(slots=True)
class _Gathered:
    content: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    legacy: dict[str, str] | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    spoke: bool = False


class ChatAssembly:
    """Adds repaired chunks up to a `chat.completion`."""

    def __init__(self, order: ChatOrder) -> None:
        self._order = order
        self._choices = [_Gathered() for _ in range(order.choices)]
        self._fingerprint: str | None = None

    def take(self, chunks: Sequence[Chunk]) -> None:
        """Add chunks, as `ChatRepair` gave them."""
        for chunk in chunks:
            self._fingerprint = chunk["system_fingerprint"]
            for part in chunk["choices"]:
                self._add(self._choices[part["index"]], part)

    def whole(self, usage: Usage | None) -> dict[str, Any]:
        """The answer. `usage` is null in it where the engine told none."""
        order = self._order
        answer: dict[str, Any] = {
            "id": order.id,
            "object": "chat.completion",
            "created": order.created,
            "model": order.model,
            "choices": [self._choice(index, gathered) for index, gathered in enumerate(self._choices)],
            "usage": usage,
            "system_fingerprint": self._fingerprint,
        }
        if order.metadata:
            answer["metadata"] = dict(order.metadata)
        return answer

    @staticmethod
    def _add(gathered: _Gathered, part: Mapping[str, Any]) -> None:
        delta = part["delta"]
        if content := delta.get("content"):
            gathered.content.append(content)
        if refusal := delta.get("refusal"):
            gathered.refusal.append(refusal)
        if thought := delta.get("reasoning_content"):
            gathered.reasoning.append(thought)
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                function = {"name": call["function"]["name"], "arguments": []}
                gathered.calls.append({"id": call["id"], "type": "function", "function": function})
            else:
                gathered.calls[call["index"]]["function"]["arguments"].append(call["function"]["arguments"])
        if legacy := delta.get("function_call"):
            if gathered.legacy is None:
                gathered.legacy = {"name": legacy["name"], "arguments": ""}
            gathered.legacy["arguments"] += legacy["arguments"]
        if part["logprobs"] is not None:
            gathered.logprobs += part["logprobs"]["content"]
        if part["finish_reason"] is not None:
            gathered.finish = part["finish_reason"]

    def _choice(self, index: int, gathered: _Gathered) -> dict[str, Any]:
        calls = [
            {**call, "function": {**call["function"], "arguments": "".join(call["function"]["arguments"])}}
            for call in gathered.calls
        ]
        content: str | None = "".join(gathered.content)
        if not content and (calls or gathered.legacy or gathered.refusal):
            content = None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content,
            "refusal": "".join(gathered.refusal) or None,
            "annotations": [],
        }
        if gathered.reasoning:
            message["reasoning_content"] = "".join(gathered.reasoning)
        if calls:
            message["tool_calls"] = calls
        if gathered.legacy is not None:
            message["function_call"] = gathered.legacy
        scored_tokens = (
            {"content": gathered.logprobs, "refusal": None}
            if self._order.top_alternatives is not None and self._order.forcing is None
            else None
        )
        return {"index": index, "message": message, "logprobs": scored_tokens, "finish_reason": gathered.finish}
