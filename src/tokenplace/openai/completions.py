"""A text completion: the engine's chunks made into OpenAI's older shape, and a whole answer put together from them.

llama.cpp tells a completion's log probabilities in the shape of chat and ignores `echo`; both are made right here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenplace.errors import EngineError
from tokenplace.openai.chat import FINISHES, Chunk, new_id, scored
from tokenplace.openai.usage import Tally, Usage


@dataclass(frozen=True, slots=True)
class CompletionOrder:
    """What was asked, as far as the answer's shape depends on it."""

    model: str
    created: int
    choices: int = 1
    """All together: `n` for each prompt."""
    echoes: tuple[str, ...] = ()
    """What each choice's text begins with, where `echo` was asked."""
    top_alternatives: int | None = None
    """None: no log probabilities."""
    usage_in_stream: bool = False
    id: str = field(default_factory=lambda: new_id("cmpl-"))


@dataclass(slots=True)
class _Choice:
    started: bool = False
    finished: bool = False
    offset: int = 0


class CompletionRepair:
    """Makes one answer's chunks right. `tally` keeps what it costs."""

    def __init__(self, order: CompletionOrder, tally: Tally) -> None:
        self._order = order
        self._tally = tally
        self._choices = [_Choice() for _ in range(order.choices)]
        self._base: Chunk = {
            "id": order.id,
            "object": "text_completion",
            "created": order.created,
            "model": order.model,
            "system_fingerprint": None,
        }

    def take(self, chunk: Mapping[str, Any]) -> list[Chunk]:
        """What one chunk of the engine becomes. Raises EngineError for what is no chunk."""
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise EngineError("The model runtime sent something that is not a chunk of a completion.")
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
            if "prompt_progress" not in chunk:
                self._take_choice(index, raw, out)
        return out

    def end(self) -> list[Chunk]:
        """What is left to say once the engine said [DONE]. Raises EngineError when it gave no answer at all."""
        out: list[Chunk] = []
        for index, choice in enumerate(self._choices):
            if not choice.finished:
                if not choice.started:
                    raise EngineError("The model runtime ended its answer without giving one.")
                choice.finished = True
                out.append(self._chunk(index, "", None, "stop"))
        if self._order.usage_in_stream and (usage := self._tally.told) is not None:
            out.append({**self._base, "choices": [], "usage": usage})
        return out

    def _take_choice(self, index: int, raw: Mapping[str, Any], out: list[Chunk]) -> None:
        choice = self._choices[index]
        if choice.finished:
            return
        text = raw.get("text")
        text = text if isinstance(text, str) else ""
        if not choice.started:
            choice.started = True
            if self._order.echoes:
                echo = self._order.echoes[index]
                choice.offset = len(echo)
                out.append(self._chunk(index, echo))
        scores = self._logprobs(choice, raw.get("logprobs"))
        if text or scores:
            self._tally.count(index, len(scores["tokens"]) if scores else 1)
            out.append(self._chunk(index, text, scores))
        if (reason := raw.get("finish_reason")) is not None:
            choice.finished = True
            reason = FINISHES.get(reason, "stop")
            out.append(self._chunk(index, "", None, "stop" if reason == "tool_calls" else reason))

    def _chunk(self, index: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> Chunk:
        chunk = {
            **self._base,
            "choices": [{"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}],
        }
        if self._order.usage_in_stream:
            chunk["usage"] = None
        return chunk

    def _logprobs(self, choice: _Choice, raw: Any) -> dict[str, Any] | None:
        """OpenAI's four lists, whether the engine sent those or chat's shape."""
        most = self._order.top_alternatives
        if most is None or not isinstance(raw, dict):
            return None
        if isinstance(tokens := raw.get("tokens"), list):
            return {
                "tokens": tokens,
                "token_logprobs": raw.get("token_logprobs") or [],
                "top_logprobs": (raw.get("top_logprobs") or []) if most else None,
                "text_offset": self._offsets(choice, tokens),
            }
        content = raw.get("content")
        if not isinstance(content, list) or not content:
            return None
        scores = [scored(token, most) for token in content if isinstance(token, dict)]
        return {
            "tokens": [score["token"] for score in scores],
            "token_logprobs": [score["logprob"] for score in scores],
            "top_logprobs": [{other["token"]: other["logprob"] for other in score["top_logprobs"]} for score in scores]
            if most
            else None,
            "text_offset": self._offsets(choice, [score["token"] for score in scores]),
        }

    @staticmethod
    def _offsets(choice: _Choice, tokens: Sequence[Any]) -> list[int]:
        offsets: list[int] = []
        for token in tokens:
            offsets.append(choice.offset)
            choice.offset += len(token) if isinstance(token, str) else 0
        return offsets


@dataclass(slots=True)
class _Gathered:
    text: list[str] = field(default_factory=list)
    logprobs: dict[str, Any] | None = None
    finish: str | None = None


class CompletionAssembly:
    """Adds repaired chunks up to a `text_completion`."""

    def __init__(self, order: CompletionOrder) -> None:
        self._order = order
        self._choices = [_Gathered() for _ in range(order.choices)]
        self._fingerprint: str | None = None

    def take(self, chunks: Sequence[Chunk]) -> None:
        """Add chunks, as `CompletionRepair` gave them."""
        for chunk in chunks:
            self._fingerprint = chunk["system_fingerprint"]
            for part in chunk["choices"]:
                gathered = self._choices[part["index"]]
                gathered.text.append(part["text"])
                if part["logprobs"] is not None:
                    _extend(gathered, part["logprobs"])
                if part["finish_reason"] is not None:
                    gathered.finish = part["finish_reason"]

    def whole(self, usage: Usage | None) -> dict[str, Any]:
        """The answer. `usage` is null in it where the engine told none."""
        return {
            "id": self._order.id,
            "object": "text_completion",
            "created": self._order.created,
            "model": self._order.model,
            "choices": [
                {
                    "index": index,
                    "text": "".join(gathered.text),
                    "logprobs": gathered.logprobs,
                    "finish_reason": gathered.finish,
                }
                for index, gathered in enumerate(self._choices)
            ],
            "usage": usage,
            "system_fingerprint": self._fingerprint,
        }


def _extend(gathered: _Gathered, more: Mapping[str, Any]) -> None:
    if gathered.logprobs is None:
        gathered.logprobs = {key: None if value is None else list(value) for key, value in more.items()}
        return
    for key, value in more.items():
        if value is not None and gathered.logprobs[key] is not None:
            gathered.logprobs[key] += value
